"""What the counter runs: a copy of the model without its numbers, on an input of the given size."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from dynaconv.torch_private import FakeTensor, FakeTensorMode


def shadow_mode() -> FakeTensorMode:
    """Return the mode under which shadow tensors live and operations compute shapes alone."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def shadow_model(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Return a copy of ``model`` in evaluation mode whose tensors have shapes and no storage.

    All tensors of the copy stand on one pretended device, so a model built on the meta device or spread over several
    devices can be counted too. The model itself is not touched.

    Raises:
        TypeError: the model is no ``nn.Module``, is scripted, or cannot be copied.
        ValueError: the model has parameters whose shape is not known yet.
    """
    model = _unwrapped(model)
    _check(model)
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(shadow_tensor(parameter, mode), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    try:
        with _ShadowsInsteadOfCopies(mode):
            shadow = copy.deepcopy(model, memo)
    except Exception as error:
        raise TypeError(
            f"{type(model).__name__} cannot be copied ({error}), and the cost is counted on a copy. "
            "Remove what cannot be copied from the model, or give the module a __deepcopy__."
        ) from error
    return shadow.eval()


def shadow_tensor(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """Return a tensor of the same shape, strides and dtype without values.

    A single number keeps its value where it has one: models read such buffers (a temperature, a flag) to decide.
    """
    if tensor.numel() == 1 and tensor.device.type != "meta":
        value = tensor.detach().tolist()
        with mode:
            return torch.tensor(value, dtype=tensor.dtype, device="cpu")
    # Made directly: as an operation under the mode, a model's thousand tensors take as long as its forward pass.
    without = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return FakeTensor(mode, without, torch.device("cpu"))


def shadow_inputs(inputs: Any, mode: FakeTensorMode) -> Any:
    """Return ``inputs`` with every tensor in its tuples, lists and dictionaries replaced by its shadow."""
    if isinstance(inputs, Tensor):
        return shadow_tensor(inputs, mode)
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(shadow_inputs(item, mode) for item in inputs)
    if isinstance(inputs, dict):
        return {key: shadow_inputs(item, mode) for key, item in inputs.items()}
    return inputs


class _ShadowsInsteadOfCopies(TorchFunctionMode):
    """While active, ``copy.deepcopy`` of a tensor returns its shadow, wherever in the model the tensor hides."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self._mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = shadow_tensor(tensor, self._mode)
        return memo[id(tensor)]


def _unwrapped(model: nn.Module) -> nn.Module:
    """Look inside ``torch.compile`` and data-parallel wrappers, which compute nothing of their own."""
    compiled = getattr(model, "_orig_mod", None)
    if isinstance(compiled, nn.Module):
        return _unwrapped(compiled)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _unwrapped(model.module)
    return model


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}: expected a torch.nn.Module.")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{name or 'the model'} is scripted ({type(module).__name__}), and what a scripted module does cannot "
                "be counted by layer. Give the original nn.Module."
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(
                f"parameter {name} has no shape yet (a lazy module). Run the model once on real input first."
            )


def check_input_size(input_size: Any) -> tuple[int, ...]:
    """Return ``input_size`` as a tuple of positive integers ``(C, *space)``, or say what is wrong with it.

    Raises:
        TypeError: not a sequence of integers.
        ValueError: empty, or an entry below 1.
    """
    hint = "expected the size of one example without the batch, such as (3, 224, 224)"
    if isinstance(input_size, str):
        raise TypeError(f"input_size is the text {input_size!r}: {hint}; parse_input_size({input_size!r}) reads text.")
    if not isinstance(input_size, Sequence) or not all(type(entry) is int for entry in input_size):
        raise TypeError(f"input_size is {input_size!r}: {hint}.")
    if not input_size or min(input_size) < 1:
        raise ValueError(f"input_size is {tuple(input_size)!r}: every entry must be at least 1; {hint}.")
    return tuple(input_size)


def parse_input_size(text: str) -> tuple[int, ...]:
    """Read the size of one example, ``CxHxW`` (or ``CxL``, ``CxDxHxW``); commas do as well as ``x``.

    Raises:
        ValueError: the text is no such size.

    >>> parse_input_size("3x224x224")
    (3, 224, 224)
    """
    parts = [part.strip() for part in re.split(r"[xX\u00d7,]", text.strip().strip("()[]"))]
    if not all(re.fullmatch(r"[0-9]+", part) for part in parts):
        raise ValueError(
            f"input size {text!r}: expected whole numbers joined by x, such as 3x224x224 (channels first)."
        )
    if len(parts) == 1 and parts != ["0"]:
        raise ValueError(
            f"input size {text!r}: the channels are missing. For a square RGB image write 3x{parts[0]}x{parts[0]}."
        )
    if "0" in {part.lstrip("0") or "0" for part in parts}:
        raise ValueError(f"input size {text!r}: every number must be at least 1, such as 3x224x224.")
    return tuple(int(part) for part in parts)
