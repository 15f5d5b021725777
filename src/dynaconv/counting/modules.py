"""The records of a run: the operations and calls of each module, and the activations that are alive.

Operations belong to the innermost module that is running, except those of routers (see :class:`ModuleStack`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from dynaconv.counting.protocol import Counted, LayerCount, is_counted
from dynaconv.counting.rules import BIAS


@dataclass(kw_only=True)
class Ledger:
    """Counts of one row of the report; see :class:`dynaconv.cost.LayerCost` for those of the same name.

    ``routing`` holds multiply-adds only. Elementary operations are kept by kind, because rules weigh them differently.
    """

    name: str
    kind: str
    calls: int = 0
    output_shape: tuple[int, ...] | None = None
    parameters: int = 0
    experts: int | None = None
    kernel: int = 0
    mixing: int = 0
    routing: int = 0
    bias_mixing: int = 0
    elementary: Counter[str] = field(default_factory=Counter)
    elementary_in_router: Counter[str] = field(default_factory=Counter)

    def tally(self, kind: str, number: float, *, routing: bool) -> None:
        """Add elementary operations of one kind."""
        (self.elementary_in_router if routing else self.elementary)[kind] += int(number)


class LiveMemory:
    """Bytes of the activations alive now, and the most there were at once.

    An activation is a storage that a tensor of the forward pass points to and that belongs to no parameter or buffer.
    It lives from the operation that makes it until nothing refers to it, exactly as in PyTorch's allocators: views and
    in-place results add nothing, the input of a module lives while the module runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        weights = [*model.parameters(), *model.buffers()]
        # The storages themselves and not only their addresses: the address of a freed storage may be used again.
        self._weights = {ref.cdata: ref for ref in (StorageWeakRef(weight.untyped_storage()) for weight in weights)}

    def hold(self, made: Any, *, transient: int = 0) -> None:
        """Record the tensors in ``made``; ``transient`` bytes are alive now and freed right after."""
        for tensor in tensors_in(made):
            storage = tensor.untyped_storage()
            ref = StorageWeakRef(storage)
            if ref.cdata not in self._weights:
                self._live[ref.cdata] = (ref, storage.nbytes())
        self._live = {key: (ref, size) for key, (ref, size) in self._live.items() if not ref.expired()}
        self.peak = max(self.peak, transient + sum(size for _, size in self._live.values()))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


@dataclass(kw_only=True)
class _Frame:
    """A running module: the ledger for its operations, and how they count."""

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
        """Record one operation of the innermost module: its multiply-adds, and the elementary operations in it."""
        target = self._frames[-1].target if self._frames else self.ledgers[self.model]
        if self.routing:
            target.routing += madds
        else:
            target.kernel += madds
        if elementary:
            target.tally(*elementary, routing=self.routing)

    def in_order_of_running(self) -> tuple[Ledger, ...]:
        """Return the ledgers of the modules that ran, in that order, then those of the others."""
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
            raise TypeError(f"{frame.own.name}.count returned {count!r}: expected a dynaconv.cost.LayerCount.")
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
