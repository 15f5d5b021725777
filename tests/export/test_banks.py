"""Reduced banks in files: what is stored, what it computes, and how often its classes are the network's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto
from PIL import Image
from torch import Tensor, nn

import dynaconv
from dynaconv.cli import main
from dynaconv.errors import UserError
from dynaconv.export import Exported, export, load
from dynaconv.export.agreement import agreement, open_images
from dynaconv.export.prepared import with_preprocessing
from dynaconv.export.source import open_source
from tolerances import assert_close

STORED = {"int8": TensorProto.INT8, "bfloat16": TensorProto.BFLOAT16}


class Small(nn.Module):
    """One layer of every layout of a bank: dense, depthwise, linear."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.dense = dynaconv.DynamicConv2d(3, width, 3, stride=2, bias=False)
        self.deep = nn.Sequential(
            dynaconv.DynamicConv2d(width, width, 3, groups=width, bias=False), nn.BatchNorm2d(width)
        )
        self.point = dynaconv.CondConv2d(width, 24, 1, bias=False)
        self.head = dynaconv.DynamicLinear(24, 4)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.point(torch.relu(self.deep(self.dense(images)))).mean(dim=(2, 3)))


BANKS = [4 * 16 * 27, 4 * 16 * 9, 8 * 24 * 16, 4 * 4 * 24]  # numbers of the four banks


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def outputs(network: nn.Module, images: Tensor, bank_dtype: str) -> Tensor:
    with torch.no_grad():
        made: Tensor = dynaconv.freeze(network, bank_dtype=bank_dtype, input_size=images.shape[1:])(images)
    return made


@pytest.mark.parametrize(("bank_dtype", "form"), [("bfloat16", "scan"), ("int8", "blocked")])
def test_an_onnx_file_stores_its_banks_small(bank_dtype: str, form: str, network: nn.Module, tmp_path: Path) -> None:
    from dynaconv.export import onnx_blocked

    if form == "blocked" and onnx_blocked.block_width() is None:
        pytest.skip("ONNX Runtime has no blocked layout on this processor")
    report = export(network, tmp_path / "x.onnx", image_size=12, form=form, bank_dtype=bank_dtype)
    assert report.error < 1e-4
    assert (report.bank_dtype, report.batch) == (bank_dtype, None)
    assert report.reduction_error is not None
    assert 1e-4 < report.reduction_error < 0.1, "its own error, not the one that the file is held to"
    model = onnx.load(str(report.path))
    small = [constant for constant in model.graph.initializer if constant.data_type == STORED[bank_dtype]]
    sizes = sorted(numbers(constant) for constant in small)
    assert len(sizes) == 4
    assert sizes == sorted(BANKS) or form == "blocked", "blocks fill up channels"
    assert not [
        constant
        for constant in model.graph.initializer
        if numbers(constant) >= min(BANKS) and constant.data_type == TensorProto.FLOAT and form == "scan"
    ]
    assert sum(node.op_type == "Cast" for node in model.graph.node) >= 4, "outside of any Scan: once for a batch"
    assert "Cast" not in left_when_loaded(report.path), "the float32 numbers are computed once"
    images = torch.randn(3, 3, 12, 12)
    assert_close(load(report.path).run(images)["logits"], outputs(network, images, bank_dtype))
    assert load(report.path).about["bank_dtype"] == bank_dtype


def left_when_loaded(path: Path) -> set[str]:
    """The kinds of nodes that ONNX Runtime has left after it loaded a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".loaded.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


def numbers(constant: Any) -> int:
    return int(torch.Size(constant.dims).numel())


def test_openvino_runs_reduced_banks(network: nn.Module, tmp_path: Path) -> None:
    images = torch.randn(2, 3, 12, 12)
    report = export(network, tmp_path / "x.onnx", image_size=12, form="products", bank_dtype="int8")
    made = load(report.path, runtime="openvino", threads=1).run(images)["logits"]
    assert_close(made, outputs(network, images, "int8"))


def test_a_program_of_torch_stores_its_banks_small(tiny: nn.Module, tmp_path: Path) -> None:
    report = export(tiny, tmp_path / "x.pt2", to="torch-export", image_size=12, bank_dtype="int8")
    assert report.error < 1e-4
    images = torch.randn(3, 3, 12, 12)
    assert_close(load(report.path).run(images)["logits"], outputs(tiny, images, "int8"))
    stored = torch.export.load(report.path)
    assert [tensor.numel() for tensor in stored.state_dict.values() if tensor.dtype == torch.int8] == [4 * 4 * 27]


@pytest.mark.slow
def test_a_compiled_program_stores_its_banks_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Small(width=256).eval()
    sizes = {}
    for bank_dtype in (None, "bfloat16", "int8"):
        report = export(network, tmp_path / "x.pt2", to="aoti", image_size=12, bank_dtype=bank_dtype)
        sizes[bank_dtype] = report.megabytes * 2**20
    banks = 4 * sum((256 * 27, 256 * 9, 2 * 24 * 256))
    assert sizes[None] - sizes["bfloat16"] > 0.4 * 4 * banks
    assert sizes[None] - sizes["int8"] > 0.6 * 4 * banks


def folder_of_pictures(root: Path, classes: tuple[str, ...] = ("a", "b", "c", "d"), count: int = 2) -> Path:
    generator = torch.Generator().manual_seed(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(0, 256, (14, 16, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(root / name / f"{number}.png")
    return root


class Tiny(nn.Module):
    """One layer, for what does not depend on layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = dynaconv.DynamicConv2d(3, 4, 3)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.layer(images).mean(dim=(2, 3))
        return y


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny().eval()


def test_the_classes_of_file_and_network_are_compared_on_pictures(tiny: nn.Module, tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "pictures")
    report = export(
        tiny, tmp_path / "x.onnx", image_size=12, bank_dtype="int8", data=str(folder), classes=[*"abcd"],
        input="uint8", batch=3,
    )  # fmt: skip
    found = report.agreement
    assert found is not None
    assert found.images == 8
    assert found.top1 > 0.7
    assert found.top1_network is not None, "the pictures' classes are the network's"
    assert f"top-1 agreement with the float32 network: {100 * found.top1:.2f} % of 8 images (top-1 " in str(report)


@pytest.mark.parametrize(("input", "batch"), [("normalised", None), ("uint8", 3), ("float", 5)])
def test_agreement_counts_equal_classes(input: str, batch: int | None, tiny: nn.Module, tmp_path: Path) -> None:
    source = open_source(tiny, image_size=(12, 12), classes=[*"abcd"])
    images = open_images(str(folder_of_pictures(tmp_path / "pictures")), source)
    model = with_preprocessing(source.network, source, input)
    about = {
        "task": "classification", "classes": [*"abcd"], "preprocessing": source.preprocessing, "input": input,
        "input_size": [3, 12, 12], "batch": batch, "free_size": False, "outputs": ["logits"],
    }  # fmt: skip

    def call(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [model(images)]

    file = Exported(path=tmp_path, runtime="onnx", about=about, _call=call)
    same = agreement(file, model, images, source.classes)
    assert (same.images, same.top1, same.top1_file) == (8, 1.0, same.top1_network)

    class Rolled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            y: Tensor = model(images)
            return y.roll(1, dims=1)

    other = agreement(file, Rolled(), images, None)
    assert (other.top1, other.top1_file) == (0.0, None), "without names of classes nothing is known to be right"


def test_the_command_says_what_the_reduction_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dynaconv.save(dynaconv.DynamicConv2d(3, 4, 3).eval(), tmp_path / "network.safetensors")
    words = ["export", str(tmp_path / "network.safetensors"), "--out", str(tmp_path / "x.onnx"), "--image-size", "8"]
    assert main([*words, "--bank-dtype", "bfloat16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["bank_dtype"], told["agreement"]) == ("bfloat16", None)
    assert told["error"] < 1e-4 < told["reduction_error"] < 0.05
    assert main([*words, "--bank-dtype", "int4"]) == 2
    assert "bank_dtype is 'int4'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bank_dtype": "float16"}, "bank_dtype is 'float16'"),
        ({"data": "nowhere"}, "There is no data set 'nowhere'"),
        ({"data": "digits", "classes": ["a", "b", "c", "d"]}, "digits has 10 classes"),
        ({"data": "pictures", "classes": ["a", "b", "c", "e"]}, "holds classes that training does not know: d"),
        ({"data": "pictures", "image_size": (12, 16)}, "square colour pictures"),
    ],
)
def test_options_that_do_not_fit(
    options: dict[str, Any], message: str, tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_pictures(tmp_path / "pictures")
    with pytest.raises(UserError, match=message):
        export(tiny, "x.onnx", **{"image_size": 12, **options})
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_network_without_banks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Conv2d has no bank that could be stored in int8"):
        export(nn.Conv2d(3, 4, 3), tmp_path / "x.onnx", image_size=8, bank_dtype="int8")


def test_a_picture_that_cannot_be_read_leaves_no_file(tiny: nn.Module, tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "pictures")
    (folder / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0\.png"):
        export(tiny, tmp_path / "x.onnx", image_size=12, data=str(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
