"""The C kernels as operators of torch: its checks of an operator, the compiler, the profiler, checkpointing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from dynaconv import DynamicConv2d
from dynaconv.kernels import cpu
from tolerances import assert_close

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"no C kernels here: {cpu.why_not()}")

MOVES: tuple[list[int], ...] = ([2, 1], [1, 1], [1, 2])
KERNELS = {"depthwise_each": (3, 20, 1, 3, 2), "mix_conv2d": (2, 9, 20, 3, 2), "experts_conv2d": (2, 9, 20, 3, 2)}


def arguments(name: str, layout: torch.memory_format, grad: bool) -> tuple[Any, ...]:
    x = torch.randn(3, 20, 9, 8).contiguous(memory_format=layout)
    bias = torch.randn(3, KERNELS[name][1])
    tensors = [x, torch.randn(KERNELS[name]), *([torch.rand(3, 2)] if name != "depthwise_each" else []), bias]
    return (*(tensor.requires_grad_(grad) for tensor in tensors), *MOVES)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("name", list(KERNELS))
def test_passes_the_checks_of_torch(name: str, layout: torch.memory_format) -> None:
    operator = getattr(torch.ops.dynaconv, name).default
    torch.library.opcheck(operator, arguments(name, layout, grad=False))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, arguments(name, layout, grad=True), test_utils=checks)


@pytest.mark.parametrize(
    "mask", [[True] * 3, [True, False, False], [False, True, False], [False, False, True]], ids=str
)
@pytest.mark.parametrize("name", list(KERNELS))
def test_gradients_have_the_shapes_and_strides_that_were_promised(name: str, mask: list[bool]) -> None:
    *tensors, _ = arguments(name, torch.channels_last, grad=False)[:-3]
    operator = getattr(torch.ops.dynaconv, f"{name}_backward").default
    gradient = getattr(torch.ops.dynaconv, name).default(*tensors, None, *MOVES)
    torch.library.opcheck(operator, (gradient, *tensors, *MOVES, mask[: len(tensors)]), test_utils="test_faketensor")


def network() -> nn.Module:
    return nn.Sequential(
        *(DynamicConv2d(8, 16, 3, padding=1), nn.ReLU(), DynamicConv2d(16, 16, 3, padding=1, groups=16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), DynamicConv2d(16, 8, 3, padding=1)),
    ).to(memory_format=torch.channels_last)


def values(model: Any, x: Tensor) -> list[Tensor]:
    y = model(x)
    parameters = list(model.parameters())
    return [y, *torch.autograd.grad(y.square().sum(), [x, *parameters])]


def pictures() -> Tensor:
    return torch.randn(8, 8, 9, 9).contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")  # torch 2.11, at every use
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_network_keeps_the_kernels_in_one_graph_and_trains(backend: str) -> None:
    torch.compiler.reset()
    model, x = network(), pictures()
    expected = values(model, x)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        actual = values(torch.compile(model, fullgraph=True, backend=backend), x)
    names = {event.key for event in seen.key_averages()}
    for name in KERNELS:
        assert {f"dynaconv::{name}", f"dynaconv::{name}_backward"} <= names
    for one, two in zip(actual, expected, strict=True):
        assert_close(one, two, scale=max(1.0, two.abs().max().item()))


def test_a_compiled_network_takes_any_batch() -> None:
    torch.compiler.reset()
    model = network()
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    for batch in (8, 11, 9):
        x = torch.randn(batch, 8, 9, 9).contiguous(memory_format=torch.channels_last)
        assert_close(compiled(x), model(x))


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant: bool) -> None:
    model, x = network(), pictures()
    expected = values(model, x)
    y = checkpoint(model, x, use_reentrant=reentrant)
    y.square().sum().backward()
    for one, two in zip([x, *model.parameters()], expected[1:], strict=True):
        assert one.grad is not None
        assert_close(one.grad, two, scale=max(1.0, two.abs().max().item()))
