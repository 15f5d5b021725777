"""Batch norm folded into the convolution before it: which norm can be, and how.

A norm in evaluation mode is a scale and a shift per channel. It can be folded into a convolution if it reads nothing
but that convolution's output, and nothing else reads that output: found by watching one real pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dynaconv.inference.comparison import tensors_in
from dynaconv.kernels.cpu.arguments import RELU, Activation
from dynaconv.layers import DynamicLayer
from dynaconv.torch_private import is_hooked

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)

# Known by name, so that neither library need be installed. The last computes what batch norm does in evaluation mode.
_NORMS = (
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.batchnorm.BatchNorm3d",
    "timm.layers.norm_act.BatchNormAct2d",
    "torchvision.ops.misc.FrozenBatchNorm2d",
)


def why_not_frozen(layer: DynamicLayer) -> str | None:
    """Why a dynamic layer stays as it is in a frozen network, or None."""
    if layer.geometry.transposed:
        return "transposed layers have no frozen form"
    owner = next(kind for kind in type(layer).__mro__ if "forward" in vars(kind))
    if "forward" in layer.__dict__ or not owner.__module__.startswith("dynaconv.layers."):
        return "it has a forward of its own"
    if "weight" not in layer._parameters or "parametrizations" in layer._modules:
        return "its weight is computed from other parameters (weight norm, a parametrization)"
    return None


def can_freeze(module: nn.Module) -> bool:
    """Whether a module is a dynamic layer that has a frozen form."""
    return isinstance(module, DynamicLayer) and why_not_frozen(module) is None


def is_norm(module: nn.Module) -> bool:
    """Whether it normalises by stored statistics, which makes it a scale and a shift per channel.

    A module with hooks is not folded, and neither is one that contains modules with hooks.
    """
    known = f"{type(module).__module__}.{type(module).__qualname__}" in _NORMS
    watched = any(is_hooked(part) for part in module.modules())
    return known and getattr(module, "running_mean", None) is not None and not watched


def is_convolution(module: nn.Module) -> bool:
    """Whether its output is linear in a weight and a bias of its own that a scale and a shift can be folded into."""
    if is_hooked(module):
        return False
    if isinstance(module, DynamicLayer):
        return can_freeze(module)
    plain = "weight" in module._parameters and "parametrizations" not in module._modules
    return plain and isinstance(module, _CONVOLUTIONS) and type(module).__module__.split(".")[0] in ("torch", "timm")


def find_pairs(model: nn.Module, run: Callable[[nn.Module], Any]) -> dict[str, str]:
    """``{norm: convolution}`` for every batch norm whose input is exactly, and only there, a convolution's output.

    ``run(model)`` runs the network once. Every operation of that pass is watched: a convolution whose output is read by
    anything but its norm, or that runs more than once, is left alone; so is a norm that runs more than once.
    """
    watch = _Watch()
    names = {module: name for name, module in model.named_modules()}
    handles = []
    for module in model.modules():
        if is_convolution(module):
            handles.append(module.register_forward_hook(watch.after_convolution))
        elif is_norm(module):
            handles.append(module.register_forward_pre_hook(watch.before_norm))
            handles.append(module.register_forward_hook(watch.after_norm, always_call=True))
    try:
        with torch.no_grad(), watch:
            output = run(model)
    finally:
        for handle in handles:
            handle.remove()
    watch.read(output)
    for module in model.modules():
        watch.read(_kept_in(module))
    return {names[norm]: names[convolution] for norm, convolution in watch.pairs()}


def _kept_in(module: nn.Module) -> list[Any]:
    """What a module may have put aside in its forward: a network that reads features that way must still find them."""
    own = ("_parameters", "_modules", "_forward_hooks", "_forward_pre_hooks")
    return [value for name, value in vars(module).items() if name not in own]


def _channels_come_second(module: Any, output: Tensor) -> bool:
    """Whether a norm takes for channels what the layer calls its output channels (not so without a batch)."""
    dims = len(getattr(module, "kernel_size", ()))
    return output.dim() == dims + 2


class _Watch(TorchFunctionMode):
    """Sees every operation on tensors, and knows which of them are a convolution's output."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []  # alive, so that an id is one tensor for the whole pass
        self.maker: dict[int, nn.Module] = {}
        self.calls: dict[nn.Module, int] = {}
        self.readers: dict[nn.Module, set[nn.Module | None]] = {}
        self.norm: nn.Module | None = None

    def after_convolution(self, module: nn.Module, args: Any, output: Any) -> None:
        self.calls[module] = self.calls.get(module, 0) + 1
        if isinstance(output, Tensor) and _channels_come_second(module, output):
            self.kept.append(output)
            self.maker[id(output)] = module

    def before_norm(self, module: nn.Module, args: Any) -> None:
        self.calls[module] = self.calls.get(module, 0) + 1
        self.norm = module
        self.read(args)

    def after_norm(self, module: nn.Module, args: Any, output: Any) -> None:
        self.norm = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Reading a shape is no use of the values; batch norm asks for it.
        if getattr(func, "__name__", "") != "__get__":
            self.read(args)
            self.read(kwargs)
        return func(*args, **(kwargs or {}))

    def read(self, value: Any) -> None:
        for tensor in tensors_in(value):
            maker = self.maker.get(id(tensor))
            if maker is not None:
                self.readers.setdefault(maker, set()).add(self.norm)

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        found = []
        for convolution, readers in self.readers.items():
            norm = next(iter(readers)) if len(readers) == 1 else None
            if norm is not None and self.calls[convolution] == 1 and self.calls[norm] == 1:
                found.append((norm, convolution))
        return found


class Affine(NamedTuple):
    """``y * scale + shift`` per output channel; both ``(out,)`` in float64."""

    scale: Tensor
    shift: Tensor


def affine_of(norm: Any) -> Affine:
    """``scale = weight / sqrt(var + eps)``, ``shift = bias - mean * scale``."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    return Affine(scale, shift if norm.bias is None else shift + norm.bias.detach().double())


def after_norm(norm: nn.Module) -> nn.Module:
    """What remains of a norm once it is folded: its activation, where it carries one."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def activation_of(module: nn.Module) -> Activation | None:
    """A module that a frozen layer can do itself, as the layer takes it; None for any other."""
    if type(module) is nn.ReLU:
        return RELU
    if isinstance(module, nn.Hardtanh) and type(module) in (nn.ReLU6, nn.Hardtanh):
        return Activation(low=float(module.min_val), high=float(module.max_val))
    return {nn.SiLU: Activation("silu"), nn.Hardswish: Activation("hardswish")}.get(type(module))


def fold_static(convolution: Any, affine: Affine) -> None:
    """Scale the kernel and shift the bias of an ordinary layer in place."""
    weight = convolution.weight.detach().double()
    scaled = weight * along_output(affine.scale, weight, convolution)
    bias = 0.0 if convolution.bias is None else convolution.bias.detach().double() * affine.scale
    dtype, training = convolution.weight.dtype, convolution.weight.requires_grad
    convolution.weight = nn.Parameter(scaled.to(dtype), requires_grad=training)
    convolution.bias = nn.Parameter((bias + affine.shift).to(dtype), requires_grad=training)


def along_output(values: Tensor, kernels: Tensor, convolution: Any, leading: int = 0) -> Tensor:
    """``values`` ``(out,)`` shaped to multiply ``kernels``, which have ``leading`` dimensions before the kernel's own.

    The output channels are a kernel's first dimension; a transposed convolution's are its second, group by group.
    """
    if not getattr(convolution, "transposed", False):
        return values.reshape(-1, *(1,) * (kernels.dim() - leading - 1))
    groups, taps = convolution.groups, kernels.dim() - leading - 2
    inputs = kernels.shape[leading]
    per_input = values.reshape(groups, 1, -1).expand(groups, inputs // groups, -1)
    return per_input.reshape(inputs, -1, *(1,) * taps)


def unit(out: int, device: torch.device) -> Affine:
    """The affine map that changes nothing."""
    return Affine(
        torch.ones(out, dtype=torch.float64, device=device), torch.zeros(out, dtype=torch.float64, device=device)
    )
