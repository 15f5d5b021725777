"""A small network goes into every kind of file; what the file computes, says and refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import dynaconv
from dynaconv.cli import main
from dynaconv.cli.export import read_classes
from dynaconv.errors import UserError
from dynaconv.export import ExportReport, export, load
from tolerances import assert_close


class Small(nn.Module):
    """The kinds of layers of the papers' mobile networks, small enough to be exported in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Sequential(
            dynaconv.DynamicConv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.point = nn.Sequential(dynaconv.CondConv2d(8, 12, 1), nn.BatchNorm2d(12))
        self.head = dynaconv.DynamicLinear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.point(self.deep(self.stem(images))).mean(dim=(2, 3)))


class Rest(nn.Module):
    """Layers of other networks: TensorFlow's padding, several channels in a group, transposed, one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.same = dynaconv.DynamicConv2d(3, 8, 3, stride=2, padding="same")
        self.groups = dynaconv.CondConv2d(8, 8, 3, padding=1, groups=2, padding_mode="reflect")
        self.up = dynaconv.DynamicConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.line = dynaconv.DynamicConv1d(6, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.line(self.up(torch.relu(self.groups(self.same(images)))).mean(dim=3))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["scan", "products"])
def test_layers_of_other_networks(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = export(Rest().eval(), tmp_path / "rest.onnx", image_size=16, form=form)
    assert report.free_size, "the size of the image is free, also where padding follows from it"


@pytest.mark.slow
def test_layers_of_other_networks_in_a_program_of_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert export(Rest().eval(), tmp_path / "rest.pt2", to="torch-export", image_size=16).error < 1e-4


def small() -> nn.Module:
    torch.manual_seed(0)
    network = Small()
    for _ in range(2):
        network(torch.randn(4, 3, 16, 16))  # statistics of the norms
    return network.eval()


NAMES = ["one", "two", "three", "four", "five"]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return small()


@pytest.fixture(scope="module")
def written(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    return export(network, path, image_size=16, classes=NAMES)


def test_an_onnx_file_has_a_free_batch_and_size_and_no_groups_by_example(written: ExportReport) -> None:
    assert (written.batch, written.free_size, written.form) == (None, True, "scan")
    assert written.error < 1e-4
    assert set(written.errors) == {
        "batch 1, 16x16", "batch 2, 16x16", "batch 5, 16x16", "batch 5, 48x48", "batch 1, 49x23"
    }  # fmt: skip
    model = onnx.load(str(written.path))
    first = model.graph.input[0].type.tensor_type.shape.dim
    assert [dimension.dim_param or dimension.dim_value for dimension in first] == ["batch", 3, "height", "width"]
    assert {entry.domain for entry in model.opset_import} == {""}
    assert list(written.path.parent.iterdir()) == [written.path]


def test_the_graph_costs_what_the_network_costs(written: ExportReport, network: nn.Module) -> None:
    assert written.madds == dynaconv.cost(network, (3, 16, 16)).total
    assert written.graph_madds == pytest.approx(written.madds, rel=0.02)


def test_a_loaded_file_knows_what_it_is_and_runs(written: ExportReport, network: nn.Module) -> None:
    loaded = load(written.path)
    assert (loaded.task, loaded.classes, loaded.input, loaded.outputs) == (
        "classification", NAMES, "normalised", ("logits",)
    )  # fmt: skip
    assert (loaded.batch, loaded.free_size, loaded.input_size) == (None, True, (3, 16, 16))
    for batch, size in ((1, 16), (7, 16), (3, 21)):
        images = torch.randn(batch, 3, size, size)
        assert_close(loaded.run(images)["logits"], network(images))


def test_openvino_runs_the_same_file(written: ExportReport, network: nn.Module) -> None:
    images = torch.randn(2, 3, 16, 16)
    assert_close(load(written.path, runtime="openvino", threads=1).run(images)["logits"], network(images))


@pytest.mark.parametrize("images", [torch.randn(3, 16, 16), torch.randn(1, 4, 16, 16), torch.zeros(1, 3, 8, 8).byte()])
def test_other_images_are_named(written: ExportReport, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"small.onnx takes torch.float32 of shape \(at least 1, 3, height, width\)"):
        load(written.path).run(images)


def test_one_image_and_bytes(network: nn.Module, tmp_path: Path) -> None:
    network.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}  # type: ignore[assignment]
    report = export(network, tmp_path / "one.onnx", image_size=(16, 24), batch=1, input="uint8")
    assert (report.form, report.batch) == ("single", 1)
    assert not [node for node in onnx.load(str(report.path)).graph.node if node.op_type == "Scan"]
    loaded = load(report.path)
    pixels = torch.randint(0, 256, (1, 3, 16, 24), dtype=torch.uint8)
    mean, std = (torch.tensor(network.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))  # type: ignore[index]
    assert_close(loaded.run(pixels)["logits"], network((pixels / 255 - mean) / std))
    with pytest.raises(ValueError, match=r"takes torch.uint8 of shape \(1, 3, "):
        loaded.run(torch.cat([pixels, pixels]))


def test_a_program_of_torch(network: nn.Module, tmp_path: Path) -> None:
    report = export(network, tmp_path / "small.pt2", to="torch-export", image_size=16, classes=NAMES)
    assert report.error < 1e-4
    loaded = load(report.path)
    assert (loaded.runtime, loaded.classes) == ("torch-export", NAMES)
    images = torch.randn(4, 3, 16, 16)
    assert_close(loaded.run(images)["logits"], network(images))


def test_a_layer_that_sees_the_image_itself_keeps_our_kernel() -> None:
    from dynaconv.export import torch_file
    from dynaconv.export.prepared import frozen
    from dynaconv.export.source import open_source
    from dynaconv.export.tracing import trace
    from dynaconv.kernels import cpu

    if cpu.why_not() is not None:
        pytest.skip(f"the kernels are not available: {cpu.why_not()}")
    source = open_source(dynaconv.DynamicConv2d(3, 4, 3).eval(), image_size=(8, 8))
    program = trace(torch_file.with_own_kernels(frozen(source)), source, "normalised", None, True)
    assert [node for node in program.graph.nodes if node.target == torch.ops.dynaconv.frozen_layer.default]
    images = torch.randn(2, 3, 8, 8)  # not in channels_last
    assert_close(program.module()(images), source.network(images))


@pytest.mark.slow
def test_a_compiled_program_has_our_kernels_and_a_free_batch(network: nn.Module, tmp_path: Path) -> None:
    from dynaconv.export import torch_file
    from dynaconv.export.prepared import frozen
    from dynaconv.export.source import open_source
    from dynaconv.export.tracing import trace
    from dynaconv.kernels import cpu

    source = open_source(network, image_size=(16, 16))
    program = trace(torch_file.with_own_kernels(frozen(source)), source, "normalised", None, True)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    if cpu.why_not() is None:
        assert called.count("dynaconv.frozen_layer.default") == 2
    report = export(network, tmp_path / "small.pt2", to="aoti", image_size=16, classes=NAMES)
    assert report.error < 1e-4
    loaded = load(report.path)
    assert (loaded.runtime, loaded.classes, loaded.batch) == ("aoti", NAMES, None)
    images = torch.randn(4, 3, 16, 16)
    assert_close(loaded.run(images)["logits"], network(images))
    with pytest.raises(UserError, match="is for 'aoti', not for 'torch-export'"):
        load(report.path, runtime="torch-export")


class Blocks(nn.Module):
    """Channels that fill blocks and that do not, depthwise and dense, a sum, a pooling; biases that are mixed."""

    def __init__(self) -> None:
        super().__init__()
        layer = dynaconv.DynamicConv2d
        self.wide = nn.Sequential(layer(16, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.deep = nn.Sequential(layer(24, 24, 3, stride=2, padding=1, groups=24, bias=False), nn.BatchNorm2d(24))
        self.back = nn.Sequential(layer(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.more = nn.Sequential(nn.Conv2d(24, 32, 3, bias=False), nn.BatchNorm2d(32), nn.SiLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.Sigmoid()
        )
        self.mixed = layer(32, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(self.wide(x))
        x = self.more(x + self.back(x))
        return self.mixed(x * self.gate(x)).mean(dim=(2, 3))


def test_onnx_runtimes_own_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynaconv.export import onnx_blocked

    width = onnx_blocked.block_width()
    torch.manual_seed(0)
    network = Blocks().eval()
    if width is None:
        with pytest.raises(UserError, match="has no blocked layout on this processor"):
            export(network, tmp_path / "x.onnx", image_size=16, batch=1, form="blocked")
        return
    report = export(network, tmp_path / "x.onnx", image_size=16, batch=1, form="blocked")
    assert report.error < 1e-4
    assert report.graph_madds
    nodes = onnx.load(str(report.path)).graph.node
    blocked = [node.op_type for node in nodes if node.domain == onnx_blocked.DOMAIN]
    assert blocked.count("Conv") == 6, "the layer that mixes biases is an ordinary Conv"
    assert blocked.count("GlobalAveragePool") == 4, "routers and the gate read maps in blocks"
    assert blocked.count("ReorderOutput") <= 3, "maps stay in blocks from layer to layer"
    # with a free batch: tests/export/test_banks.py

    monkeypatch.setattr(onnx_blocked, "block_width", lambda: 24 - width)  # 8 for 16: the file of another processor
    layer = dynaconv.DynamicConv2d(16, 16, 1, bias=False).eval()
    with pytest.raises(UserError, match=r"the file differs .*: inf"):
        export(layer, tmp_path / "other.onnx", image_size=16, batch=1, form="blocked")
    assert not (tmp_path / "other.onnx").exists()


class Decides(nn.Module):
    """A network that does what its values say."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = dynaconv.DynamicConv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if y.sum() > 1e9 else -y


class OneBatch(Decides):
    """A network that keeps the batch that it was traced with, in silence."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).flatten(1) * int(x.shape[0])


class Wrong(Decides):
    """A network whose traced form is another one."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).mean(dim=(2, 3))
        return y + 1 if torch.compiler.is_compiling() else y


class Unknown(Decides):
    """An operation that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(self.layer(x).mean(dim=1)[:, :4, :4]).abs()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Decides, "Decides cannot be traced by torch.export with a free batch"),
        (OneBatch, "OneBatch cannot be traced by torch.export with a free batch"),
        (Wrong, r"the file differs from Wrong by more than 1e-04 of the largest output \(batch 1, 8x8: "),
        (Unknown, "the network cannot be written as ONNX: .*eig"),
    ],
)
def test_what_cannot_be_exported_is_named_and_leaves_no_file(kind: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        export(kind().eval(), tmp_path / "x.onnx", image_size=8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "The format is 'tflite'. Known: aoti, onnx, torch-export"),
        ({"form": "group"}, "The form is 'group'"),
        ({"form": "single"}, "The form 'single' is for batch 1"),
        ({"form": "blocked", "batch": 2}, "The form 'blocked' is for batch 1 or a free batch"),
        ({"batch": 0}, "batch is 0; expected 1 to 65,536"),
        ({"opset": 7}, "The opset is 7; expected 18 to 23"),
        ({"classes": ["a", "b"]}, "2 names of classes were given, and Small has 5 of them"),
        ({"input": "float"}, "mean and std of Small are not known"),
        ({"input": "jpeg"}, "input is 'jpeg'"),
        ({"nms": True}, "nms is for detectors, and Small is a network for classification"),
        ({"to": "aoti", "form": "scan"}, "form and nms belong to ONNX"),
        ({"to": "torch-export"}, "expected a name that ends in .pt2"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        export(small(), tmp_path / "x.onnx", **{"image_size": 16, **options})
    assert not list(tmp_path.iterdir())


def test_padding_that_timm_computes_fixes_the_size_of_the_image(tmp_path: Path) -> None:
    from timm.layers import Conv2dSame

    network = nn.Sequential(Conv2dSame(3, 4, 3, stride=2), dynaconv.DynamicConv2d(4, 4, 1)).eval()
    report = export(network, tmp_path / "x.onnx", image_size=9)
    assert not report.free_size
    assert report.batch is None


class Several(Decides):
    """Two outputs under names of their own."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.layer(x)
        return {"map": y, "mean": y.mean(dim=(2, 3))}


def test_every_output_is_named_and_compared(tmp_path: Path) -> None:
    network = Several().eval()
    loaded = load(export(network, tmp_path / "x.onnx", image_size=8).path)
    assert loaded.outputs == ("map", "mean")
    images = torch.randn(2, 3, 8, 8)
    for name, value in network(images).items():
        assert_close(loaded.run(images)[name], value)


@pytest.mark.parametrize("made", [(), "text", (torch.zeros(1), 3)])
def test_outputs_that_are_no_tensors_are_named(made: Any, tmp_path: Path) -> None:
    network = Several()
    network.forward = lambda x: made  # type: ignore[method-assign, assignment]
    with pytest.raises(UserError, match=r"Several returns (tuple|str); expected a tensor, or several"):
        export(network, tmp_path / "x.onnx", image_size=8)


def test_images_that_are_too_small_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Several does not run on images of shape \(3, 2, 2\): "):
        export(Several(), tmp_path / "x.onnx", image_size=2)


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    network = nn.Sequential(dynaconv.DynamicConv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export(network, tmp_path / "x.onnx", image_size=8)
    assert network.training
    assert network[1].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_missing_runtime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynaconv.export.runtimes.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"onnx is not installed, and 'onnx' needs it; pip install 'dynaconv\[export\]'"
    ):
        export(small(), tmp_path / "x.onnx")


@pytest.mark.parametrize("name", ["x.onnx", "x.pt2"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "foreign"])
def test_damaged_and_foreign_files_are_named(damage: str, name: str, written: ExportReport, tmp_path: Path) -> None:
    whole, path = written.path.read_bytes(), tmp_path / name
    path.write_bytes(
        {"empty": b"", "text": b"not a network", "cut": whole[: len(whole) // 2], "foreign": whole}[damage]
    )
    if damage == "foreign" and name == "x.onnx":
        model = onnx.load(str(path))
        del model.metadata_props[:]
        onnx.save(model, str(path))
    with pytest.raises(UserError, match=rf"{name} (cannot be opened|does not say what it is|is no whole \.pt2 file)"):
        load(path)


def test_a_file_or_runtime_that_is_not_there(written: ExportReport, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        load(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="The runtime is 'tensorrt'"):
        load(written.path, runtime="tensorrt")
    with pytest.raises(UserError, match="is an ONNX file, which 'aoti' does not run"):
        load(written.path, runtime="aoti")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dy_mobilenetv2_35", "--out", "x.onnx"], "There is no model 'dy_mobilenetv2_35'. Did you mean"),
        (["dy_mobilenetv2_035", "--out", "x.onnx", "--batch", "many"], "expected dynamic, or a number"),
        (["dy_mobilenetv2_035", "--out", "x.onnx", "--image-size", "big"], "expected a side such as 224"),
        (["dy_mobilenetv2_035", "--out", "x.onnx", "--classes", "none.txt"], "--classes none.txt cannot be read"),
        (["dy_mobilenetv2_035", "--out", "no/x.onnx"], "Cannot write no/x.onnx"),
        (["broken.safetensors", "--out", "x.onnx"], "is not a whole safetensors file"),
    ],
)
def test_mistakes_on_the_command_line_exit_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.safetensors").write_bytes(b"\0" * 64)
    assert main(["export", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["saved", "--arg", "experts=3"], "arguments and weights belong to a name"),
        (["saved", "--weights", "saved"], "arguments and weights belong to a name"),
        (["x.onnx"], "x.onnx is an exported file already. Give the run"),
    ],
)
def test_what_does_not_belong_to_a_file_is_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dynaconv.save(dynaconv.DynamicConv2d(3, 4, 3).eval(), Path("saved"))
    Path("x.onnx").write_bytes(b"1")
    assert main(["export", *words, "--out", "y.onnx"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_command_exports_a_saved_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "network.safetensors"
    layer = dynaconv.DynamicConv2d(3, 4, 3).eval()
    dynaconv.save(layer, path)
    out = tmp_path / "network.onnx"
    assert main(["export", str(path), "--out", str(out), "--image-size", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["error"] < 1e-4
    assert told["path"] == str(out)
    images = torch.randn(2, 3, 9, 8)
    assert_close(load(out).run(images)["logits"], layer(images))


def test_a_runs_weights_bring_their_classes_and_preprocessing(tmp_path: Path) -> None:
    from dynaconv.tasks.network import ModelSpec, build_model
    from dynaconv.train.run_folder.weights import save_weights

    spec = ModelSpec(name="test_resnet", method="dynamic", experts=2)
    network = build_model(spec, 3, image_size=32).eval()
    preprocess = {"image_size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    about = {"task": "classification", "model": spec.model_dump(), "classes": ["a", "b", "ç"], "preprocess": preprocess}
    save_weights(tmp_path / "best.safetensors", network, about)
    report = export(tmp_path, tmp_path / "run.onnx", input="float")  # the run's folder
    loaded = load(report.path)
    assert (loaded.classes, loaded.preprocessing, loaded.input_size) == (["a", "b", "ç"], preprocess, (3, 32, 32))
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(preprocess[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        assert_close(loaded.run(images)["logits"], network((images - mean) / std))


def test_names_of_classes_as_windows_writes_them(tmp_path: Path) -> None:
    """A mark at the beginning of the file is no part of the first name, nor is a carriage return of any."""
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    (tmp_path / "names.json").write_bytes(b'\xef\xbb\xbf["cat", "dog"]')
    assert read_classes(tmp_path / "names.txt") == read_classes(tmp_path / "names.json") == ["cat", "dog"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["names.txt", "names.json"])
def test_names_of_classes_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    """A pipe, a folder, bytes that are no text, JSON that does not end: in one line."""
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"--classes .*{name} cannot be read: .*no ordinary file"):
        read_classes(path)
    for content in (b"\xff\xfe\x00", b"[" * 100_000 if name == "names.json" else b"a\n\nb"):
        path.unlink()
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"--classes .*{name}"):
            read_classes(path)


@pytest.mark.parametrize("name", ["x.onnx", "x.pt2"])
def test_a_flipped_bit_of_an_exported_file_is_refused(name: str, tmp_path: Path) -> None:
    """In a weight it would change the scores, in the metadata the name of a class, both in silence."""
    path = tmp_path / name
    to = {"x.onnx": "onnx", "x.pt2": "torch-export"}[name]
    export(small(), path, to=to, image_size=16, classes=NAMES)
    load(path)
    whole = path.read_bytes()
    for place in (len(whole) // 3, whole.rindex(NAMES[0].encode()), len(whole) - 200, len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UserError, match=rf"{name} is damaged: it does not match its checksum"):
            load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 0), ("batch", "2"), ("input_size", [3, 16]), ("classes", "cat"), ("outputs", []), ("task", "poetry")],
)
def test_what_a_file_says_about_itself_must_be_possible(
    name: str, value: object, written: ExportReport, tmp_path: Path
) -> None:
    model = onnx.load(str(written.path))
    (entry,) = (one for one in model.metadata_props if one.key == "dynaconv")
    entry.value = json.dumps({**json.loads(entry.value), name: value})
    kept = [one for one in model.metadata_props if one.key != "dynaconv.sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, str(tmp_path / "x.onnx"))
    with pytest.raises(UserError, match=rf"x\.onnx does not say what it is \({name}"):
        load(tmp_path / "x.onnx")


def test_metadata_that_is_no_text(written: ExportReport, tmp_path: Path) -> None:
    """Where the name of the checksum is damaged too, the file counts as one that never had any."""
    whole = bytearray(written.path.read_bytes())
    for key, place in ((b"dynaconv.sha256", 0), (b'"outputs"', 1)):
        whole[whole.rindex(key) + place] = 0xF9 if place else ord("e")
    (tmp_path / "x.onnx").write_bytes(whole)
    with pytest.raises(UserError, match=r"x\.onnx cannot be opened by ONNX Runtime: 'utf-8' codec"):
        load(tmp_path / "x.onnx")


def test_a_batch_that_no_memory_holds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch is 100000; expected 1 to 65,536"):
        export(small(), tmp_path / "x.onnx", batch=100_000)
    with pytest.raises(UserError, match=r"image_size is \(8, 9223372036854775808\); expected sides from 1 to"):
        export(small(), tmp_path / "x.onnx", image_size=(8, 2**63))
