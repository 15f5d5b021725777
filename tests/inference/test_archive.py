"""A network is saved and loaded without pickle: bit for bit the same, or an error that says why not."""

from __future__ import annotations

import json
import os
import pickle
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import dynaconv
import dynaconv.models
from dynaconv import DynamicConv2d, dynamize, freeze, load, save
from dynaconv.inference import FrozenLayer
from dynaconv.routing import SigmoidRouter


class Net(nn.Module):
    """A network of one's own: a block whose layers may share a router, tied weights, a buffer that is no state."""

    offset: Tensor

    def __init__(self, width: int = 8, activation: str = "relu") -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.block = Block(width)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU() if activation == "relu" else nn.SiLU()
        self.head, self.tied = nn.Linear(width, width), nn.Linear(width, width)
        self.tied.weight = self.head.weight
        self.register_buffer("offset", torch.arange(float(width)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.block(self.stem(x)))).mean((2, 3))
        return self.tied(self.head(y + self.offset))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = timm.layers.BatchNormAct2d(width, act_layer=nn.SiLU)
        self.b = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)))


class Odd(nn.Module):
    """A router of one's own."""

    def __init__(self, in_channels: int, experts: int) -> None:
        super().__init__()
        self.experts, self.weight = experts, nn.Parameter(torch.randn(experts, in_channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.mean((2, 3)) @ self.weight.t())


def twin_with_odd_routers(width: int = 8) -> nn.Module:
    return dynamize(Net(width), router=Odd, input_size=(3, 12, 12))


def same(saved: nn.Module, loaded: nn.Module, x: Tensor) -> None:
    """Bit for bit the same outputs, tensors, layouts, modes."""
    assert type(loaded) is type(saved)
    with torch.no_grad():
        for batch in (x[:1], x, x.to(memory_format=torch.channels_last)):
            assert torch.equal(loaded(batch), saved(batch))
    ours, theirs = ({**dict(n.named_parameters()), **dict(n.named_buffers())} for n in (saved, loaded))
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
        assert tensor.dtype == theirs[name].dtype
        assert tensor.stride() == theirs[name].stride(), name
        assert tensor.requires_grad == theirs[name].requires_grad
    assert [m.training for m in saved.modules()] == [m.training for m in loaded.modules()]


def pictures(size: int = 12) -> Tensor:
    return torch.randn(3, 3, size, size)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["dy_mobilenetv2_035", "condconv_efficientnet_b0", "dy_resnet10", "resnet10t"])
def test_networks_of_timm_need_nothing(name: str, frozen: bool, tmp_path: Path) -> None:
    network = timm.create_model(name, num_classes=7, drop_rate=0.3).eval()
    if name == "resnet10t":
        network = dynamize(network, method="condconv")
    if frozen:
        network = freeze(network, examples=pictures(32))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    loaded = load(save(network, tmp_path / "network.safetensors"))
    assert torch.equal(torch.random.get_rng_state(), before)
    same(network, loaded, pictures(32))
    assert loaded.drop_rate == 0.3
    assert loaded.num_classes == 7
    if frozen:
        assert loaded.freeze_report == network.freeze_report
        same(network, load(save(loaded, tmp_path / "again.safetensors")), pictures(32))
    elif name == "resnet10t":
        assert loaded.dynamize_report == network.dynamize_report


@pytest.mark.parametrize("stage", ["static", "dynamic", "condconv", "frozen", "frozen int8", "frozen half"])
def test_a_network_of_ones_own_needs_its_factory(stage: str, tmp_path: Path) -> None:
    network: nn.Module = Net(width=6, activation="silu")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
    if stage != "static":
        network = dynamize(network, method="dynamic" if stage == "dynamic" else "condconv", input_size=(3, 12, 12))
    if stage == "dynamic":
        dynaconv.set_temperature(network, 4.0)
        network.block.requires_grad_(False)
    if stage.startswith("frozen"):
        network = freeze(network, examples=pictures(), bank_dtype="int8" if stage == "frozen int8" else None)
    x = pictures()
    if stage == "frozen half":
        network, x = network.half(), x.half()
    if stage == "condconv":
        network.block.eval()
    file = save(network, tmp_path / "own.safetensors", factory=Net, arguments={"width": 6, "activation": "silu"})
    same(network.eval() if stage in ("static", "dynamic") else network, _loaded(file, stage), x)
    for factory in (None, f"{Net.__module__}:Nothing", "no_such_module:f"):
        with pytest.raises(ValueError, match="factory"):
            load(file, factory=factory)
    with pytest.raises(
        ValueError, match=r"is another one than was saved: of other shapes are .*\(6,\) instead of \(5,\)"
    ):
        load(file, factory=lambda **arguments: Net(width=5))


def _loaded(file: Path, stage: str) -> nn.Module:
    loaded = load(file, factory=Net)
    assert loaded.tied.weight is loaded.head.weight
    return loaded.eval() if stage in ("static", "dynamic") else loaded


@pytest.mark.parametrize("frozen", [False, True])
def test_a_router_of_ones_own_comes_from_the_factory(frozen: bool, tmp_path: Path) -> None:
    network = twin_with_odd_routers().eval()
    network = freeze(network, examples=pictures()) if frozen else network
    with pytest.raises(ValueError, match=r"Odd, a router of your own: give a factory that builds the dynamic network"):
        save(network, tmp_path / "x", factory=Net)
    file = save(network, tmp_path / "x", factory=twin_with_odd_routers)
    same(network, load(file, factory=twin_with_odd_routers), pictures())


def test_torchvision_is_asked_by_name(tmp_path: Path) -> None:
    network = dynamize(torchvision.models.resnet18(num_classes=5)).eval()
    network.layer1[0].conv1.strategy = "loop"
    network.maxpool.stride = 1
    file = save(network, tmp_path / "x", factory="torchvision.models:resnet18", arguments={"num_classes": 5})
    loaded = load(file)
    same(network, loaded, pictures(32))
    assert loaded.layer1[0].conv1.strategy == "loop"


@pytest.mark.parametrize("frozen", [False, True])
def test_one_layer_needs_no_factory(frozen: bool, tmp_path: Path) -> None:
    layer: nn.Module = dynaconv.CondConv2d(4, 6, 3, stride=2, padding="same", groups=2, experts=3).eval()
    layer = freeze(layer, input_size=(4, 9, 9)) if frozen else layer
    loaded = load(save(layer, tmp_path / "layer"))
    assert isinstance(loaded, FrozenLayer) == frozen
    same(layer, loaded, torch.randn(2, 4, 9, 9))


@pytest.mark.parametrize(
    ("name", "value"), [("strategy", {}), ("strategy", "fastest"), ("bank_dtype", []), ("bank_dtype", "int3")]
)
def test_a_frozen_layer_of_an_unknown_kind_is_refused_when_it_is_read(name: str, value: object, tmp_path: Path) -> None:
    """Whole and with the right checksum, but nothing that could run."""
    from dynaconv.inference import archive_file

    layer = freeze(dynaconv.CondConv2d(4, 6, 3, experts=3).eval(), input_size=(4, 9, 9))
    description, tensors = archive_file.read(save(layer, tmp_path / "layer"))
    [(_, described)] = description["structure"]["modules"]
    described[name] = value
    archive_file.write(tmp_path / "other", tensors, description)
    with pytest.raises(ValueError, match=f"other.*({name}|unhashable)"):
        load(tmp_path / "other")


@pytest.mark.parametrize("name", ["bank", "router.fc_weight"])
def test_a_frozen_layer_without_its_bank_is_refused_when_it_is_read(name: str, tmp_path: Path) -> None:
    from dynaconv.inference import archive_file

    layer = freeze(dynaconv.CondConv2d(4, 6, 3, experts=3).eval(), input_size=(4, 9, 9))
    description, tensors = archive_file.read(save(layer, tmp_path / "layer"))
    del tensors[name]
    archive_file.write(tmp_path / "other", tensors, description)
    with pytest.raises(ValueError, match=f"other.*the file lacks {name}"):
        load(tmp_path / "other")


def test_layers_of_every_kind(tmp_path: Path) -> None:
    kinds = [kind for kind in dynaconv.__all__ if kind.startswith(("Dynamic", "Cond"))]
    assert len(kinds) == 16
    for kind in kinds:
        sizes = (4, 6) if kind.endswith("Linear") else (4, 6, 3)
        layer = getattr(dynaconv, kind)(*sizes, experts=3, router=lambda c, k: SigmoidRouter(c, k, hidden=5)).eval()
        x = torch.randn(2, 4, *(6,) * layer.geometry.dims)
        loaded = load(save(layer, tmp_path / kind))
        assert repr(loaded) == repr(layer)
        assert torch.equal(loaded(x), layer(x))


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(ValueError, match="not known how Net is built: give factory="):
        save(Net(), path)
    with pytest.raises(ValueError, match=r"of other shapes are .*stem.weight \(9, 3, 3, 3\) instead of \(8, 3, 3, 3\)"):
        save(Net(width=9), path, factory=Net)
    network = Net()
    network.act = nn.GELU()
    with pytest.raises(ValueError, match=r"act is .*GELU; the factory builds .*ReLU"):
        save(network, path, factory=Net)
    network = Net()
    network.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"extra is .*Linear, which the factory does not build"):
        save(network, path, factory=Net)
    network = Net()
    network.block.register_forward_hook(lambda *args: None)
    with pytest.raises(ValueError, match=r"block \(Block\) has hooks"):
        save(network, path, factory=Net)
    with pytest.raises(ValueError, match="cannot be written as plain values"):
        save(Net(), path, factory=Net, arguments={"width": object()})
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        save("net", path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="failed: TypeError"):
        save(Net(), path, factory=Net, arguments={"height": 3})
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_whole_and_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "dumps", lambda *args: pytest.fail("pickled"))
    path = tmp_path / "deep" / "x.safetensors"
    save(DynamicConv2d(3, 4, 3), path)
    old = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    header = json.loads(old[8 : 8 + struct.unpack("<Q", old[:8])[0]])
    assert json.loads(header["__metadata__"]["dynaconv"])["format"] == 1
    monkeypatch.setattr(os, "replace", _fails)
    with pytest.raises(OSError, match="full"):
        save(DynamicConv2d(3, 4, 1), path)
    assert path.read_bytes() == old
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]


def _fails(*args: Any) -> None:
    raise OSError("the disk is full")


def test_one_flipped_bit_anywhere_is_refused(tmp_path: Path) -> None:
    path = save(freeze(DynamicConv2d(3, 4, 3), input_size=(3, 5, 5)), tmp_path / "x")
    whole = path.read_bytes()
    damaged = tmp_path / "damaged"
    places = {(index * 7919) % len(whole): index % 8 for index in range(600)} | dict.fromkeys(range(9), 0)
    for place, bit in places.items():
        bits = bytearray(whole)
        bits[place] ^= 1 << bit
        damaged.write_bytes(bits)
        with pytest.raises(ValueError, match=r"damaged|without a description"):
            load(damaged)
    for length in (0, 5, 100, len(whole) - 1):
        damaged.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            load(damaged)
    with pytest.raises(ValueError, match="there is no file"):
        load(tmp_path / "nothing")


def test_a_file_cannot_ask_for_weights_or_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynaconv.inference import archive_file
    from dynaconv.inference.origin import Origin, build

    for origin in (
        Origin("timm", "resnet10t", {"pretrained": True}),
        Origin("timm", "resnet10t", {"checkpoint_path": "x"}),
        Origin("timm", "hf_hub:a/b"),
        Origin("timm", "resnet10t", {"pretrained_cfg_overlay": {"url": "x"}}),
        Origin("torchvision", "resnet18", {"weights": "DEFAULT"}),
        Origin("torchvision", "get_weight"),
        Origin("timm", "no_such_network"),
        Origin("factory", "os:system", {"command": "true"}),
    ):
        with pytest.raises(ValueError, match=r"refused|knows no network|give factory='os:system'"):
            build(origin)
    path = save(DynamicConv2d(3, 4, 3), tmp_path / "x")
    monkeypatch.setattr(archive_file, "FORMAT", 2)
    with pytest.raises(ValueError, match=r"has format 1 .* this version reads format 2"):
        load(path)
