"""What all dynamic layers share: a bank, per-expert biases, a router, and one line of forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dynaconv.counting import LayerCount, layer_count
from dynaconv.ops import Geometry, Plan, check_choice, mix, plan_of
from dynaconv.routing import ScopedRouter, SigmoidRouter, SoftmaxRouter, as_node, check_experts, find_router

if TYPE_CHECKING:
    from typing_extensions import Self
from dataclasses import replace

from dynaconv.ops.geometry import as_whole

RouterFactory = Callable[[int, int], nn.Module]


class DynamicLayer(nn.Module):
    """Base of dynamic layers: ``y[b] = layer(x[b]; sum_k routing[b, k] * weight[k])``, ``routing = router(x)``.

    Attributes:
        weight: the bank, ``(K, *kernel of the torch twin)``.
        bias: ``(K, out)`` or None; mixed by the same routing weights as the kernels (Chen et al. 2020, eq. 1).
        router: ``(B, C, *space) -> (B, K)``.
        experts: K.
        strategy: ``"auto"`` or the name of one strategy, see :mod:`dynaconv.ops`.
        geometry: stride, padding ... in one object.
    """

    default_experts: ClassVar[int] = 4
    default_router: ClassVar[RouterFactory] = SoftmaxRouter

    weight: nn.Parameter
    bias: nn.Parameter | None
    router: nn.Module

    def _build(
        self,
        kernel_shape: tuple[int, ...],
        in_features: int,
        out_features: int,
        geometry: Geometry,
        *,
        bias: bool,
        experts: int | None,
        router: nn.Module | RouterFactory | str | None,
        strategy: str,
        device: Any,
        dtype: Any,
    ) -> None:
        """Validate the arguments and create the parameters. Called once, at the end of a subclass's ``__init__``."""
        self.experts = self.default_experts if experts is None else experts
        check_experts(self.experts)
        check_choice(strategy)
        self.strategy = strategy
        self.geometry = geometry
        self.weight = nn.Parameter(torch.empty(self.experts, *kernel_shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(self.experts, out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.router = self._router(router, in_features, device, dtype)
        self.reset_parameters()

    def _router(
        self, router: nn.Module | RouterFactory | str | None, in_features: int, device: Any, dtype: Any
    ) -> nn.Module:
        if isinstance(router, nn.Module):
            known = getattr(router, "experts", self.experts)
            if known != self.experts:
                raise ValueError(
                    f"router returns {known} routing weights and the layer has {self.experts} experts; make both equal"
                )
            return router
        if isinstance(router, str):
            router = find_router(router)
        factory = type(self).default_router if router is None else router
        if not callable(factory):
            raise TypeError(
                f'router is {router!r}; expected a module, "sigmoid" or "softmax", or a callable '
                "(in_channels, experts) -> module such as dynaconv.SoftmaxRouter"
            )
        with torch.device(device) if device is not None else torch.device(torch.get_default_device()):
            made = factory(in_features, self.experts)
        if not isinstance(made, nn.Module):
            raise TypeError(f"router factory returned {type(made).__name__}; expected a torch.nn.Module")
        return made if dtype is None else made.to(dtype=dtype)

    def reset_parameters(self) -> None:
        """Initialise every expert as torch initialises the ordinary layer; the router is not changed.

        torch's initialisers would compute a wrong fan-in for the bank as a whole: it has one dimension more than a
        kernel.
        """
        for expert in range(self.experts):
            kernel = self.weight[expert]
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
            if self.bias is not None:
                fan_in = nn.init._calculate_fan_in_and_fan_out(kernel)[0]
                bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
                nn.init.uniform_(self.bias[expert], -bound, bound)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and cast the bank as a matrix, one row per expert.

        ``model.to(memory_format=torch.channels_last)`` treats every 5d tensor as a volume and fails on a bank. The
        bank must stay contiguous anyway, because the experts are mixed by one matrix product.
        """
        if recurse:
            for child in self.children():
                child._apply(fn)

        def as_matrix(tensor: Tensor) -> Tensor:
            return fn(tensor.flatten(1)).unflatten(1, tensor.shape[1:]) if tensor.dim() > 2 else fn(tensor)

        return super()._apply(as_matrix, recurse=False)

    def _mix(self, x: Tensor, routing: Tensor | None, geometry: Geometry | None = None) -> Tensor:
        if routing is None:
            routing = self.router(self._router_view(x))
        return mix(x, self.mixed_bank(), routing, self.bias, geometry=geometry or self.geometry, strategy=self.strategy)

    def mixed_bank(self) -> Tensor:
        """``(K, *kernel)``, the experts as they are mixed: the weight itself, or what a subclass makes of it."""
        return self.weight

    def _as_node(self, x: Tensor, routing: Tensor | None, *between: Any) -> Tensor:
        """This call as one node of the graph that torch.fx is tracing.

        Routing weights that a scope shares come from outside the layer, so in the graph they become its argument.
        """
        if routing is None and isinstance(self.router, ScopedRouter):
            routing = self.router(x)
        node: Tensor = as_node(self, x, *between, routing)
        return node

    def _router_view(self, x: Tensor) -> Tensor:
        """The input as the router reads it, ``(B, C, *space)``."""
        return x

    def plan(self, x: Tensor) -> Plan:
        """Which strategy would run ``x``, why, and why not the others."""
        x = x.unsqueeze(0) if self.geometry.dims and x.dim() == self.geometry.dims + 1 else x
        routing = x.new_empty(x.shape[0], self.experts).requires_grad_(self.weight.requires_grad)
        return plan_of(x, self.weight, routing, geometry=self.geometry, strategy=self.strategy)

    def count(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> LayerCount:
        """Cost of one call, independent of the strategy; see :class:`dynaconv.cost.Counted`."""
        return layer_count(
            tuple(self.weight.shape[1:]),
            self.experts,
            input_shape,
            output_shape,
            dims=self.geometry.dims,
            transposed=self.geometry.transposed,
            bias=self.bias is not None,
        )

    def _repr_tail(self) -> str:
        tail = f", experts={self.experts}"
        return tail if self.strategy == "auto" else f"{tail}, strategy={self.strategy!r}"


class CondConvDefaults:
    """Mixin: the defaults of CondConv (Yang et al. 2019): 8 experts, sigmoid router."""

    default_experts: ClassVar[int] = 8
    default_router: ClassVar[RouterFactory] = SigmoidRouter


class Option:
    """An attribute such as ``layer.stride``: reading it reads the layer's geometry, assigning it changes the geometry.

    User code changes torch layers after construction (``conv.stride = (1, 1)`` for a denser output). A plain attribute
    beside the geometry would accept the assignment without any effect.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else getattr(layer.geometry, self.name)

    def __set__(self, layer: Any, value: Any) -> None:
        layer.geometry = replace(layer.geometry, **{self.name: value})


def check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    """Raise ValueError unless both are positive and ``groups`` divides them."""
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if as_whole(value) is None or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
        if value % groups:
            raise ValueError(f"{name} is {value}, which groups={groups} does not divide")
