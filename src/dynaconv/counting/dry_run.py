"""The copy of the model that the counter runs, with or without values, and its input of the given size."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
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

    All tensors of the copy are on one fake device, so a model on the meta device or on several devices can be counted
    too. The model itself does not change.

    Raises:
        TypeError: the model is no ``nn.Module``, is scripted, or cannot be copied.
        ValueError: the model has parameters whose shape is not known yet.
    """
    return _copy_of(model, lambda tensor: shadow_tensor(tensor, mode))


def real_model(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` in evaluation mode with its values: parameters share their memory with the model's.

    For models that need values (a buffer's value becomes a shape), which a shadow does not have. Buffers and other
    tensors are copied, so that a forward pass does not change the model.

    Raises:
        As :func:`shadow_model`.
    """
    return _copy_of(model, lambda tensor: tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.clone())


def has_numbers(model: nn.Module) -> bool:
    """Whether no parameter or buffer is on the meta device."""
    return not any(tensor.is_meta for tensor in tensors_of(model))


def independent_copy(model: nn.Module) -> nn.Module:
    """Return ``copy.deepcopy(model)``, also of a model that keeps tensors which were computed with gradients.

    torch refuses to copy those (an old-style weight norm keeps its weight after a forward pass); the copy has their
    values without the graph.
    """

    with torch.no_grad(), _OwnCopies(lambda tensor: None if tensor.is_leaf else tensor.detach().clone()):
        return copy.deepcopy(model)


def _copy_of(model: nn.Module, copied: Callable[[Tensor], Tensor]) -> nn.Module:
    model = _unwrapped(model)
    _check(model)
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(copied(parameter), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    try:
        with torch.no_grad(), _OwnCopies(copied):
            twin = copy.deepcopy(model, memo)
    except Exception as error:
        raise TypeError(
            f"{type(model).__name__} cannot be copied ({error}), and the cost is counted on a copy. "
            "Remove what cannot be copied from the model, or give the module a __deepcopy__."
        ) from error
    return twin.eval()


def shadow_tensor(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """Return a tensor of the same shape, strides and dtype without values.

    A tensor of one element keeps its value if it has one: models branch on such buffers (a temperature, a flag).
    """
    if tensor.numel() == 1 and tensor.device.type != "meta":
        value = tensor.detach().tolist()
        with mode:
            return torch.tensor(value, dtype=tensor.dtype, device="cpu")
    # Constructed directly: as operations under the mode, a thousand tensors would take as long as the forward pass.
    without = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return FakeTensor(mode, without, torch.device("cpu"))


def shadow_inputs(inputs: Any, mode: FakeTensorMode) -> Any:
    """Return ``inputs`` with every tensor in its tuples, lists and dictionaries replaced by its shadow."""
    return _mapped(inputs, lambda tensor: shadow_tensor(tensor, mode))


def real_inputs(inputs: Any, device: torch.device, seed: int) -> Any:
    """Return ``inputs`` with every tensor on ``device``, with numbers: its own, or for meta tensors drawn by ``seed``.

    Floating-point numbers are drawn from [0, 1) (even seeds) or from a normal distribution (odd seeds), whole numbers
    are 0, which every embedding has.
    """
    generator = torch.Generator().manual_seed(seed)

    def with_numbers(tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor.detach().to(device)
        if not tensor.is_floating_point():
            return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
        draw = torch.randn if seed % 2 else torch.rand
        drawn = draw(tensor.shape, generator=generator, dtype=torch.float32, device="cpu")
        return drawn.to(device=device, dtype=tensor.dtype)

    return _mapped(inputs, with_numbers)


def called(model: nn.Module, inputs: Any) -> Any:
    """Call ``model`` with ``inputs``: one tensor, a tuple of arguments, or a dictionary of keyword arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*(inputs if isinstance(inputs, (tuple, list)) else (inputs,)))


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Every parameter and buffer."""
    yield from model.parameters()
    yield from model.buffers()


def float_type(model: nn.Module) -> torch.dtype:
    """Return the type of the model's floating-point tensors, which its input has too."""
    return next((tensor.dtype for tensor in tensors_of(model) if tensor.is_floating_point()), torch.float32)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first tensor."""
    return next((tensor.device for tensor in tensors_of(model)), torch.device("cpu"))


def _mapped(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(_mapped(item, change) for item in inputs)
    if isinstance(inputs, dict):
        return {key: _mapped(item, change) for key, item in inputs.items()}
    return inputs


class _OwnCopies(TorchFunctionMode):
    """While this mode is active, ``copy.deepcopy`` of any tensor returns ``copied(tensor)``.

    torch's deepcopy refuses tensors that were computed, such as the weight that an old-style weight norm keeps. It is
    used where ``copied`` returns None.
    """

    def __init__(self, copied: Callable[[Tensor], Tensor | None]) -> None:
        super().__init__()
        self._copied = copied

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            made = self._copied(tensor)
            memo[id(tensor)] = func(tensor, memo) if made is None else made
        return memo[id(tensor)]


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``torch.compile`` and data-parallel wrappers, which compute nothing themselves."""
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
