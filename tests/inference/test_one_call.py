"""The frozen network's own kernels compute what torch computes, and a router never reads sums of another map."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import timm
import torch
from torch import Tensor, nn

import dynaconv.models  # noqa: F401 - registers the papers' networks
from dynaconv import DynamicConv2d, freeze
from dynaconv.inference import FrozenLayer, bank, channel_sums, layer, one_call, router
from dynaconv.kernels import cpu as native
from dynaconv.kernels.cpu.arguments import Activation
from dynaconv.ops.strategies import strategy
from tolerances import assert_close

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no kernels of our own here: {native.why_not()}")


def pictures(batch: int, channels: int = 3, side: int = 32) -> Tensor:
    return torch.randn(batch, channels, side, side).to(memory_format=torch.channels_last)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layouts of the layers that ran, in order, and every map that was read once more for its sums."""
    seen: list[str] = []
    run, known = one_call.run, one_call.remembered

    def watched_run(layer: FrozenLayer, *args: object) -> Tensor:
        seen.append(layer.layout)
        return run(layer, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(one_call, "run", watched_run)
    monkeypatch.setattr(one_call, "remembered", lambda x: (seen.extend(["sums"] * (known(x) is None)), known(x))[1])
    return seen


def by_torch(monkeypatch: pytest.MonkeyPatch, network: nn.Module, x: Tensor) -> Tensor:
    with monkeypatch.context() as patch:
        for module, name in ((layer, "why_not_readable"), (router, "readable")):
            patch.setattr(module, name, lambda x, name=name: "switched off" if name == "why_not_readable" else False)
        patch.setattr(bank, "why_not", lambda: "switched off")
        patch.setattr(strategy.cpu, "why_not", lambda: "switched off")
        return network(x)


@pytest.mark.parametrize("bank_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["dy_mobilenetv2_035", "dy_resnet10", "condconv_efficientnet_b0"])
def test_equals_torch(name: str, bank_dtype: str | None, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    network = timm.create_model(name, num_classes=10)
    frozen = freeze(network, bank_dtype=bank_dtype, examples=pictures(2))
    for batch in (1, 5):
        x = pictures(batch)
        calls.clear()
        with torch.no_grad():
            y, expected = frozen(x), by_torch(monkeypatch, frozen, x)
        assert set(calls) - {"sums"} == ({"panels"} if name == "dy_resnet10" else {"panels", "taps"})
        assert_close(y, expected, scale=max(1.0, expected.abs().max().item()) * 5)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads: int) -> None:
    frozen, x = freeze(timm.create_model("dy_mobilenetv2_035"), examples=pictures(2)), pictures(2)
    with torch.no_grad():
        expected = frozen(x)
        torch.set_num_threads(threads)
        try:
            y = frozen(x)
        finally:
            torch.set_num_threads(1)
    assert_close(y, expected, scale=max(1.0, expected.abs().max().item()))


def test_most_maps_are_not_read_again_for_a_router(calls: list[str]) -> None:
    frozen = freeze(timm.create_model("dy_mobilenetv2_035"), examples=pictures(2))
    calls.clear()
    with torch.no_grad():
        frozen(pictures(1))
    # Each block's first router reads the sum of a residual connection, or the stem's output; the others are told.
    assert calls.count("sums") < 0.3 * (len(calls) - calls.count("sums"))


class AddsInPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.add_(3.0)


class AddsElsewhere(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 3.0


class AddsToMemory(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x.detach().add_(3.0)
        return x


@pytest.mark.parametrize("between", [AddsInPlace, AddsElsewhere, AddsToMemory, nn.Identity, nn.Hardswish])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_map_that_was_changed_is_read_anew(
    between: type[nn.Module], context: Callable[[], AbstractContextManager[None]]
) -> None:
    network = nn.Sequential(DynamicConv2d(4, 20, 1), between(), DynamicConv2d(20, 20, 3, groups=20)).eval()
    for module in network.modules():
        if isinstance(module, DynamicConv2d):
            nn.init.normal_(module.router.fc.weight, std=20.0)  # routing weights that depend on what is read
    frozen, x = freeze(network, input_size=(4, 8, 8)), pictures(2, 4, 8)
    with context():
        assert_close(frozen(x), network(x), scale=10)


def test_sums_are_those_of_the_last_map_of_this_thread() -> None:
    first, second = pictures(1, 4), pictures(1, 4)
    channel_sums.remember(first, torch.full((1, 4), 7.0))
    assert channel_sums.sums_of(first).tolist() == [[7.0] * 4]
    assert_close(channel_sums.sums_of(second), second.sum((2, 3)), scale=10)
    assert_close(channel_sums.sums_of(first.clone()), first.sum((2, 3)), scale=10)
    first += 1
    assert_close(channel_sums.sums_of(first), first.sum((2, 3)), scale=10)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU, Activation(low=0.0)),
        (nn.ReLU6, Activation(low=0.0, high=6.0)),
        (nn.SiLU, Activation("silu")),
        (nn.Hardswish, Activation("hardswish")),
        (nn.GELU, None),
    ],
)
@pytest.mark.parametrize("groups", [1, 4])
def test_a_known_activation_is_done_with_the_layer(
    layer: type[nn.Module], expected: Activation | None, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    norm = timm.layers.BatchNormAct2d(20 if groups == 1 else 4, act_layer=layer)
    network = nn.Sequential(DynamicConv2d(4, norm.num_features, 1, groups=groups, bias=False), norm).eval()
    frozen, x = freeze(network, input_size=(4, 8, 8)), pictures(3, 4, 8) * 4
    assert frozen[0].activation == expected
    assert isinstance(frozen[1], nn.Identity if expected else layer)
    with torch.no_grad():
        assert_close(frozen(x), network(x), scale=16)
        assert_close(by_torch(monkeypatch, frozen, x), network(x), scale=16)


@pytest.mark.parametrize("padding", [1, "same"])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_every_padding(mode: str, padding: int | str) -> None:
    """With circular padding torch returns another memory layout than that of the input."""
    network = nn.Sequential(DynamicConv2d(6, 8, 3, padding=padding, padding_mode=mode)).eval()
    x = torch.randn(2, 6, 9, 11).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert_close(freeze(network, input_size=(6, 9, 11))(x), network(x), scale=4)


def test_what_is_changed_after_a_call_is_seen_by_the_next() -> None:
    """What is prepared for a size holds addresses and the activation."""
    frozen = freeze(nn.Sequential(DynamicConv2d(4, 20, 1)).eval(), input_size=(4, 8, 8))
    layer, x = frozen[0], pictures(2, 4, 8)
    with torch.no_grad():
        before = frozen(x)
        kept = layer.bank, layer.biases  # so that their memory is not used again
        layer.bank, layer.biases = 3 * layer.bank, 3 * layer.biases
        assert_close(frozen(x), 3 * before, scale=4)
        layer.activation = Activation(low=0.0)
        assert_close(frozen(x), 3 * before.clamp(min=0), scale=4)
    assert (before < 0).any()
    assert len(kept) == 2


def test_paddings_that_follow_from_the_size_are_kept_apart() -> None:
    """Maps of 7 are padded by the kernel (1, 1), maps of 6 before it (0, 1): the kernel sees maps of 7 both times."""
    network = nn.Sequential(DynamicConv2d(6, 8, 3, padding="same", stride=2)).eval()
    frozen = freeze(network, input_size=(6, 9, 9))
    with torch.no_grad():
        for side in (7, 6, 7):
            x = pictures(2, 6, side)
            assert_close(frozen(x), network(x), scale=4)


@pytest.mark.parametrize("layout", ["contiguous", "strided", "float64", "autocast", "gradient"])
def test_what_the_kernels_cannot_read_runs_by_torch(layout: str, calls: list[str]) -> None:
    network = nn.Sequential(DynamicConv2d(4, 20, 1)).eval()
    x = pictures(2, 4, 8)
    frozen = freeze(
        network.double() if layout == "float64" else network, examples=x.double() if layout == "float64" else x
    )
    calls.clear()
    if layout == "contiguous":
        x = x.contiguous()
    elif layout == "strided":
        x = pictures(2, 4, 16)[:, :, ::2, ::2]
    elif layout == "float64":
        x = x.double()
    elif layout == "gradient":
        x = x.requires_grad_()
    with torch.set_grad_enabled(layout == "gradient"), torch.autocast("cpu", torch.bfloat16, layout == "autocast"):
        y = frozen(x)
    assert calls == []
    assert_close(y, network(x), dtype=torch.bfloat16 if layout == "autocast" else None)


def test_what_the_kernels_can_read_runs_by_them(calls: list[str]) -> None:
    """The fixture of the test above sees the kernels when they run."""
    frozen = freeze(nn.Sequential(DynamicConv2d(4, 20, 1), DynamicConv2d(20, 20, 3, groups=20)), input_size=(4, 8, 8))
    calls.clear()
    with torch.no_grad():
        frozen(pictures(2, 4, 8))
    assert [name for name in calls if name != "sums"] == ["panels", "taps"]


def test_a_copy_and_an_empty_batch() -> None:
    frozen = copy.deepcopy(freeze(nn.Sequential(DynamicConv2d(4, 20, 1)), input_size=(4, 8, 8)))
    with torch.no_grad():
        assert frozen(pictures(2, 4, 8)[:0]).shape == (0, 20, 8, 8)
