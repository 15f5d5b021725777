"""The counter: runs a copy of the model without values once, and counts the cost of every operation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dynaconv.counting.dry_run import (
    called,
    check_input_size,
    device_of,
    float_type,
    has_numbers,
    real_inputs,
    real_model,
    shadow_inputs,
    shadow_mode,
    shadow_model,
)
from dynaconv.counting.formulas import formula_of, is_free
from dynaconv.counting.modules import LiveMemory, ModuleStack, tensors_in
from dynaconv.counting.report import CostReport, count_parameters, rows
from dynaconv.counting.rules import Rule, elementary, rule_named
from dynaconv.torch_private import OpOverload, TorchDispatchMode


class UncountedOperationError(ValueError):
    """The model performs an operation for which the counter has no rule."""


def cost(
    model: nn.Module, input_size: Sequence[int] = (3, 224, 224), *, rule: str = "madds", inputs: Any = None
) -> CostReport:
    """Count what one forward pass of one example costs: MAdds, parameters, activation memory.

    The model is copied without values, and the copy runs once in evaluation mode. The copy takes no memory, and the
    model does not change (mode, buffers, hooks, device). A model that needs values (the value of a buffer becomes a
    shape) runs with them, on two random inputs, which must cost the same. The cost of every operation follows from a
    formula over its shapes and is added to the innermost module that performed it. Dynamic layers state their own cost,
    which is that of the method and not of the strategy (:class:`dynaconv.cost.Counted`): the mixed convolution under
    ``kernel``, the mixing of the experts under ``mixing``. Routers are counted by their operations, under ``routing``.

    **MAdds.** A multiply-add counts as one: ``Hout * Wout * Cin / groups * Cout * k * k`` for a convolution,
    ``n * m * p`` for a matrix product, ``L * S * (E + V)`` per head of attention. Bias, normalisation, activation,
    pooling and addition count zero under the rule ``"madds"``; ``"tf"`` and ``"dy"`` are the rules of the CondConv and
    the dynamic-convolution paper (:mod:`dynaconv.counting.rules`).

    **Peak activation memory.** The largest number of bytes that are alive at one time in storages of the forward pass:
    the input is included, parameters and buffers are not. A storage lives until nothing refers to it, as in inference
    with PyTorch: a residual lives until it is added, the input of a module while the module runs; views and in-place
    results need no memory. Workspaces inside kernels and the rounding of the allocator are not included. If the model
    calls ``scaled_dot_product_attention``, attention counts as in PyTorch's fused kernels, without the matrix of
    scores. While a dynamic layer runs, its temporaries count as one mixed kernel, independent of its strategy.

    Args:
        model: any ``nn.Module``.
        input_size: size of one example without the batch, ``(C, *space)``; its type is that of the model's parameters.
        rule: ``"madds"``, ``"tf"`` or ``"dy"``.
        inputs: instead of ``input_size``, for models that take something else: a tensor, a tuple of positional
            arguments or a dictionary of keyword arguments, with the batch dimension. Meta tensors will do.

    Returns:
        A :class:`CostReport`; ``print`` it for a table. Its ``under(rule)`` counts the same run by another rule.

    Raises:
        UncountedOperationError: an operation has no rule (a ValueError; names the operation and the module).
        ValueError: unknown rule, a bad input size, an input that the model does not take, a cost that depends on the
            values of the input.
        TypeError: ``model`` is no module, is scripted or cannot be copied.

    >>> report = cost(nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10))
    >>> report.total, report.parameters.total
    (21600, 224)
    """
    chosen = rule_named(rule)  # before the work: an unknown rule is an error at once
    mode = shadow_mode()
    shadow = shadow_model(model, mode)
    if inputs is None:
        inputs = torch.empty((1, *check_input_size(input_size)), dtype=float_type(shadow), device="meta")
    given = shadow_inputs(inputs, mode)
    try:
        return _counted(shadow, given, chosen, mode)
    except _FailedError as failed:
        if not has_numbers(model):
            raise ValueError(f"{failed}\n{_EXPECTED}") from failed.error
        return _counted_on_numbers(model, inputs, chosen)


_EXPECTED = (
    "Expected the size of one example without the batch, such as (3, 224, 224), or `inputs=` for a model that takes "
    "something else. A model whose shapes depend on the values in its tensors (detection with its post-processing, for "
    "one) cannot be counted as a whole on a made-up input: count the part before, or give `inputs=` real tensors."
)


class _DependsOnValuesError(Exception):
    """An operation whose result has a shape that depends on values."""


class _FailedError(Exception):
    """The model raised an error in its forward pass; the text says in which module, and on which shapes."""

    def __init__(self, shapes: tuple[tuple[int, ...], ...], running: str, error: Exception) -> None:
        shown = ", ".join(map(str, shapes)) or "none"
        if isinstance(error, _DependsOnValuesError):
            text = f"the cost of the model depends on the values in its input of shape {shown}: in {running}: {error}"
        else:
            text = f"the model does not run on input of shape {shown}: in {running}: {type(error).__name__}: {error}"
        super().__init__(text)
        self.error = error


def _counted_on_numbers(model: nn.Module, inputs: Any, rule: Rule) -> CostReport:
    """Count a model that does not run without values, such as one whose buffers' values become shapes.

    The count must not depend on the values of the input: the model runs on two random inputs, whose counts must agree.
    """
    made_up = any(tensor.is_meta for tensor in tensors_in(inputs))
    reports = []
    for seed in (0, 1) if made_up else (0,):
        copied = real_model(model)
        try:
            with torch.random.fork_rng(devices=[]):
                given = real_inputs(inputs, device_of(copied), seed)
                reports.append(_counted(copied, given, rule, nullcontext(), only_fixed_shapes=made_up))
        except _FailedError as failed:
            raise ValueError(f"{failed}\n{_EXPECTED}") from failed.error
    if reports[0].ledgers != reports[-1].ledgers:
        raise ValueError(
            f"what {type(model).__name__} computes depends on the values of its input: two made-up ones cost "
            f"{reports[0].total:g} and {reports[-1].total:g}.\n{_EXPECTED}"
        )
    return reports[0]


def _counted(
    copied: nn.Module, given: Any, rule: Rule, mode: AbstractContextManager[Any], *, only_fixed_shapes: bool = False
) -> CostReport:
    memory = LiveMemory(copied)
    memory.hold(given)
    stack = ModuleStack(copied, memory)
    shapes = tuple(tuple(tensor.shape) for tensor in tensors_in(given))
    counter = _Counter(stack, memory, only_fixed_shapes)
    with torch.inference_mode(False), torch.no_grad(), mode, _PlainAttention(), counter:
        try:
            called(copied, given)
        except UncountedOperationError:
            raise
        except Exception as error:
            raise _FailedError(shapes, stack.running, error) from error
    parameters = count_parameters(copied, stack.ledgers)
    ledgers = stack.in_order_of_running()
    return CostReport(
        model=type(copied).__name__,
        rule=rule.name,
        input_shapes=shapes,
        layers=rows(ledgers, rule),
        parameters=parameters,
        peak_activation_bytes=memory.peak,
        ledgers=ledgers,
    )


class _Counter(TorchDispatchMode):
    """Dispatch mode that counts every operation before it is computed."""

    def __init__(self, stack: ModuleStack, memory: LiveMemory, only_fixed_shapes: bool) -> None:
        super().__init__()
        self._stack, self._memory, self._only_fixed_shapes = stack, memory, only_fixed_shapes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._only_fixed_shapes and _has_free_shape(func, args):
            raise _DependsOnValuesError(f"the shape of what {func._schema.name} returns depends on values")
        if self._stack.states_its_cost:
            return func(*args, **kwargs)
        formula = formula_of(func)
        if formula is None and not is_free(func):
            return self._in_parts(func, args, kwargs)
        result = func(*args, **kwargs)
        madds = formula(args, kwargs, result) if formula else 0
        self._stack.add(madds, elementary(func, args, result))
        self._memory.hold(result)
        return result

    def _in_parts(self, func: OpOverload, args: Any, kwargs: Any) -> Any:
        """Count an operation by its decomposition, if PyTorch defines one."""
        with self:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in([args, kwargs]))
        raise UncountedOperationError(
            f"no rule counts the operation {func._schema.name} (on tensors of shape {shapes or 'none'}) "
            f"in {self._stack.running}. Say what it costs: "
            f"`from dynaconv.counting import register_rule; register_rule({func._schema.name!r}, "
            "lambda args, kwargs, result: <multiply-adds>)`."
        )


class _PlainAttention(TorchFunctionMode):
    """A mode that does nothing. While it is active, ``nn.MultiheadAttention`` does not use its fused inference kernel,
    which hides the matrix products in one operation without a shape function."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _has_free_shape(func: OpOverload, args: Any) -> bool:
    """Whether the shape of the result depends on values, not on shapes alone."""
    if func.overloadpacket is torch.ops.aten.index:  # tagged so for every index; only a mask makes it true
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return torch.Tag.dynamic_output_shape in func.tags
