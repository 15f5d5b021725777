"""``dynaconv cost``."""

from __future__ import annotations

import csv
import io
import json

import pytest
import timm
import torch

from dynaconv.cli import main
from dynaconv.counting import cost


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["cost", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_is_the_counters_report(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "dy_resnet10", "--rule", "dy", "--format", "json", "--input", "3x64x96")
    assert (code, err) == (0, "")
    with torch.device("meta"):
        network = timm.create_model("dy_resnet10")
    assert json.loads(out) == cost(network, (3, 64, 96), rule="dy").to_dict()


def test_table_names_mixing_routing_parameters_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "condconv_mobilenetv1_025", "--arg", "experts=4", "--arg", "routing=single")
    assert code == 0
    assert "blocks.3.0.conv_dw" in out
    assert "CondConv2d K=4" in out
    assert "bn1" not in out
    for word in ("kernel", "mixing", "routing", "parameters", "activations"):
        assert word in out
    assert "bn1" in run(capsys, "condconv_mobilenetv1_025", "--all")[1]


def test_csv_and_the_networks_own_size(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "efficientnet_b1", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    stem = next(row for row in rows if row["name"] == "conv_stem")
    assert stem["output_shape"] == "1x32x120x120"  # timm's b1 is for 240 pixels
    assert int(stem["kernel"]) == 120 * 120 * 32 * 27


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dy_resnet11"], "Did you mean 'dy_resnet18' or 'dy_resnet10'"),
        (["dy_resnet10", "--rule", "madd"], "The rule is 'madd'. Did you mean 'madds'"),
        (["dy_resnet10", "--format", "jason"], "Did you mean 'json'"),
        (["dy_resnet10", "--input", "224"], "channels are missing"),
        (["dy_resnet10", "--input", "4x64x64"], "does not run on input of shape"),
        (["dy_resnet10", "--arg", "experts"], "expected NAME=VALUE"),
        (["dy_resnet10", "--arg", "experts=0"], "experts is 0"),
        (["dy_resnet10", "--arg", "exprts=2"], "Did you mean 'experts'"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_detector_is_counted_without_its_post_processing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "ssd300_condconv_mobilenetv1_050", "--rule", "tf", "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["input_shapes"] == [[1, 3, 300, 300]]
    assert "backbone.extra.3.conv2" in out


def test_a_keypoint_network_is_counted_at_its_own_size(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "keypoints_b_dy_mobilenetv3_small", "--format", "json", "--arg", "num_keypoints=5")
    assert code == 0
    assert json.loads(out)["input_shapes"] == [[1, 3, 256, 192]]
