"""How a layer tells the counter its own cost in closed form.

A dynamic layer runs by one of several strategies (grouped convolution, batched matrix products, K branches), which
perform different operations for the same result. The cost of the *method* does not depend on the strategy. So such a
layer has a method :meth:`Counted.count`, and the counter uses its result in place of the operations that it sees.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn


@dataclass(frozen=True, kw_only=True)
class LayerCount:
    """The multiply-adds of one dynamic layer, for one forward call.

    ``W`` is the number of weights of one expert kernel, ``Cin / groups * Cout * k * k``; ``K`` the number of experts.

    Attributes:
        kernel: multiply-adds of the one ordinary layer that the mixed kernel makes: ``W`` times the output positions
            (``Hout * Wout``; for a transposed convolution the *input* positions, since each input position meets each
            weight once; for a linear layer the rows).
        mixing: multiply-adds of ``sum_k routing[k] * bank[k]``, per example ``K * W``. Not ``(K - 1) * W``: the first
            expert is scaled as well.
        experts: ``K``.
        kernel_weights: ``W``.
        bias_mixing: multiply-adds of mixing the per-expert biases, per example ``K * Cout``; 0 without a bias. It is
            reported but in no rule's total, because neither paper counts it: in CondConv only the classifier has a
            bias; the dynamic-convolution paper names the term ``K * Cout``, which is small beside ``K * W``.
    """

    kernel: int
    mixing: int
    experts: int
    kernel_weights: int
    bias_mixing: int = 0


@runtime_checkable
class Counted(Protocol):
    """A module that knows its own cost.

    While it runs, the counter ignores every operation that the module performs itself (not those of modules inside it,
    such as its router) and asks :meth:`count` instead. The two parameter names are part of the protocol: an unrelated
    ``count`` of some other module is not mistaken for it.
    """

    def count(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> LayerCount:
        """Return the cost of one call that maps ``input_shape`` to ``output_shape``, both with the batch dimension."""
        ...


def layer_count(
    kernel_shape: Sequence[int],
    experts: int,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    *,
    dims: int,
    transposed: bool = False,
    bias: bool = False,
) -> LayerCount:
    """Return the :class:`LayerCount` of a dynamic convolution or linear layer.

    Args:
        kernel_shape: shape of one expert, as in the torch twin: ``(Cout, Cin / groups, *k)``, transposed
            ``(Cin, Cout / groups, *k)``, linear ``(out, in)``.
        experts: K.
        input_shape: ``(B, Cin, *space)``, linear ``(B, *rows, in)``; B may be absent, as torch's layers allow.
        output_shape: ``(B, Cout, *space)``, linear ``(B, *rows, out)``.
        dims: 1, 2 or 3 for a convolution, 0 for a linear layer.
        transposed: whether the convolution is transposed.
        bias: whether every expert has a bias.

    >>> layer_count((32, 16, 3, 3), 4, (1, 16, 8, 8), (1, 32, 8, 8), dims=2)
    LayerCount(kernel=294912, mixing=18432, experts=4, kernel_weights=4608, bias_mixing=0)
    """
    if len(output_shape) == dims + 1:  # one example without a batch
        input_shape, output_shape = (1, *input_shape), (1, *output_shape)
    batch = output_shape[0]
    weights = math.prod(kernel_shape)
    if dims == 0:
        positions, out = math.prod(output_shape[1:-1]), output_shape[-1]
    else:
        positions, out = math.prod((input_shape if transposed else output_shape)[2:]), output_shape[1]
    return LayerCount(
        kernel=batch * positions * weights,
        mixing=batch * experts * weights,
        experts=experts,
        kernel_weights=weights,
        bias_mixing=batch * experts * out if bias else 0,
    )


def is_counted(module: nn.Module) -> bool:
    """Whether ``module`` follows :class:`Counted`, judged by the names of the parameters of its ``count``."""
    method = getattr(type(module), "count", None)
    return callable(method) and list(inspect.signature(method).parameters)[1:] == ["input_shape", "output_shape"]
