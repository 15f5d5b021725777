"""C checks nothing: whatever is wrong with a tensor or a size is noticed before it, by every function."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from dynaconv.kernels import cpu
from dynaconv.kernels.cpu import convolve, depthwise, inference

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"no kernels of our own here: {cpu.why_not()}")

B, C, OUT, K = 3, 5, 40, 2
MOVES: tuple[Any, ...] = (3, 3), (1, 1), (1, 1), (1, 1)


def last(*shape: int) -> Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


def calls() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Every function with arguments that are right."""
    named = dict(zip(("kernel", "stride", "padding", "dilation"), MOVES, strict=True))
    packed, turned = torch.randn(K, 2, 9 * C, 32), torch.randn(K, 1, 9 * OUT, 32)
    router = inference.LinearRouter(torch.randn(4, C), torch.randn(4), torch.randn(K, 4), torch.randn(K), True)
    prepared = inference.prepare_layer((C, 6, 7), OUT, *MOVES, depthwise=False, bank=packed, router=router)
    x, routing, gradient = last(B, C, 6, 7), torch.rand(B, K), last(B, OUT, 6, 7)
    int8 = torch.ones(K, 2, 9 * C, 32, dtype=torch.int8)
    return {
        "convolve": (
            convolve.convolve,
            {"x": x, "packed": packed, "routing": routing, "bias": torch.randn(B, OUT), "outputs": OUT}
            | named
            | {"sums": torch.zeros(B, OUT)},
        ),
        "convolve int8": (
            convolve.convolve,
            {"x": x, "packed": int8, "routing": routing, "bias": torch.randn(OUT), "outputs": OUT}
            | named
            | {"scale": torch.ones(K, 2, 1, 32)},
        ),
        "input_gradient": (
            convolve.input_gradient,
            {"gradient": gradient, "shape": x.shape, "packed": turned, "routing": routing} | named,
        ),
        "bank_gradient": (
            convolve.bank_gradient,
            {"gradient": gradient, "x": x, "packed": packed, "routing": routing} | named,
        ),
        "unpack_bank": (convolve.unpack_bank, {"packed": packed, "shape": (K, OUT, C, 3, 3)}),
        "depthwise": (
            depthwise.depthwise,
            {"x": x, "taps": torch.randn(B, 9, C), "bias": torch.randn(B, C), "sums": torch.zeros(B, C)} | named,
        ),
        "depthwise input_gradient": (
            depthwise.input_gradient,
            {"gradient": last(B, C, 3, 4), "shape": x.shape, "taps": torch.randn(B, 9, C)} | named | {"stride": (2, 2)},
        ),
        "depthwise kernel_gradient": (depthwise.kernel_gradient, {"gradient": last(B, C, 6, 7), "x": x} | named),
        "channel_sums": (inference.channel_sums, {"x": x}),
        "route": (inference.route, {"sums": torch.randn(B, C), "pixels": 42, "router": router}),
        "mix": (inference.mix, {"bank": torch.randn(K, 9, C), "scale": None, "routing": routing}),
        "mix int8": (
            inference.mix,
            {"bank": torch.ones(K, 9, C, dtype=torch.int8), "scale": torch.ones(K, 1, C), "routing": routing},
        ),
        "prepare_layer": (
            inference.prepare_layer,
            {"shape": (C, 6, 7), "outputs": OUT, "depthwise": False, "bank": packed, "bias": torch.randn(OUT)}
            | named
            | {"biases": torch.randn(K, OUT), "router": router},
        ),
        "prepare_layer depthwise": (
            inference.prepare_layer,
            {"shape": (C, 6, 7), "outputs": C, "depthwise": True, "bank": torch.randn(K, 9, C)} | named,
        ),
        "frozen_layer": (
            inference.frozen_layer,
            {"prepared": prepared, "x": x, "routing": routing, "sums": torch.randn(B, C)},
        ),
    }


def tensors() -> list[tuple[str, str]]:
    return [
        (name, key)
        for name, (_, arguments) in calls().items()
        for key, value in arguments.items()
        if isinstance(value, (Tensor, inference.LinearRouter))
    ]


@pytest.mark.parametrize("name", calls())
def test_right_arguments(name: str) -> None:
    function, arguments = calls()[name]
    function(**arguments)


def spoilt(value: Any, how: str) -> Any:
    """A tensor that is not what C takes it for; of a router, each of its tensors in turn stands for it."""
    if how == "dtype":
        return value.to(torch.float64)
    if how == "another dtype":
        return value.to(torch.float16)
    if how == "device":
        return value.to("meta")
    if how == "layout":
        return torch.stack([value, value], dim=-1)[..., 0]
    if how == "negated":
        return torch._neg_view(value)
    if how == "fewer dimensions":
        return value[0, :-1] if value.dim() == 2 else value[0]
    axis = int(how.removeprefix("shape "))
    return torch.cat([value, value.narrow(axis % value.dim(), 0, 1)], dim=axis % value.dim())


# Tensors of another shape that are right all the same: wider maps, a bias for all examples, another number of examples,
# more output channels in the same panels. What is made contiguous is taken in any layout.
RIGHT = {
    ("mix", "routing", "negated"),  # resolved
    ("mix int8", "routing", "negated"),
    ("convolve", "x", "shape -1"),
    ("convolve int8", "x", "shape -1"),
    ("depthwise", "x", "shape -1"),
    ("bank_gradient", "gradient", "shape 1"),
    *(("channel_sums", "x", f"shape {axis}") for axis in (0, 1, -1)),
    ("route", "sums", "shape 0"),
    *(("mix", "bank", f"shape {axis}") for axis in (1, -1)),
    ("mix int8", "bank", "shape 1"),
    ("prepare_layer depthwise", "bank", "shape 0"),
    *((name, "routing", "shape 0") for name in ("mix", "mix int8")),
    *((name, "routing", "layout") for name in calls() if name != "frozen_layer"),
    *((name, "gradient", "layout") for name in calls() if name.startswith("depthwise")),
}


HOW = ("dtype", "another dtype", "device", "layout", "negated", "fewer dimensions", "shape 0", "shape 1", "shape -1")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("name", "key"), tensors())
def test_wrong_tensors(name: str, key: str, how: str) -> None:
    function, arguments = calls()[name]
    value = arguments[key]
    if (name, key, how) in RIGHT:
        function(**{**arguments, key: spoilt(value, how)})
        return
    if isinstance(value, Tensor):
        wrong = [spoilt(value, how)]
    else:
        fields = [field for field in value._fields if isinstance(getattr(value, field), Tensor)]
        wrong = [value._replace(**{field: spoilt(getattr(value, field), how)}) for field in fields]
    for one in wrong:
        with pytest.raises((TypeError, ValueError, RuntimeError, IndexError)):
            function(**{**arguments, key: one})


@pytest.mark.parametrize("key", ["kernel", "stride", "dilation"])
@pytest.mark.parametrize("name", ["convolve", "input_gradient", "bank_gradient", "depthwise", "prepare_layer"])
@pytest.mark.parametrize("value", [(0, 1), (1, -1), (1,), (1, 1, 1)])
def test_wrong_sizes(name: str, key: str, value: tuple[int, ...]) -> None:
    function, arguments = calls()[name]
    with pytest.raises(ValueError, match="expected"):
        function(**{**arguments, key: value})


def test_both_sides_are_named() -> None:
    function, arguments = calls()["frozen_layer"]
    with pytest.raises(ValueError, match=r"routing has the shape \(3, 9\); expected \(3, 2\)"):
        function(**{**arguments, "routing": torch.rand(B, 9)})
    with pytest.raises(TypeError, match=r"x is torch.float64; expected torch.float32"):
        function(**{**arguments, "x": arguments["x"].double()})
    with pytest.raises(ValueError, match=r"strides .*; expected channels_last: call contiguous\(memory_format"):
        function(**{**arguments, "x": arguments["x"].contiguous()})


@pytest.mark.parametrize("name", [name for name in calls() if not name.startswith(("unpack", "prepare"))])
def test_an_empty_batch(name: str) -> None:
    """The address of a tensor without numbers is NULL, which must not be taken for an argument that is missing."""
    function, arguments = calls()[name]
    empty = dict(arguments)
    for key, value in arguments.items():
        if isinstance(value, Tensor) and value.shape[0] == B:
            empty[key] = value[:0]
    if "shape" in empty:
        empty["shape"] = (0, *empty["shape"][1:])
    made, wanted = function(**empty), function(**arguments)
    for one, whole in zip(*((made, wanted) if isinstance(made, tuple) else ([made], [wanted])), strict=True):
        assert one.shape[1:] == whole.shape[1:]
        assert one.shape[0] == (0 if whole.shape[0] == B else whole.shape[0])
    if name == "bank_gradient":
        assert made[0].abs().max() == 0


def test_a_layer_without_a_router_is_not_asked_to_route() -> None:
    prepared = inference.prepare_layer((C, 6, 7), OUT, *MOVES, depthwise=False, bank=torch.randn(K, 2, 9 * C, 32))
    with pytest.raises(ValueError, match="the layer has no router"):
        inference.frozen_layer(prepared, last(B, C, 6, 7), None, None)


def test_arguments_are_not_changed() -> None:
    for name, (function, arguments) in calls().items():
        before = copy.deepcopy({key: value for key, value in arguments.items() if isinstance(value, Tensor)})
        function(**arguments)
        for key, value in before.items():
            assert key == "sums" or torch.equal(value, arguments[key]), (name, key)
