"""Which module is running: operations are attributed to the innermost one, routers apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from dynaconv.counting.elementary import BIAS
from dynaconv.counting.ledger import Ledger
from dynaconv.counting.memory import LiveMemory, tensors_in
from dynaconv.counting.protocol import Counted, LayerCount, is_counted


@dataclass(kw_only=True)
class _Frame:
    """A running module: where its operations are written, and how."""

    module: nn.Module
    own: Ledger
    target: Ledger
    routing: bool
    states_its_cost: bool
    dynamic_layer: Ledger | None


@dataclass
class ModuleStack:
    """The modules that are running now, outermost first, kept by hooks on every module of a model.

    A router's work, and that of everything inside it, goes to the routing column of the dynamic layer that runs it, or
    of the outermost router itself when no dynamic layer does (a router that a scope shares).
    """

    model: nn.Module
    memory: LiveMemory
    ledgers: dict[nn.Module, Ledger] = field(default_factory=dict)
    _order: list[Ledger] = field(default_factory=list)
    _frames: list[_Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, module in self.model.named_modules():
            self.ledgers[module] = Ledger(name=name, kind=type(module).__name__)
            module.register_forward_pre_hook(self._enter, prepend=True)
            module.register_forward_hook(self._leave, with_kwargs=True)

    @property
    def running(self) -> str:
        """The innermost running module, in words for a message."""
        if not self._frames or not self._frames[-1].own.name:
            return f"the model itself ({type(self.model).__name__})"
        return f"{self._frames[-1].own.name} ({self._frames[-1].own.kind})"

    @property
    def states_its_cost(self) -> bool:
        """Whether the innermost module is one whose operations are ignored, since it states its own cost."""
        return bool(self._frames) and self._frames[-1].states_its_cost

    @property
    def routing(self) -> bool:
        """Whether a router is running."""
        return bool(self._frames) and self._frames[-1].routing

    def add(self, madds: int, elementary: tuple[str, float] | None) -> None:
        """Write down one operation of the innermost module: its multiply-adds, and the elementary operations in it."""
        target = self._frames[-1].target if self._frames else self.ledgers[self.model]
        if self.routing:
            target.routing += madds
        else:
            target.kernel += madds
        if elementary:
            target.tally(*elementary, routing=self.routing)

    def in_order_of_running(self) -> tuple[Ledger, ...]:
        """Answer the ledgers of the modules that ran, in that order, then those of the others."""
        return (*self._order, *(ledger for ledger in self.ledgers.values() if not ledger.calls))

    def _enter(self, module: nn.Module, args: Any) -> None:
        own, outer = self.ledgers[module], self._frames[-1] if self._frames else None
        states_its_cost = is_counted(module)
        dynamic_layer = own if states_its_cost else (outer.dynamic_layer if outer else None)
        routing, target = False, own
        if outer and outer.routing:
            routing, target = True, outer.target
        elif getattr(module, "is_router", False):
            routing, target = True, dynamic_layer or own
        frame = _Frame(
            module=module,
            own=own,
            target=target,
            routing=routing,
            states_its_cost=states_its_cost,
            dynamic_layer=dynamic_layer,
        )
        self._frames.append(frame)
        if not own.calls:
            self._order.append(own)
        own.calls += 1

    def _leave(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        while self._frames[-1].module is not module:  # a forward that caught an exception of a module inside it
            self._frames.pop()
        frame = self._frames.pop()
        first = next(tensors_in(output), None)
        if first is not None and frame.own.output_shape is None:
            frame.own.output_shape = tuple(first.shape)
        if is_counted(module):
            self._add_stated(frame, cast(Counted, module), args, kwargs, output)

    def _add_stated(self, frame: _Frame, module: Counted, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        given, made = next(tensors_in([args, kwargs])), next(tensors_in(output))
        count = module.count(tuple(given.shape), tuple(made.shape))
        if not isinstance(count, LayerCount):
            raise TypeError(f"{frame.own.name}.count answered {count!r}: expected a dynaconv.cost.LayerCount.")
        mixed_kernel = count.mixing // max(count.experts, 1) * made.element_size()
        self.memory.hold(output, transient=mixed_kernel)
        if count.bias_mixing:
            frame.target.tally(BIAS, made.numel(), routing=frame.routing)
        if frame.routing:
            frame.target.routing += count.kernel + count.mixing
            return
        frame.own.experts = count.experts
        frame.own.kernel += count.kernel
        frame.own.mixing += count.mixing
        frame.own.bias_mixing += count.bias_mixing
