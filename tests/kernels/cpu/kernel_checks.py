"""Every function of the C library against torch in float64, on odd sizes; run for one set of compiler flags.

    python kernel_checks.py -march=haswell

Run by test_instruction_sets.py, in a process of its own where the flags ask for a sanitizer. Raises at the first
difference.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dynaconv.kernels.cpu import build, convolve, depthwise, experts, inference
from dynaconv.kernels.cpu.arguments import Activation

# batch, experts, in, out, height, width, kernel, stride, padding, dilation: less than a vector, less than a panel, more
# than a pair of panels; kernels mixed whole, and in blocks; tiles that are cut off; maps smaller than the kernel; a tap
# over several groups of examples; outputs that read padding alone
DENSE = [
    (1, 1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1)),
    (5, 3, 7, 19, 5, 9, (3, 2), (2, 1), (1, 0), (1, 2)),
    (4, 2, 33, 100, 6, 7, (3, 3), (1, 1), (1, 1), (1, 1)),
    (3, 4, 900, 150, 3, 5, (1, 1), (1, 1), (0, 0), (1, 1)),
    (6, 2, 70, 130, 7, 7, (3, 3), (2, 3), (2, 2), (1, 1)),
    (2, 33, 15, 48, 2, 3, (5, 5), (1, 1), (2, 2), (1, 1)),
    (2, 2, 31, 65, 9, 4, (2, 2), (3, 3), (0, 1), (2, 1)),
    (3, 2, 90, 70, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    (3, 2, 3, 70, 30, 31, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 2, 5, 20, 24, 25, (1, 1), (1, 1), (0, 0), (1, 1)),
    (4, 2, 70, 40, 1, 2, (1, 1), (3, 1), (1, 0), (1, 1)),
]
DEPTHWISE = [
    (1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1)),
    (3, 15, 7, 9, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 100, 8, 5, (5, 5), (2, 2), (2, 2), (1, 1)),
    (5, 67, 6, 11, (3, 3), (2, 1), (1, 2), (2, 1)),
    (2, 33, 4, 4, (7, 2), (1, 3), (3, 0), (1, 2)),
]


def close(actual: Tensor, expected: Tensor, what: str) -> None:
    expected = expected.detach()
    error = (actual.double() - expected).abs().max().item() if expected.numel() else 0.0
    bound = 2e-5 * max(1.0, expected.abs().max().item() if expected.numel() else 0.0) * 4
    if actual.shape != expected.shape or not error <= bound:
        raise AssertionError(f"{what}: off by {error:.1e}, more than {bound:.1e}")


def last(*shape: int) -> Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


def each(x: Tensor, kernels: Tensor, moves: tuple[Any, ...], groups: int) -> Tensor:
    pairs = zip(x, kernels, strict=True)
    return torch.cat([F.conv2d(one[None], own, None, *moves, groups) for one, own in pairs])


def check_dense(case: tuple[Any, ...]) -> None:
    batch, number, inputs, outputs, height, width, kernel, *moves = case
    x, routing = last(batch, inputs, height, width), torch.rand(batch, number)
    bank, bias = (
        torch.randn(number, outputs, inputs, *kernel) / (inputs * kernel[0]) ** 0.5,
        torch.randn(batch, outputs),
    )
    wide = [tensor.double().requires_grad_() for tensor in (x, bank, routing)]
    plain = each(wide[0], torch.einsum("bk,koihw->boihw", wide[2], wide[1]), tuple(moves), 1)
    packed, sums = convolve.pack_bank(bank), torch.zeros(batch, outputs)
    expected = F.silu(plain + bias[:, :, None, None])
    silu = Activation("silu")
    y = convolve.convolve(x, packed, routing, bias, outputs, kernel, *moves, activation=silu, sums=sums)
    close(y, expected, f"dense {case}")
    close(sums, expected.sum((2, 3)), f"sums {case}")
    gradient = torch.randn(plain.shape).to(memory_format=torch.channels_last)
    of_x, of_bank, of_routing = torch.autograd.grad(plain, wide, gradient.double())
    turned = convolve.pack_bank(bank, transposed=True)
    close(convolve.input_gradient(gradient, x.shape, turned, routing, kernel, *moves), of_x, f"input gradient {case}")
    packed_gradient, routing_gradient = convolve.bank_gradient(gradient, x, packed, routing, kernel, *moves)
    close(convolve.unpack_bank(packed_gradient, bank.shape), of_bank, f"bank gradient {case}")
    close(routing_gradient, of_routing, f"routing gradient {case}")
    check_reduced(x, packed, routing, (outputs, kernel, *moves))
    y = experts.convolve(x, bank, routing, bias, *moves)
    close(y, plain + bias[:, :, None, None], f"experts {case}")
    input_gradient, routing_gradient = experts.input_gradient(gradient, x, bank, routing, *moves)
    assert input_gradient is not None
    close(input_gradient, of_x, f"experts, input gradient {case}")
    close(routing_gradient, of_routing, f"experts, routing gradient {case}")
    close(experts.bank_gradient(gradient, x, routing, bank.shape, *moves), of_bank, f"experts, bank gradient {case}")


def check_reduced(x: Tensor, packed: Tensor, routing: Tensor, moves: tuple[Any, ...]) -> None:
    scale = packed.abs().amax(2, keepdim=True).clamp(min=1e-6) / 127
    for stored, own in ((packed.bfloat16(), None), ((packed / scale).round().to(torch.int8), scale.contiguous())):
        wide = stored.float() if own is None else stored.float() * own
        expected = convolve.convolve(x, wide.contiguous(), routing, None, *moves).double()
        close(convolve.convolve(x, stored, routing, None, *moves, scale=own), expected, f"{stored.dtype} {moves}")


def check_depthwise(case: tuple[Any, ...]) -> None:
    batch, channels, height, width, kernel, *moves = case
    x, kernels = last(batch, channels, height, width), torch.randn(batch, channels, 1, *kernel)
    bias, sums, taps = torch.randn(channels), torch.zeros(batch, channels), depthwise.taps_of(kernels)
    wide = [tensor.double().requires_grad_() for tensor in (x, kernels)]
    plain = each(*wide, tuple(moves), channels)
    expected = F.hardswish(plain + bias[:, None, None])
    y = depthwise.depthwise(x, taps, kernel, bias, *moves, activation=Activation("hardswish"), sums=sums)
    close(y, expected, f"depthwise {case}")
    close(sums, expected.sum((2, 3)), f"depthwise sums {case}")
    gradient = torch.randn(plain.shape).to(memory_format=torch.channels_last)
    of_x, of_kernels = torch.autograd.grad(plain, wide, gradient.double())
    close(depthwise.input_gradient(gradient, x.shape, taps, kernel, *moves), of_x, f"depthwise input gradient {case}")
    made = depthwise.kernel_gradient(gradient, x, kernel, *moves)
    close(made, of_kernels.flatten(2).transpose(1, 2), f"depthwise kernel gradient {case}")


def check_frozen(channels: int, hidden: int, depthwise_layer: bool, batch: int) -> None:
    """Router, mixing, convolution, bias and activation in one call."""
    outputs, experts = channels if depthwise_layer else 37, 3
    moves = (3, 3), (2, 1), (1, 1), (1, 1)
    bank = torch.randn(experts, outputs, 1 if depthwise_layer else channels, 3, 3)
    packed = bank.flatten(2).transpose(1, 2).contiguous() if depthwise_layer else convolve.pack_bank(bank)
    first = torch.randn(hidden, channels) if hidden else None
    fc, bias, biases = torch.randn(experts, hidden or channels), torch.randn(outputs), torch.randn(experts, outputs)
    router = inference.LinearRouter(first, None, fc, torch.randn(experts), True)
    prepared = inference.prepare_layer(
        *((channels, 6, 7), outputs, *moves),
        depthwise=depthwise_layer,
        bank=packed,
        bias=bias,
        biases=biases,
        activation=Activation(low=0.0, high=6.0),
        router=router,
    )
    x = last(batch, channels, 6, 7)
    features = x.double().mean((2, 3))
    if first is not None:
        features = F.relu(features @ first.double().t())
    assert router.fc_bias is not None
    routing = (features @ fc.double().t() + router.fc_bias).softmax(1)
    kernels = torch.einsum("bk,koihw->boihw", routing, bank.double())
    y = each(x.double(), kernels, moves[1:], channels if depthwise_layer else 1)
    expected = (y + (bias + routing @ biases.double())[:, :, None, None]).clamp(0, 6)
    for given in (None, routing.float()):
        found, sums = inference.frozen_layer(prepared, x, given, None)
        close(found, expected, f"frozen {channels}, {hidden}, {depthwise_layer}, {batch}")
        close(sums, expected.sum((2, 3)), "frozen sums")


def run() -> None:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        for case in DENSE:
            check_dense(case)
        for case in DEPTHWISE:
            check_depthwise(case)
        for channels, hidden, depthwise_layer, batch in ((5, 0, False, 1), (33, 6, False, 4), (19, 4, True, 3)):
            check_frozen(channels, hidden, depthwise_layer, batch)
    torch.set_num_threads(before)


if __name__ == "__main__":
    with build.compiled_with(*sys.argv[1:]):
        run()
        print("equal", build.instruction_set())
