"""What follows the dense convolution in the same pass, reduced banks, and the layout of banks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dynaconv.kernels import cpu as native
from dynaconv.kernels.cpu import convolve
from dynaconv.kernels.cpu.activation import Activation
from dynaconv.kernels.cpu.positions import backward, positions
from tolerances import assert_close

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no kernels of our own here: {native.why_not()}")

ONE_TAP = (1, 1), (1, 1), (0, 0), (1, 1)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


def maps(batch: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, channels, height, width).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("outputs", [1, 16, 19, 64, 150])
@pytest.mark.parametrize("inputs", [7, 900])  # a kernel that is mixed whole, and one in blocks
def test_bias_limits_and_sums(inputs: int, outputs: int, shared: bool, threads: int) -> None:
    x, bank, routing = maps(2, inputs, 9, 13), torch.randn(3, outputs, inputs, 1, 1), torch.rand(2, 3)
    bias, sums = torch.randn(outputs) if shared else torch.randn(2, outputs), torch.zeros(2, outputs)
    kernels = (routing.double() @ bank.double().flatten(1)).view(2, outputs, inputs)
    expected = torch.einsum("bihw,boi->bohw", x.double(), kernels) + bias.expand(2, -1)[:, :, None, None]
    expected = expected.clamp(-0.5, 1.0)
    panels, where = convolve.to_panels(bank), positions((9, 13), *ONE_TAP)
    y = convolve.convolve(
        x, panels, routing, bias, outputs, where, activation=Activation(low=-0.5, high=1.0), sums=sums
    )
    assert_close(y, expected, dtype=torch.float32, scale=50)
    assert_close(sums, expected.sum((2, 3)), dtype=torch.float32, scale=500)


@pytest.mark.parametrize("activation", [Activation(low=0.0, high=6.0), Activation("silu"), Activation("hardswish")])
def test_what_is_not_a_number_stays_so(activation: Activation) -> None:
    x = torch.full((1, 5, 2, 2), float("nan")).to(memory_format=torch.channels_last)
    panels, where = convolve.to_panels(torch.randn(2, 17, 5, 1, 1)), positions((2, 2), *ONE_TAP)
    y = convolve.convolve(x, panels, torch.rand(1, 2), None, 17, where, activation=activation)
    assert y.isnan().all()


@pytest.mark.parametrize(("curve", "function"), [("silu", F.silu), ("hardswish", F.hardswish)])
@pytest.mark.parametrize("outputs", [1, 32])  # the last numbers of a map alone, and vectors
def test_curves(curve: str, function: Callable[[Tensor], Tensor], outputs: int) -> None:
    values = torch.cat([torch.linspace(-120, 120, 24_000), torch.logspace(-30, 1, 900), -torch.logspace(-30, 1, 900)])
    x = values.view(1, 1, 1, -1).to(memory_format=torch.channels_last)
    panels, where = convolve.to_panels(torch.ones(1, outputs, 1, 1, 1)), positions(tuple(x.shape[2:]), *ONE_TAP)
    y = convolve.convolve(x, panels, torch.ones(1, 1), None, outputs, where, activation=Activation(curve))
    expected = function(x.double()).expand_as(y)
    torch.testing.assert_close(y.double(), expected, rtol=4e-7, atol=1e-30 if curve == "hardswish" else 2e-36)


def test_sums_over_many_pixels_keep_their_digits() -> None:
    x = torch.rand(1, 1, 300, 300).to(memory_format=torch.channels_last)
    panels, sums = convolve.to_panels(torch.ones(1, 1, 1, 1, 1)), torch.zeros(1, 1)
    convolve.convolve(x, panels, torch.ones(1, 1), None, 1, positions((300, 300), *ONE_TAP), sums=sums)
    assert sums.item() == pytest.approx(x.double().sum().item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
@pytest.mark.parametrize("batch", [1, 5])
def test_reduced_banks_are_widened_exactly(dtype: torch.dtype, batch: int, threads: int) -> None:
    panels = (torch.randn(3, 2, 9 * 5, convolve.PANEL) * 40).to(dtype)
    scale = torch.rand(3, 2, 1, convolve.PANEL) if dtype == torch.int8 else None
    wide = panels.float() if scale is None else panels.float() * scale
    x, routing, where = maps(batch, 5, 6, 7), torch.rand(batch, 3), positions((6, 7), (3, 3), (1, 1), (1, 1), (1, 1))
    y = convolve.convolve(x, panels, routing, None, 50, where, scale=scale)
    expected = convolve.convolve(x, wide.contiguous(), routing, None, 50, where)
    assert_close(y, expected, scale=expected.abs().max().item())


@pytest.mark.parametrize("out", [1, 32, 45])
def test_banks_come_back_from_panels(out: int, threads: int) -> None:
    bank = torch.randn(2, out, 19, 3, 2)
    panels = convolve.to_panels(bank)
    rows = F.pad(bank.flatten(3).permute(0, 3, 2, 1).reshape(2, -1, out), (0, -out % convolve.PANEL))
    assert torch.equal(panels, rows.view(2, 6 * 19, -1, convolve.PANEL).transpose(1, 2))
    assert torch.equal(convolve.from_panels(panels, bank.shape), bank)
    turned = convolve.to_panels(bank, transposed=True)
    assert torch.equal(turned, convolve.to_panels(bank.transpose(1, 2).contiguous()))


def test_the_backward_table_joins_the_same_pixels() -> None:
    shape = (7, 9), (3, 2), (2, 3), (1, 2), (2, 1)
    there, back = positions(*shape), backward(*shape)
    assert there.reads is not None
    assert back.reads is not None
    assert back.writes is not None
    outs, taps = torch.nonzero(there.reads >= 0, as_tuple=True)
    joined = {(there.reads[out, tap].item(), out.item(), tap.item()) for out, tap in zip(outs, taps, strict=True)}
    places, taps = torch.nonzero(back.reads >= 0, as_tuple=True)
    again = {
        (back.writes[place].item(), back.reads[place, tap].item(), tap.item())
        for place, tap in zip(places, taps, strict=True)
    }
    assert joined == again
    assert sorted(back.writes.tolist()) == list(range(63))
    assert math.prod(there.size) == len(there.reads)


def test_a_kernel_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"the kernel \(5, 5\) does not fit into the padded input of \(3, 3\)"):
        positions((3, 3), (5, 5), (1, 1), (0, 0), (1, 1))
