"""Convert one ordinary layer into a dynamic layer that at first computes the same."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv import layers
from dynaconv.routing import SigmoidRouter

# A layer of one of the classes below. Typed as Any: no common base class declares kernel_size, weight, in_features ...
Ordinary = Any

_TWINS: dict[str, str] = {
    "torch.nn.modules.conv.Conv1d": "Conv1d",
    "torch.nn.modules.conv.Conv2d": "Conv2d",
    "torch.nn.modules.conv.Conv3d": "Conv3d",
    "torch.nn.modules.conv.ConvTranspose1d": "ConvTranspose1d",
    "torch.nn.modules.conv.ConvTranspose2d": "ConvTranspose2d",
    "torch.nn.modules.conv.ConvTranspose3d": "ConvTranspose3d",
    "torch.nn.modules.linear.Linear": "Linear",
    # nn.Linear but for a cast under TorchScript.
    "timm.layers.linear.Linear": "Linear",
    # TensorFlow's SAME padding; known by name, so that timm need not be installed.
    "timm.layers.conv2d_same.Conv2dSame": "Conv2d",
    # Weight standardisation, with a learnt gain or without.
    "timm.layers.std_conv.StdConv2d": "StdConv2d",
    "timm.layers.std_conv.StdConv2dSame": "StdConv2d",
    "timm.layers.std_conv.ScaledStdConv2d": "StdConv2d",
    "timm.layers.std_conv.ScaledStdConv2dSame": "StdConv2d",
}

_SAME = "timm.layers.conv2d_same.Conv2dSame"

# Methods that a subclass must not override if it is to count as the same layer.
_METHODS = ("__call__", "forward", "_conv_forward", "_output_padding", "__getattr__", "__getattribute__")


def qualified_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def twin_of(module: nn.Module) -> str | None:
    """The name of the torch layer that a module is equivalent to, or None if it has no exact dynamic twin.

    A subclass of a torch layer counts as that layer if it changes neither the forward pass nor where the weight comes
    from (for example, it only sets constructor arguments). This does not hold for torch's own subclasses, which all
    compute something else.
    """
    kind = type(module)
    if qualified_name(kind) in _TWINS:
        return _TWINS[qualified_name(kind)]
    base = next(
        (one for one in kind.__mro__ if one.__module__.startswith("torch.") and issubclass(one, nn.Module)), None
    )
    if base is None or kind.__module__.startswith("torch.") or "weight" not in module._parameters:
        return None
    changed = any(getattr(kind, name, None) is not getattr(base, name, None) for name in _METHODS)
    own_values = set(module._parameters) - {"weight", "bias"} or module._buffers or module._modules
    return None if changed or own_values else _TWINS.get(qualified_name(base))


def make_bank(kernels: Sequence[Tensor], experts: int, noise: float) -> Tensor:
    """The bank ``(K, *kernel)``.

    One kernel is copied K times, each copy plus normal noise with ``noise`` times the kernel's root mean square as its
    standard deviation. The noise sums to zero over the experts, so that the mean of the experts is the kernel itself:
    under even routing the layer computes exactly what it computed before. K kernels (donors) are stacked as they are.
    """
    if len(kernels) > 1:
        return torch.stack([kernel.detach().clone() for kernel in kernels])
    kernel = kernels[0].detach()
    bank = kernel.expand(experts, *kernel.shape).clone()
    if noise > 0 and experts > 1:
        deviation = torch.randn_like(bank)
        deviation -= deviation.mean(dim=0)
        deviation *= (experts / (experts - 1)) ** 0.5  # centring reduces the variance by 1/K
        bank += noise * kernel.square().mean().sqrt() * deviation
    return bank


def convert(
    module: Ordinary,
    *,
    method: str,
    experts: int,
    router: nn.Module | Callable[[int, int], nn.Module],
    donors: Sequence[Ordinary],
    noise: float,
) -> layers.DynamicLayer:
    """The dynamic twin of ``module``, starting from its weights (and its donors' weights, one expert each).

    Args:
        method: ``"dynamic"`` or ``"condconv"``, the family of the class.
        router: the layer's router, or what makes it from (in_channels, experts).
        donors: K - 1 layers like it, whose weights become experts 2 to K; none for copies with ``noise``.

    Raises:
        ValueError: there is no dynamic layer for this class.
    """
    twin = twin_of(module)
    if twin is None:
        raise ValueError(f"a {type(module).__name__} cannot become dynamic: it has no dynamic twin")
    kind = getattr(layers, f"{'Dynamic' if method == 'dynamic' else 'Cond'}{twin}")
    weight, bias = module.weight, module.bias
    if not isinstance(router, nn.Module):
        with torch.device(weight.device):
            router = router(getattr(module, "in_channels", None) or module.in_features, experts).to(dtype=weight.dtype)
    made: layers.DynamicLayer = kind(
        *_torch_arguments(module),
        bias=bias is not None,
        experts=experts,
        router=router,
        device="meta",  # no initialisation: the weights are replaced below
        **_torch_keywords(module),
    )
    sources = [module, *donors]
    made.weight = nn.Parameter(
        make_bank([source.weight for source in sources], experts, noise), requires_grad=weight.requires_grad
    )
    if bias is not None:
        made.bias = nn.Parameter(
            make_bank([source.bias for source in sources], experts, 0.0), requires_grad=bias.requires_grad
        )
    if getattr(made, "gain", None) is not None:
        gains = make_bank([source.gain for source in sources], experts, 0.0)
        made.gain = nn.Parameter(gains, requires_grad=module.gain.requires_grad)
    _keep_attributes(module, made)
    return made.train(module.training)


# Attributes that torch's constructors set for their own forward only.
_OF_TORCH = {"_reversed_padding_repeated_twice", "_is_full_backward_hook", "_non_persistent_buffers_set"}


def _keep_attributes(module: nn.Module, made: nn.Module) -> None:
    """Copy attributes that other code has set on the layer (YOLO's ``layer.f``, ``_is_hf_initialized``) to its twin."""
    for name, value in vars(module).items():
        if name not in _OF_TORCH and not hasattr(made, name):
            made.__dict__[name] = value


def _torch_arguments(module: Ordinary) -> tuple[int, ...]:
    if isinstance(module, nn.Linear):
        return (module.in_features, module.out_features)
    return (module.in_channels, module.out_channels, copy.copy(module.kernel_size))


def _torch_keywords(module: Ordinary) -> dict[str, object]:
    if isinstance(module, nn.Linear):
        return {}
    same = qualified_name(type(module)) == _SAME or getattr(module, "same_pad", False)
    keywords: dict[str, object] = {
        "stride": module.stride,
        "padding": "same" if same else module.padding,
        "dilation": module.dilation,
        "groups": module.groups,
        "padding_mode": "zeros" if same else module.padding_mode,
    }
    if twin_of(module) == "StdConv2d":
        keywords |= {"eps": module.eps, "scale": module.scale if "gain" in module._parameters else None}
    if module.transposed:
        keywords["output_padding"] = module.output_padding
    return keywords


def normalise_start(router: nn.Module) -> bool:
    """Make a sigmoid router return ``1 / K`` to every input at first; return whether its weights sum to one.

    The last layer's weights become zero and its bias ``logit(1 / K)``: the sum is one whatever the input, and the
    gradients still differ between experts and between inputs. With a single expert the sigmoid cannot reach 1, but
    with a bias of 20 it is 1 in float32. Softmax routers sum to one anyway and are not changed.
    """
    if getattr(router, "sums_to_one", False):
        return True
    if not isinstance(router, SigmoidRouter) or router.fc.bias is None:
        return False
    experts = router.experts
    bias = 20.0 if experts == 1 else -math.log(experts - 1)
    with torch.no_grad():
        router.fc.weight.zero_()
        router.fc.bias.fill_(bias)
    return True
