"""The parameters of a convolution other than its weights: stride, padding, dilation, groups."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dynaconv.errors import suggest
from dynaconv.torch_private import is_exporting

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

Size = int | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Stride, padding, dilation, groups ... of one convolution, validated once.

    Args:
        dims: 1, 2 or 3 space dimensions; 0 for a linear layer, which has no space to move over.
        stride, dilation: one number, or one per dimension, at least 1.
        padding: one number, or one per dimension; or ``"valid"`` (none); or ``"same"``: the output has the length
            ``ceil(input / stride)``, and an odd pad goes to the end. For stride 1 this is torch's rule, for a larger
            stride TensorFlow's (torch raises an error then).
        groups: number of groups, as in torch.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``, as in torch.
        transposed: a transposed convolution, as ``torch.nn.ConvTranspose2d``; numeric zero padding only, as in torch.
        output_padding: added to one side of the output of a transposed convolution.

    After construction the sizes are tuples of ``dims`` numbers (``padding`` may stay ``"same"`` or ``"valid"``).

    Raises:
        ValueError: a value that no convolution can have; the message names it.
    """

    dims: int
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    padding_mode: str = "zeros"
    transposed: bool = False
    output_padding: Any = 0

    def __post_init__(self) -> None:
        if self.dims not in (0, 1, 2, 3):
            raise ValueError(f"dims is {self.dims!r}; expected 1, 2 or 3, or 0 for a linear layer")
        set_field = object.__setattr__
        set_field(self, "stride", as_tuple("stride", self.stride, self.dims, least=1))
        set_field(self, "dilation", as_tuple("dilation", self.dilation, self.dims, least=1))
        set_field(self, "output_padding", as_tuple("output_padding", self.output_padding, self.dims, least=0))
        if isinstance(self.padding, str):
            self._check_padding_word()
        else:
            set_field(self, "padding", as_tuple("padding", self.padding, self.dims, least=0))
        if as_whole(self.groups) is None or self.groups < 1:
            raise ValueError(f"groups is {self.groups!r}; expected a whole number of at least 1")
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode is {self.padding_mode!r}. {suggest(str(self.padding_mode), PADDING_MODES)}")
        if self.transposed and self.padding_mode != "zeros":
            raise ValueError(
                f"padding_mode is {self.padding_mode!r}; a transposed convolution knows 'zeros' only, as in torch"
            )
        if not self.transposed and any(self.output_padding):
            raise ValueError(f"output_padding is {self.output_padding}; only a transposed convolution has one")

    def _check_padding_word(self) -> None:
        if self.transposed:
            raise ValueError(f"padding is {self.padding!r}; a transposed convolution takes numbers, as in torch")
        if self.padding not in ("same", "valid"):
            raise ValueError(f"padding is {self.padding!r}; expected numbers, 'same' or 'valid'")


def as_tuple(name: str, value: Any, dims: int, *, least: int) -> tuple[int, ...]:
    """``3`` -> ``(3, 3)`` for two dimensions; a sequence must have one number per dimension, none below ``least``."""
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * dims
    numbers = tuple(as_whole(number) for number in numbers)
    if None in numbers or len(numbers) != dims or any(number < least for number in numbers):
        raise ValueError(
            f"{name} is {value!r}; expected a whole number of at least {least}, or {dims} of them, one per dimension"
        )
    return numbers


def as_whole(number: Any) -> Any:
    """``number`` as an int of Python (integers of numpy are accepted); None if it is not a whole number."""
    if isinstance(number, torch.SymInt):
        return number
    try:
        return None if isinstance(number, bool) else operator.index(number)
    except TypeError:
        return None


def pad_amounts(geometry: Geometry, space: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) for every dimension, in elements, from numbers, ``"same"`` or ``"valid"``."""
    if geometry.padding == "valid":
        return [(0, 0)] * geometry.dims
    if geometry.padding != "same":
        return [(pad, pad) for pad in geometry.padding]
    amounts = []
    for length, size, stride, dilation in zip(space, kernel, geometry.stride, geometry.dilation, strict=True):
        reach = dilation * (size - 1)
        out = (length + stride - 1) // stride  # no negative numbers: ONNX rounds their quotients towards zero
        total = reach if stride == 1 else torch.sym_max((out - 1) * stride + reach + 1 - length, 0)
        amounts.append((total // 2, total - total // 2))
    return amounts


def pad(x: Tensor, amounts: Sequence[tuple[int, int]], mode: str = "zeros") -> Tensor:
    """Pad the trailing dimensions of ``x``; negative amounts crop (zeros only)."""
    if not any(before or after for before, after in amounts):
        return x
    flat = [amount for pair in reversed(amounts) for amount in pair]
    return F.pad(x, flat, mode="constant" if mode == "zeros" else mode)


def resolve_padding(x: Tensor, kernel: Sequence[int], geometry: Geometry) -> tuple[Tensor, Geometry]:
    """Pad ``x`` here if torch's convolution cannot; strategies then see symmetric numeric zero padding only."""
    if geometry.dims == 0 or (geometry.padding_mode == "zeros" and not isinstance(geometry.padding, str)):
        return x, geometry
    amounts = pad_amounts(geometry, x.shape[2:], kernel)
    if is_exporting() and geometry.padding == "same" and any(stride > 1 for stride in geometry.stride):
        # The amounts follow from the size of the map. To compare them would fix facts of the size that is traced (that
        # it is even, for one) in the graph, which a runtime does not check.
        return _always_padded(x, amounts, geometry.padding_mode), _plain(geometry, (0,) * geometry.dims)
    symmetric = all(before == after for before, after in amounts)
    if symmetric and geometry.padding_mode == "zeros":
        return x, _plain(geometry, tuple(before for before, _ in amounts))
    return pad(x, amounts, geometry.padding_mode), _plain(geometry, (0,) * geometry.dims)


def _always_padded(x: Tensor, amounts: Sequence[tuple[int, int]], mode: str) -> Tensor:
    """As :func:`pad`, for amounts that may be symbols."""
    flat = [amount for pair in reversed(amounts) for amount in pair]
    return F.pad(x, flat, mode="constant" if mode == "zeros" else mode)


def _plain(geometry: Geometry, padding: tuple[int, ...]) -> Geometry:
    return Geometry(
        dims=geometry.dims,
        stride=geometry.stride,
        padding=padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
    )


def output_space(space: Sequence[int], kernel: Sequence[int], geometry: Geometry) -> tuple[int, ...]:
    """Length of every output dimension (the formulas of torch.nn.Conv2d and torch.nn.ConvTranspose2d)."""
    pads = pad_amounts(geometry, space, kernel)
    lengths = []
    for axis, (length, size, (before, after)) in enumerate(zip(space, kernel, pads, strict=True)):
        stride, reach = geometry.stride[axis], geometry.dilation[axis] * (size - 1)
        if geometry.transposed:
            lengths.append((length - 1) * stride - before - after + reach + geometry.output_padding[axis] + 1)
        else:
            lengths.append((length + before + after - reach - 1) // stride + 1)
    return tuple(lengths)
