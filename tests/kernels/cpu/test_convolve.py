"""What follows the dense convolution in the same pass, reduced banks, and the layout of banks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dynaconv.kernels import cpu
from dynaconv.kernels.cpu import convolve
from dynaconv.kernels.cpu.arguments import Activation, output_size
from tolerances import assert_close

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"no kernels of our own here: {cpu.why_not()}")

ONE_TAP = (1, 1), (1, 1), (0, 0), (1, 1)  # kernel, stride, padding, dilation


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
    packed = convolve.pack_bank(bank)
    y = convolve.convolve(
        x, packed, routing, bias, outputs, *ONE_TAP, activation=Activation(low=-0.5, high=1.0), sums=sums
    )
    assert_close(y, expected, dtype=torch.float32, scale=50)
    assert_close(sums, expected.sum((2, 3)), dtype=torch.float32, scale=500)


@pytest.mark.parametrize("activation", [Activation(low=0.0, high=6.0), Activation("silu"), Activation("hardswish")])
def test_what_is_not_a_number_stays_so(activation: Activation) -> None:
    x = torch.full((1, 5, 2, 2), float("nan")).to(memory_format=torch.channels_last)
    packed = convolve.pack_bank(torch.randn(2, 17, 5, 1, 1))
    y = convolve.convolve(x, packed, torch.rand(1, 2), None, 17, *ONE_TAP, activation=activation)
    assert y.isnan().all()


@pytest.mark.parametrize(("kind", "function"), [("silu", F.silu), ("hardswish", F.hardswish)])
@pytest.mark.parametrize("outputs", [1, 32])  # the last numbers of a map alone, and vectors
def test_smooth_activations(kind: str, function: Callable[[Tensor], Tensor], outputs: int) -> None:
    values = torch.cat([torch.linspace(-120, 120, 24_000), torch.logspace(-30, 1, 900), -torch.logspace(-30, 1, 900)])
    x = values.view(1, 1, 1, -1).to(memory_format=torch.channels_last)
    packed = convolve.pack_bank(torch.ones(1, outputs, 1, 1, 1))
    y = convolve.convolve(x, packed, torch.ones(1, 1), None, outputs, *ONE_TAP, activation=Activation(kind))
    expected = function(x.double()).expand_as(y)
    torch.testing.assert_close(y.double(), expected, rtol=4e-7, atol=1e-30 if kind == "hardswish" else 2e-36)


def test_sums_over_many_pixels_keep_their_digits() -> None:
    x = torch.rand(1, 1, 300, 300).to(memory_format=torch.channels_last)
    packed, sums = convolve.pack_bank(torch.ones(1, 1, 1, 1, 1)), torch.zeros(1, 1)
    convolve.convolve(x, packed, torch.ones(1, 1), None, 1, *ONE_TAP, sums=sums)
    assert sums.item() == pytest.approx(x.double().sum().item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
@pytest.mark.parametrize("batch", [1, 5])
def test_reduced_banks_are_widened_exactly(dtype: torch.dtype, batch: int, threads: int) -> None:
    packed = (torch.randn(3, 2, 9 * 5, convolve.PANEL) * 40).to(dtype)
    scale = torch.rand(3, 2, 1, convolve.PANEL) if dtype == torch.int8 else None
    wide = packed.float() if scale is None else packed.float() * scale
    x, routing, moves = maps(batch, 5, 6, 7), torch.rand(batch, 3), ((3, 3), (1, 1), (1, 1), (1, 1))
    y = convolve.convolve(x, packed, routing, None, 50, *moves, scale=scale)
    expected = convolve.convolve(x, wide.contiguous(), routing, None, 50, *moves)
    assert_close(y, expected, scale=expected.abs().max().item())


@pytest.mark.parametrize("out", [1, 32, 45])
def test_banks_come_back_unpack_bank(out: int, threads: int) -> None:
    bank = torch.randn(2, out, 19, 3, 2)
    packed = convolve.pack_bank(bank)
    rows = F.pad(bank.flatten(3).permute(0, 3, 2, 1).reshape(2, -1, out), (0, -out % convolve.PANEL))
    assert torch.equal(packed, rows.view(2, 6 * 19, -1, convolve.PANEL).transpose(1, 2))
    assert torch.equal(convolve.unpack_bank(packed, bank.shape), bank)
    turned = convolve.pack_bank(bank, transposed=True)
    assert torch.equal(turned, convolve.pack_bank(bank.transpose(1, 2).contiguous()))


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 2), (7, 5)])  # larger than the kernel, and than the map
@pytest.mark.parametrize("padding", [(0, 0), (2, 1), (0, -2)])
def test_gradients_of_every_stride(stride: tuple[int, int], padding: tuple[int, int], threads: int) -> None:
    x, bank, routing, dilation = maps(2, 3, 6, 9), torch.randn(2, 5, 3, 3, 2), torch.rand(2, 2), (2, 1)
    wide = [tensor.double().requires_grad_() for tensor in (x, bank, routing)]
    cropped = F.pad(wide[0], (padding[1], padding[1], padding[0], padding[0]))
    kernels = torch.einsum("bk,koihw->boihw", wide[2], wide[1])
    pairs = zip(cropped, kernels, strict=True)
    expected = torch.cat([F.conv2d(one[None], own, None, stride, 0, dilation) for one, own in pairs])
    upstream = torch.randn(expected.shape).to(memory_format=torch.channels_last)
    gradients = torch.autograd.grad(expected, wide, upstream.double())
    moves = (3, 2), stride, padding, dilation
    packed = convolve.pack_bank(bank)
    assert_close(convolve.convolve(x, packed, routing, None, 5, *moves), expected, dtype=torch.float32, scale=10)
    turned = convolve.pack_bank(bank, transposed=True)
    of_x = convolve.input_gradient(upstream, x.shape, turned, routing, *moves)
    of_bank, of_routing = convolve.bank_gradient(upstream, x, packed, routing, *moves)
    found = of_x, convolve.unpack_bank(of_bank, bank.shape), of_routing
    for one, wanted in zip(found, gradients, strict=True):
        assert_close(one, wanted, dtype=torch.float32, scale=50)


def test_no_memory_is_kept_for_sizes_that_came_once() -> None:
    """A table of what every pixel reads was kept for 256 image sizes: 875 MiB of one 3x3 layer."""
    packed, routing = convolve.pack_bank(torch.randn(1, 1, 1, 7, 7)), torch.ones(1, 1)
    tables = []
    for side in range(400, 480, 8):
        x = torch.randn(1, 1, side, 400).to(memory_format=torch.channels_last)
        convolve.convolve(x, packed, routing, None, 1, (7, 7), (1, 1), (3, 3), (1, 1))
        convolve.input_gradient(x, x.shape, packed, routing, (7, 7), (1, 1), (3, 3), (1, 1))
        del x
        tables.append(sum(tensor.numel() for tensor in gc.get_objects() if type(tensor) is Tensor))
    assert max(tables) == tables[0]


def test_a_kernel_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"the kernel \(5, 5\) does not fit into the padded input of \(3, 3\)"):
        output_size((3, 3), (5, 5), (1, 1), (0, 0), (1, 1))
