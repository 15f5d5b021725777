"""Strategy ``triton``: Triton kernels for CUDA that mix the experts in registers and never write a mixed kernel.

They work on images; a linear or one-dimensional call becomes a two-dimensional one here.
"""

from __future__ import annotations

import math
import os
from importlib.util import find_spec

import torch
from torch import Tensor

from dynaconv.kernels.cuda.operators import triton_mix
from dynaconv.ops.call import Call, autocast_dtype
from dynaconv.ops.geometry import Geometry, output_space
from dynaconv.ops.strategies.strategy import Strategy

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_INSTALLED = find_spec("triton") is not None  # looks for the package and does not import it
_OFFSETS = 2**31


def refuses(call: Call) -> str | None:
    geometry = call.geometry
    if geometry.dims == 3:
        return "its kernels are for linear layers and for 1 and 2 dimensions; this call has 3"
    if geometry.transposed:
        return "its kernels are for plain convolutions; this one is transposed"
    if geometry.groups > 1 and not (call.depthwise and call.bank_shape[1] == geometry.groups):
        return f"groups is {geometry.groups}; its kernels know one group, or one input and one output channel in each"
    if call.dtype not in DTYPES:
        return f"its kernels are for float32, float16 and bfloat16; this input is {call.dtype}"
    if call.exporting:
        return "an exported graph cannot hold operators of our own"
    if not call.plain:
        return "the call is transformed or watched, and torch does not see into a kernel of our own"
    if call.device != "cuda" and not interpreted():
        return f"its kernels run on CUDA; this call is on {call.device}"
    if not _INSTALLED:
        return "triton is not installed; pip install triton"
    if max(_numbers(call)) >= _OFFSETS:
        return "an example or the bank has 2**31 numbers or more; its kernels count with 32 bits"
    return None


def interpreted() -> bool:
    """Whether Triton's interpreter is on (``TRITON_INTERPRET=1``), which runs kernels on the CPU for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def _numbers(call: Call) -> tuple[int, int, int]:
    """How many numbers an example, its output and the bank have."""
    space = output_space(call.x_shape[2:], call.kernel, call.geometry) if call.geometry.dims else call.x_shape[1:-1]
    return math.prod(call.x_shape[1:]), call.bank_shape[1] * math.prod(space), math.prod(call.bank_shape)


def mix(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Mix and convolve by kernels that compute ``sum_k routing[b, k] * bank[k]`` tile by tile, in registers.

    Sums run in float32; the output has the dtype of ``x``, or autocast's. Routing weights keep their own dtype, also
    under autocast (strategy ``loop`` converts them): they are few, and mixing runs in float32 anyway.

    Raises:
        TypeError: input and bank of different dtypes without autocast.
    """
    x, bank = _lowered(x), _lowered(bank)
    if x.dtype != bank.dtype:
        raise TypeError(f"input is {x.dtype} and bank is {bank.dtype}; convert one of them, or use torch.autocast")
    if geometry.dims == 0:
        return _linear(x, bank, routing, bias)
    if geometry.dims == 1:
        stride, padding, dilation = (1, *geometry.stride), (0, *geometry.padding), (1, *geometry.dilation)
        y = triton_mix(x.unsqueeze(2), bank.unsqueeze(3), routing, bias, stride, padding, dilation, geometry.groups)
        return y.squeeze(2)
    return triton_mix(x, bank, routing, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


def _linear(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None) -> Tensor:
    """``(B, *, in) -> (B, *, out)``. The rows are a channels_last map of height 1; this view needs no copy."""
    tokens = x.reshape(x.shape[0], 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    y = triton_mix(tokens, bank[..., None, None], routing, bias, (1, 1), (0, 0), (1, 1), 1)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def _lowered(tensor: Tensor) -> Tensor:
    low = autocast_dtype(tensor.device.type)
    return tensor if low is None else tensor.to(low)


STRATEGY = Strategy(refuses=refuses, mix=mix, unasked="not measured on a GPU; ask for it by name")
