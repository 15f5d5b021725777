"""The two papers' routers: pooled input, one or two linear layers, sigmoid or softmax, expert dropout."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.errors import suggest
from dynaconv.routing.temperature import check_temperature
from dynaconv.routing.tracing import as_node, is_traced


class Router(nn.Module):
    """Base of routers: ``(B, C, *space) -> (B, K)`` routing weights.

    Your own router is a subclass (or any ``nn.Module``) with a ``forward`` of that shape::

        class Even(Router):
            def forward(self, x):
                return x.new_full((x.shape[0], self.experts), 1 / self.experts)

    Pass it to a layer as a class, or as an instance: ``DynamicConv2d(8, 16, 3, router=Even)``.

    Args:
        in_channels: C, channels of the input.
        experts: K, at least 1.
    """

    is_router = True

    def __init__(self, in_channels: int, experts: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels is {in_channels!r}; expected at least 1")
        check_experts(experts)
        self.in_channels = in_channels
        self.experts = experts

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, experts={self.experts}"


class PooledRouter(Router):
    """GAP, an optional hidden ReLU layer, a linear layer to K logits; a subclass turns logits into routing weights.

    Formula: ``logits = fc(relu(hidden(GAP(x))))`` or ``fc(GAP(x))``. Runs in float32 (float64 for float64 input), also
    under autocast and for half-precision parameters; no batch norm, so a batch of one trains.

    Args:
        in_channels, experts: C and K.
        hidden: width of the hidden layer, or None for none.
        bias: whether the linear layers have biases.
        expert_dropout: probability with which an expert is dropped for an example in training.
        previous_experts: number of routing weights of an earlier scope that are fed in beside the pooled input (the
            Hierarchical routing of Yang et al. 2019, Table 3); 0 for none.

    Shapes:
        input ``(B, C, *space)``, optional ``previous`` ``(B, previous_experts)``; output ``(B, K)``.
    """

    def __init__(
        self,
        in_channels: int,
        experts: int,
        *,
        hidden: int | None = None,
        bias: bool = True,
        expert_dropout: float = 0.0,
        previous_experts: int = 0,
    ) -> None:
        super().__init__(in_channels, experts)
        if hidden is not None and hidden < 1:
            raise ValueError(f"hidden is {hidden!r}; expected a width of at least 1, or None for no hidden layer")
        if not 0.0 <= expert_dropout < 1.0:
            raise ValueError(f"expert_dropout is {expert_dropout!r}; expected a probability in [0, 1)")
        if previous_experts < 0:
            raise ValueError(f"previous_experts is {previous_experts!r}; expected at least 0 (0 for none)")
        self.expert_dropout = expert_dropout
        self.previous_experts = previous_experts
        width = in_channels + previous_experts
        self.hidden = None if hidden is None else nn.Linear(width, hidden, bias=bias)
        self.fc = nn.Linear(width if hidden is None else hidden, experts, bias=bias)

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        if is_traced(x, previous):
            node: Tensor = as_node(self, x, previous)
            return node
        with _without_autocast(x):
            routing = self.weigh(self.logits(self._features(x, previous)))
            if self.training and self.expert_dropout:
                routing = drop_experts(routing, self.expert_dropout, keep_sum=self.sums_to_one)
            return routing

    def _features(self, x: Tensor, previous: Tensor | None) -> Tensor:
        if x.dim() < 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"router got input of shape {tuple(x.shape)}; expected (batch, {self.in_channels}, *space)"
            )
        pooled = global_average_pool(x)
        if not self.previous_experts:
            return pooled
        if previous is None or previous.shape[-1] != self.previous_experts:
            came = "none" if previous is None else f"shape {tuple(previous.shape)}"
            raise ValueError(
                f"router expects {self.previous_experts} routing weights of the scope before it and got {came}; "
                "set its scope's `after`, or pass `previous`"
            )
        return torch.cat([pooled, previous.to(pooled.dtype)], dim=1)

    def logits(self, features: Tensor) -> Tensor:
        """``(B, features) -> (B, K)``"""
        if self.hidden is not None:
            features = F.relu(_linear(self.hidden, features))
        return _linear(self.fc, features)

    sums_to_one = False

    def weigh(self, logits: Tensor) -> Tensor:
        """``(B, K)`` logits to ``(B, K)`` routing weights."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        if self.expert_dropout:
            parts.append(f"expert_dropout={self.expert_dropout}")
        if self.previous_experts:
            parts.append(f"previous_experts={self.previous_experts}")
        return ", ".join(parts)


class SigmoidRouter(PooledRouter):
    """CondConv's router: ``routing = sigmoid(GAP(x) R + b)`` (Yang et al. 2019, section 3).

    Every expert is weighed on its own: routing weights lie in (0, 1) and need not sum to one. With ``hidden`` it is the
    paper's Hidden row, with ``previous_experts`` its Hierarchical row (Table 3).

    Deviation: the paper's formula has no bias; the official code and timm have one, and so has this.
    """

    def weigh(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)


class SoftmaxRouter(PooledRouter):
    """Dynamic Convolution's router: ``routing = softmax(z / temperature)`` (Chen et al. 2020, eq. 3 and figure 3).

    ``z = fc(relu(hidden(GAP(x))))``; the hidden layer squeezes C to ``max(1, C // reduction)``. The temperature is a
    buffer: saved with the model, restored, and right at evaluation. Biases are off by default: the paper's parameter
    counts exclude them.

    Args:
        in_channels, experts: C and K.
        temperature: the divisor of the logits, above 0; 30 at the start of the paper's training, annealed to 1.
        reduction: how far the hidden layer squeezes the channels.
        hidden: width of the hidden layer instead of ``C // reduction``; 0 for no hidden layer (with ``temperature=1``
            and ``bias=True`` the Softmax row of Yang et al. 2019, Table 3).
        bias, expert_dropout, previous_experts: see :class:`PooledRouter`. Experts that are dropped leave their share to
            the others: the sum stays one.
    """

    temperature: Tensor
    sums_to_one = True

    def __init__(
        self,
        in_channels: int,
        experts: int,
        *,
        temperature: float = 30.0,
        reduction: int = 4,
        hidden: int | None = None,
        bias: bool = False,
        expert_dropout: float = 0.0,
        previous_experts: int = 0,
    ) -> None:
        if reduction < 1:
            raise ValueError(f"reduction is {reduction!r}; expected at least 1")
        width = max(1, in_channels // reduction) if hidden is None else hidden or None
        super().__init__(
            in_channels,
            experts,
            hidden=width,
            bias=bias,
            expert_dropout=expert_dropout,
            previous_experts=previous_experts,
        )
        self.register_buffer("temperature", torch.tensor(check_temperature(temperature)))

    def weigh(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits / self.temperature.to(logits.dtype), dim=1)


ROUTERS: dict[str, type[PooledRouter]] = {"sigmoid": SigmoidRouter, "softmax": SoftmaxRouter}
"""The routers that ``router="..."`` names."""


def find_router(name: str) -> type[PooledRouter]:
    """The router of that name; ValueError names the nearest known one."""
    if name not in ROUTERS:
        raise ValueError(f"router is {name!r}. {suggest(name, ROUTERS)}")
    return ROUTERS[name]


def check_experts(experts: int) -> None:
    """Raise ValueError unless ``experts`` is a whole number of at least 1."""
    if not isinstance(experts, int) or isinstance(experts, bool) or experts < 1:
        raise ValueError(f"experts is {experts!r}; expected a whole number of at least 1")


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)`` in the dtype of ``x``, whatever precision the parameters are stored in."""
    if layer.weight.dtype == x.dtype:
        return layer(x)
    return F.linear(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Autocast is off in routers: a rounding of a routing weight changes a whole kernel, and routers cost little."""
    device = x.device.type
    # torch 2.11 cannot compile `torch.amp.is_autocast_available`; of the devices in use, only meta has no autocast.
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def global_average_pool(x: Tensor) -> Tensor:
    """``(B, C, *space) -> (B, C)``, the mean over space, in float32 or better; ``(B, C)`` stays as it is."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.dim() == 2:
        return x.to(wide)
    space = tuple(range(2, x.dim()))
    if not torch.is_grad_enabled():
        return x.mean(dim=space, dtype=wide)  # one operation, and counted as the mean that the papers count
    # The backward pass of a mean writes a map of the input's size; that of a sum only repeats a number per channel.
    return x.sum(dim=space, dtype=wide) / math.prod(x.shape[2:])


def drop_experts(routing: Tensor, probability: float, *, keep_sum: bool) -> Tensor:
    """Drop every expert of every example with ``probability``, and scale up the weights of the others.

    Args:
        routing: ``(B, K)`` routing weights.
        probability: of dropping one expert, in [0, 1).
        keep_sum: True scales an example's surviving weights so that their sum stays what it was (for routers whose
            weights sum to one); False divides them by the probability that an expert is kept, as dropout does: the
            expectation of every weight stays what it was.

    Source: Yang et al. 2019, section 4.1, "randomly dropping out experts during training", for their ResNets. The paper
    gives neither formula nor rate; this is our interpretation. An example that would lose all experts keeps them all,
    because its output would be zero otherwise. So an expert is kept with probability
    ``1 - probability + probability ** K``.
    """
    keep = torch.rand_like(routing) >= probability
    all_dropped = ~keep.any(dim=1, keepdim=True)
    kept = torch.where(keep | all_dropped, routing, 0.0)
    if keep_sum:
        tiny = torch.finfo(routing.dtype).tiny
        return kept * (routing.sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp_min(tiny))
    return kept / (1.0 - probability + probability ** routing.shape[1])
