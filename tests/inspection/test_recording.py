"""Recording: every router once, every image once, nothing left behind, and memory that does not grow."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dynaconv
from dynaconv.errors import RunError, UserError
from dynaconv.inspection import read_routing, routers_of
from dynaconv.layers import DynamicConv2d
from dynaconv.torch_private import hooks_of
from inspection.nets import FirstPixels, Net, images


def hooks(model: nn.Module) -> list[Any]:
    return [hooks_of(module) for module in model.modules()]


def test_every_router_once_in_the_order_in_which_they_run() -> None:
    net = Net().eval()
    x = images(5)
    with torch.no_grad(), dynaconv.record_routing(net) as recorder:
        net(x[:3])
        net(x[3:])
    described = [(one.name, one.layers, one.experts, one.kind, one.resolution) for one in recorder.routers]
    assert described == [
        ("first", ("first",), 3, "FirstPixels", (8, 8)),
        ("block", ("block.one", "block.two"), 4, "sigmoid", (8, 8)),
        ("last", ("last",), 2, "softmax", (8, 8)),
    ]
    assert torch.equal(recorder.weights["first"], x[:, 0, 0, :3])
    with torch.no_grad():
        inner = net.first(x)
        torch.testing.assert_close(recorder.weights["block"], net.block.router(inner))
        torch.testing.assert_close(recorder.weights["last"], net.last.router(net.block(inner)))
    assert recorder.images == 5


def test_a_file_has_a_row_for_every_image_and_the_notes(tmp_path: Path) -> None:
    net, x = Net().eval(), images(700)
    with torch.no_grad():
        with dynaconv.record_routing(net) as kept:
            net(x)
        with dynaconv.record_routing(net, tmp_path / "r.parquet") as recorder:
            for number, part in enumerate(x.split(100)):
                net(part)
                recorder.note(name=[f"{number}-{row}" for row in range(len(part))], label=[number] * len(part))
            assert not (tmp_path / "r.parquet").exists()  # whole or not there
    routers, groups = read_routing(tmp_path / "r.parquet")
    assert routers == kept.routers
    rows = list(groups)
    assert len(rows) > 1  # row groups: a reader need not hold all
    for router in routers:
        found = np.concatenate([group.weights[router.name] for group in rows])
        np.testing.assert_allclose(found, kept.weights[router.name].numpy(), rtol=1e-5, atol=1e-6)
    assert [name for group in rows for name in group.columns["name"]][350] == "3-50"
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "r.parquet").column_names == [
        "name",
        "label",
        "first",
        "block",
        "last",
    ]
    with pytest.raises(RuntimeError, match="read_routing"):
        _ = recorder.weights


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    net = Net().eval()

    def living(passes: int) -> int:
        """Numbers in all tensors after so many passes of 16 images."""
        gc.collect()
        with torch.no_grad(), dynaconv.record_routing(net, tmp_path / f"{passes}.parquet") as recorder:
            for _ in range(passes):
                net(torch.rand(16, 3, 8, 8))
                recorder.note(label=[0] * 16)
                assert sum(map(len, recorder._file._waiting)) < 256 + 16  # type: ignore[union-attr]
            return sum(item.numel() for item in gc.get_objects() if issubclass(type(item), torch.Tensor))

    assert living(96) == living(32)


@pytest.mark.parametrize("method", ["dynamic", "condconv"])
def test_a_converted_and_a_frozen_network_record_the_same(method: str) -> None:
    torch.manual_seed(0)
    net = dynaconv.dynamize(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)), method=method
    ).eval()
    frozen = dynaconv.freeze(net, input_size=(3, 8, 8))
    x = images(3)
    found = []
    for one in (net, frozen):
        with torch.no_grad(), dynaconv.record_routing(one) as recorder:
            one(x)
        found.append(recorder)
    assert [router.name for router in found[0].routers] == [router.name for router in found[1].routers]
    assert found[0].routers[0].kind == found[1].routers[0].kind
    for name, weights in found[0].weights.items():
        torch.testing.assert_close(found[1].weights[name], weights, rtol=1e-3, atol=1e-4)


def test_training_mode_records_what_the_layers_use_and_changes_no_gradient() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(DynamicConv2d(3, 4, 3, router=lambda c, k: dynaconv.SoftmaxRouter(c, k, expert_dropout=0.5)))
    x = images(6)
    torch.manual_seed(2)
    net(x).sum().backward()
    plain = net[0].weight.grad.clone()
    net.zero_grad()
    torch.manual_seed(2)
    with dynaconv.record_routing(net) as recorder:
        net(x).sum().backward()
    assert torch.equal(net[0].weight.grad, plain)
    assert (recorder.weights["0"] == 0).any()  # dropped
    assert not recorder.weights["0"].requires_grad


@pytest.mark.parametrize("wrap", ["torch.compile", "Module.compile"])
def test_a_compiled_network_is_recorded(wrap: str) -> None:
    net = Net().eval()
    x = images(4)
    if wrap == "torch.compile":
        called: Any = torch.compile(net, backend="eager")
    else:
        net.compile(backend="eager")
        called = net
    with torch.no_grad():
        expected = called(x)
        with dynaconv.record_routing(called) as recorder:
            found = called(x)
        torch.testing.assert_close(found, expected)
        assert torch.equal(recorder.weights["first"], x[:, 0, 0, :3])
        torch.testing.assert_close(called(x), expected)
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_two_threads_in_one_network_record_their_own_images() -> None:
    net = Net().eval()
    inputs = [images(20, seed=1), images(20, seed=2)]
    found: dict[int, torch.Tensor] = {}
    together = threading.Barrier(2)

    def record(which: int) -> None:
        with torch.no_grad(), dynaconv.record_routing(net) as recorder:
            together.wait()
            for part in inputs[which].split(2):
                net(part)
            together.wait()
        found[which] = recorder.weights["first"]

    threads = [threading.Thread(target=record, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in range(2):
        assert torch.equal(found[which], inputs[which][:, 0, 0, :3])


def test_nothing_is_left_behind_after_an_error(tmp_path: Path) -> None:
    net = Net()
    before = hooks(net)

    def fail() -> None:
        with dynaconv.record_routing(net, tmp_path / "r.parquet"):
            for _ in range(20):
                net(images(32))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert hooks(net) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: a full disk cannot be made up")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    net = Net()
    before = hooks(net)  # a block's own, which shares a router
    (tmp_path / "r.parquet.tmp").symlink_to("/dev/full")

    def fill() -> None:
        with dynaconv.record_routing(net, tmp_path / "r.parquet"):
            for _ in range(200):
                net(images(64))

    with pytest.raises(RunError, match=r"Cannot write .*r\.parquet: No space left on device\."):
        fill()
    assert list(tmp_path.iterdir()) == []
    assert hooks(net) == before


def test_a_pass_that_failed_is_not_recorded() -> None:
    net = Net()
    with dynaconv.record_routing(net) as recorder:
        with pytest.raises(ValueError, match="shape"):
            net(torch.rand(2, 4, 8, 8))
        net(images(3))
    assert recorder.weights["block"].shape == (3, 4)


def test_a_layer_that_runs_twice_has_two_columns() -> None:
    layer = DynamicConv2d(3, 3, 1, experts=2, router=FirstPixels)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(self.layer(x))
            return out

    x, net = images(2), Twice()
    with torch.no_grad(), dynaconv.record_routing(net) as recorder:
        net(x)
    assert list(recorder.weights) == ["layer", "layer#2"]
    assert torch.equal(recorder.weights["layer#2"], layer(x)[:, 0, 0, :2].detach())


def test_a_single_layer_and_a_router_of_factors() -> None:
    layer = DynamicConv2d(3, 4, 1, experts=2)
    with dynaconv.record_routing(layer) as recorder:
        layer(images(2))
    assert [one.name for one in recorder.routers] == ["network"]

    class Factors(nn.Module):
        """As a later method would return: routing weights and a gain of every output."""

        is_router, experts, in_channels = True, 2, 3

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"kernel": x[:, 0, 0, :2], "outputs": x[:, 1, 0, :5]}

    class Later(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = Factors()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.router(x)["kernel"].sum()
            return out

    net = Later()
    with dynaconv.record_routing(net) as recorder:
        net(images(2))
    assert {name: tensor.shape[1] for name, tensor in recorder.weights.items()} == {"network": 2, "network.outputs": 5}


def test_what_cannot_be_recorded_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no dynamic layer"), dynaconv.record_routing(nn.Conv2d(3, 3, 1)):
        pass
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        routers_of(3)  # type: ignore[arg-type]
    net = Net()
    with pytest.raises(RuntimeError, match="call that network itself"), dynaconv.record_routing(net):
        net.first(images(2))
    with dynaconv.record_routing(net) as recorder:
        net(images(2))
        with pytest.raises(ValueError, match="label has 3 values and the last pass had 2"):
            recorder.note(label=[1, 2, 3])
    with pytest.raises(UserError, match="its folder is not there"):
        dynaconv.record_routing(net, tmp_path / "no" / "r.parquet").__enter__()

    def other_columns() -> None:
        with dynaconv.record_routing(net, tmp_path / "r.parquet") as recorder:
            net(images(2))
            recorder.note(label=[1, 2])
            net(images(2))

    with pytest.raises(ValueError, match="give every pass the same"):
        other_columns()
    (tmp_path / "x.parquet").write_text("no such thing")
    os.mkfifo(tmp_path / "pipe.parquet")
    for name in ("x", "pipe", "none"):
        with pytest.raises(UserError, match="no recording"):
            read_routing(tmp_path / f"{name}.parquet")


def test_a_recording_of_which_one_bit_is_flipped_is_refused(tmp_path: Path) -> None:
    """Every byte of the numbers and of what the file says about itself is under a checksum."""
    path, net = tmp_path / "r.parquet", Net()
    with dynaconv.record_routing(net, path) as recorder:
        net(images(3))
        recorder.note(label=["cat", "dog", "cat"])
    before, whole = _all_of(path), path.read_bytes()
    refused = 0
    for place in range(4, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert _all_of(path) == before
        except UserError as error:
            assert "r.parquet" in str(error)  # noqa: PT017 - a flip of what nobody reads changes nothing
            refused += 1
    assert refused > len(whole) / 7 / 4


def _all_of(path: Path) -> list[object]:
    routers, groups = read_routing(path)
    return [routers, *((rows.columns, {name: one.tolist() for name, one in rows.weights.items()}) for rows in groups)]


def test_routers_that_see_other_numbers_of_examples_are_refused() -> None:
    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = DynamicConv2d(3, 3, 1), DynamicConv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.body(x).repeat(4, 1, 1, 1))
            return out

    net = Regions()
    with pytest.raises(ValueError, match="'body' saw 2 examples and that of 'head' 8"), dynaconv.record_routing(net):
        net(images(2))
