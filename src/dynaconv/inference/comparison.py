"""The difference between the outputs of two networks."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.torch_private import tree_leaves

_LEAVES = (str, bytes, int, float, complex, bool, type, nn.Module, types.ModuleType, types.FunctionType, type(None))


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor that a value holds: in containers, in those known to torch, in attributes of any object.

    Modules and functions are not looked into: what they hold is no output.
    """
    found: list[Tensor] = []
    kept: dict[int, Any] = {}  # seen, and alive, so that an id is one object

    def walk(item: Any) -> None:
        if isinstance(item, Tensor):
            found.append(item)
        elif not isinstance(item, _LEAVES) and id(item) not in kept:
            kept[id(item)] = item
            for part in _parts(item):
                walk(part)

    walk(value)
    return found


def _parts(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, (list, tuple, set, frozenset)):
        return list(item)
    leaves = tree_leaves(item)
    if len(leaves) != 1 or leaves[0] is not item:
        return leaves
    slots = [name for kind in type(item).__mro__ for name in _slots(kind)]
    return [*getattr(item, "__dict__", {}).values(), *(getattr(item, name, None) for name in slots)]


def _slots(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)


@dataclass(frozen=True)
class Difference:
    """The difference between two outputs.

    Attributes:
        error: the largest difference of two numbers, relative to the largest finite number of their tensor; infinite
            where one is finite and the other is not, or where shapes or the number of tensors differ.
        top1_agreement: share of the examples whose largest output is the same one; None unless the output is one
            tensor ``(B, classes)``.
        where: the tensor with the largest error, by its number and shape.
    """

    error: float
    top1_agreement: float | None
    where: str


def compare(expected: Any, actual: Any) -> Difference:
    """Compare every tensor of numbers that two outputs hold.

    Tensors of whole numbers (class indices, masks) are compared only where there are no others: rounding may turn the
    order of two equal scores.

    Raises:
        ValueError: there is nothing to compare.
    """
    wanted, had = _numbers(expected), _numbers(actual)
    if not any(bool(tensor.isfinite().any()) for tensor in wanted):
        raise ValueError(
            f"nothing could be compared: the network's output, {type(expected).__name__}, holds no tensor with a "
            "finite number in it; give examples on which it computes some, or wrap the network to return tensors"
        )
    if len(wanted) != len(had):
        return Difference(math.inf, None, f"{len(had)} tensors instead of {len(wanted)}")
    errors = [_error(want, have) for want, have in zip(wanted, had, strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__)
    where = f"tensor {worst + 1} of {len(errors)}, of shape {tuple(wanted[worst].shape)}"
    return Difference(errors[worst], _agreement(wanted, had), where)


def _numbers(output: Any) -> list[Tensor]:
    found = [tensor.detach() for tensor in tensors_in(output)]
    floating = [tensor for tensor in found if tensor.is_floating_point() or tensor.is_complex()]
    chosen = [tensor.to_dense() if tensor.layout != torch.strided else tensor for tensor in floating or found]
    return [tensor.to(torch.complex128 if tensor.is_complex() else torch.float64) for tensor in chosen]


def _error(want: Tensor, have: Tensor) -> float:
    if want.shape != have.shape:
        return math.inf
    finite = want.isfinite()
    unlike = ~finite & ~((want == have) | (want.isnan() & have.isnan()))
    if bool((finite & ~have.isfinite()).any()) or bool(unlike.any()):
        return math.inf
    want, have = want[finite], have[finite]
    if not want.numel():
        return 0.0
    largest = want.abs().max().item()
    difference = (have - want).abs().max().item()
    return float(difference / largest if largest else difference)


def _agreement(wanted: list[Tensor], had: list[Tensor]) -> float | None:
    if len(wanted) != 1 or wanted[0].dim() != 2 or wanted[0].shape[1] < 2 or wanted[0].is_complex():
        return None
    if wanted[0].shape != had[0].shape:
        return None
    return float((wanted[0].argmax(1) == had[0].argmax(1)).double().mean().item())
