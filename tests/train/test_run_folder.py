"""What a run leaves in its folder."""

from __future__ import annotations

import csv
import gc
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dynaconv.__main__ import main
from dynaconv.errors import UserError
from dynaconv.train import fit
from dynaconv.train.run_folder.checkpoint import read_checkpoint
from dynaconv.train.run_folder.weights import finetune_from, read_weights, save_weights
from train.tiny import digits, newest, settings, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    fit(tiny(), digits(), settings(curves=True, tensorboard=True, log_every=2), out=out, about={"note": "x"})
    return out


def test_csv_has_a_row_per_epoch(run: Path) -> None:
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    saved = read_checkpoint(newest(run))["history"]
    assert [float(row["top1"]) for row in rows] == [record["metrics"]["top1"] for record in saved]
    expected = {"train_loss", "eval_loss", "top5", "lr", "temperature", "images_per_second", "routing_entropy/router"}
    assert expected <= rows[0].keys()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_tensorboard_has_steps_and_epochs(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/train_loss")] == list(range(2, 19, 2))
    assert [event.step for event in events.Scalars("top1")] == [6, 12, 18]
    assert "routing_entropy/router" in events.Tags()["scalars"]
    del events
    gc.collect()  # its reader leaves the file open: here, and not in another test


def test_picture(run: Path) -> None:
    from PIL import Image

    with Image.open(run / "curves.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


def test_run_json_is_a_recipe_and_says_what_it_came_to(run: Path) -> None:
    content = json.loads((run / "run.json").read_text())
    assert content["recipe"]["settings"]["lr"] == 0.1
    assert content["classes"] == [str(digit) for digit in range(10)]
    assert content["augment"]["crop"] == "pad", "what the settings left to the data set is resolved"
    assert content["versions"]["torch"] == torch.__version__
    assert content["note"] == "x"


def test_weights_hold_the_averaged_model_and_how_to_use_it(run: Path) -> None:
    tensors, about = read_weights(run / "last.safetensors")
    saved = read_checkpoint(newest(run))
    assert all(torch.equal(tensors[name], tensor) for name, tensor in saved["ema"].items())
    assert about["classes"][7] == "7"
    assert about["preprocess"]["image_size"] == 8
    assert about["epoch"] == 2
    with safe_open(run / "best.safetensors", framework="pt") as file:
        assert file.metadata()


def test_best_weights_are_those_of_the_best_epoch(run: Path) -> None:
    history = read_checkpoint(newest(run))["history"]
    best = max(history, key=lambda record: record["metrics"]["top1"])
    assert read_weights(run / "best.safetensors")[1]["epoch"] == best["epoch"]


def test_flipped_byte_in_weights(run: Path, tmp_path: Path) -> None:
    content = bytearray((run / "best.safetensors").read_bytes())
    content[-20] ^= 1
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is damaged: its tensors and what is said about them do not match"):
        read_weights(tmp_path / "w.safetensors")


def test_truncated_and_pickled_weights(run: Path, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:-30])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read_weights(tmp_path / "w.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"Pickled weights .* are not read here"):
        read_weights(tmp_path / "w.pt")


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        save_weights(tmp_path / name, tiny(), {"x": 1, "y": [1, 2]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_finetune_takes_what_fits(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    for source in (run, newest(run), run / "best.safetensors"):
        model = tiny(seed=9, classes=4)
        before = model.weight.clone()
        left_out = finetune_from(model, source)
        assert left_out == ["weight is (3, 10, 128) there and (3, 4, 128) here"]
        assert torch.equal(model.weight, before)
        assert not torch.equal(model.conv.weight, tiny(seed=9, classes=4).conv.weight)
    assert "left as initialised: weight" in caplog.text


def test_finetune_from_another_network(run: Path) -> None:
    with pytest.raises(UserError, match=r"None of the .* tensors .* fits this model"):
        finetune_from(torch.nn.Linear(3, 3), run)


def test_wandb_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "digits", "--wandb", "--workers", "0", "--quiet", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["dynaconv", "train", "test_byobnet", *words])
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    assert main() == 2
    assert capsys.readouterr().err.endswith("wandb is not installed and this needs it; pip install 'dynaconv[wandb]'\n")


def test_curves_of_one_epoch_have_whole_epochs_and_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    from dynaconv.tasks.task import Metric
    from dynaconv.train.records import EpochRecord
    from dynaconv.train.run_folder.logs import draw_curves

    drawn: list[Figure] = []
    save = Figure.savefig

    def watched(figure: Figure, *words: object, **options: object) -> None:
        drawn.append(figure)
        save(figure, *words, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    record = EpochRecord(0, 2.0, {"top1": 0.5}, 0.1, None, 1.0, 1.0, 1.0)
    draw_curves([record], (Metric("top1", "top-1", percent=True),), tmp_path / "curves.png")
    for axes in drawn[0].axes[:3]:
        ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert ticks == [1.0]
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()
    assert drawn[0].axes[2].get_lines()[0].get_marker() == "o", "a line of one point would not be seen"
