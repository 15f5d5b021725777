"""What the C functions take: with it ctypes turns numbers and addresses itself, which is several times as quick."""

from __future__ import annotations

import ctypes
from typing import Any

_INT, _LONG, _FLOAT, _AT = ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p

_SIGNATURES: dict[str, list[Any]] = {
    # geometry, slabs, threads, follow or x, ...
    "depthwise": [_AT, _LONG, _INT, _AT, _AT, _AT, _AT],
    "depthwise_input_gradient": [_AT, _LONG, _INT, _AT, _AT, _AT],
    "depthwise_kernel_gradient": [_AT, _LONG, _INT, _AT, _AT, _AT],
    # batch, pixels, channels, slabs, threads, sums, map
    "channel_sums": [_LONG, _LONG, _LONG, _LONG, _INT, _AT, _AT],
    # batch, channels, hidden, experts, softmax, scale, sums, two layers' weights and biases, scratch, out
    "route": [_LONG, _LONG, _LONG, _LONG, _INT, _FLOAT, _AT, _AT, _AT, _AT, _AT, _AT, _AT],
    # convolution, bank, threads, routing, follow, x, y
    "convolve": [_AT, _AT, _INT, _AT, _AT, _AT, _AT],
    # convolution, threads, bank, routing, x, upstream gradient, bank's gradient, routing's
    "convolve_gradient": [_AT, _INT, _AT, _AT, _AT, _AT, _AT, _AT],
    # back, lie, threads, bank, panels
    "panels": [_INT, _AT, _INT, _AT, _AT],
    # layer, batch, slabs, threads, routing, sums in, x, y, sums out
    "frozen_layer": [_AT, _LONG, _LONG, _INT, _AT, _AT, _AT, _AT, _AT],
    # kind, batch, experts, rows, columns, by_column, threads, routing, bank, scale, out
    "mix": [_INT, _LONG, _LONG, _LONG, _LONG, _INT, _INT, _AT, _AT, _AT, _AT],
}


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Set the argument types of every function; all answer nothing."""
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library
