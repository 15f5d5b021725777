"""One evaluation: the task's metrics over all processes, and the entropy of the routers.

The routers are observed in the first batches of every evaluation; training steps are not slowed down.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.data import Batches
from dynaconv.routing import ScopedRouter
from dynaconv.tasks.task import Task

log = logging.getLogger(__name__)

WATCHED_BATCHES = 4
LOW_ENTROPY = 0.1  # of log K
NEARLY_ALL = 0.95  # of the examples
SHOWN = 3  # collapsed routers that are named


@dataclass
class Seen:
    """Sums over examples of what one router has returned."""

    entropy: Tensor
    favourites: Tensor  # (K,) how often each expert had the largest weight
    examples: int = 0


class RoutingWatch:
    """Gathers the entropy of every router's weights; warns of the layers whose routing has collapsed."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._handles: list[Any] = []
        self._compiled: tuple[nn.Module, Any] | None = None

    @contextmanager
    def over(self, model: nn.Module) -> Iterator[None]:
        """Context in which the routers of ``model`` are observed; :meth:`stop` ends it earlier."""
        self._seen = {}
        # With hooks a compiled graph would be compiled again; these few batches run uncompiled instead.
        self._compiled = (model, model._compiled_call_impl)
        model._compiled_call_impl = None
        for name, module in model.named_modules():
            # the layers of a scope only return the routing of their block, whose router is observed
            if getattr(module, "is_router", False) and not isinstance(module, ScopedRouter):
                self._handles.append(module.register_forward_hook(self._hook(name)))
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._compiled is not None:
            model, compiled = self._compiled
            model._compiled_call_impl = compiled
            self._compiled = None

    def entropies(self) -> dict[str, float]:
        """Mean entropy by router as a share of log K; the log gets a warning that names the collapsed ones."""
        entropies, collapsed = {}, []
        for name, seen in self._seen.items():
            entropy = float(seen.entropy) / seen.examples
            share, expert = (float(value) for value in (seen.favourites / seen.examples).max(dim=0))
            if entropy < LOW_ENTROPY and share > NEARLY_ALL:
                collapsed.append(
                    f"{name} (expert {int(expert)} for {share:.0%} of the examples, entropy {entropy:.3f})"
                )
            entropies[name] = entropy
        if collapsed:
            more = f" and {len(collapsed) - SHOWN} more" if len(collapsed) > SHOWN else ""
            log.warning(
                "routing has collapsed in %d of %d routers: %s%s. A higher temperature for longer, a lower learning "
                "rate, or expert dropout may help.",
                *(len(collapsed), len(entropies), ", ".join(collapsed[:SHOWN]), more),
            )
        return entropies

    def _hook(self, name: str) -> Any:
        def note(_module: nn.Module, _arguments: Any, routing: Tensor) -> None:
            if routing.dim() != 2 or routing.shape[1] < 2 or not len(routing):
                return
            share = routing.detach().float()
            share = share / share.sum(dim=1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
            entropy = torch.special.entr(share).sum() / math.log(routing.shape[1])
            favourites = share.argmax(dim=1).bincount(minlength=routing.shape[1])
            seen = self._seen.setdefault(name, Seen(torch.zeros_like(entropy), torch.zeros_like(favourites)))
            seen.entropy += entropy
            seen.favourites += favourites
            seen.examples += len(routing)

        return note


def evaluate(
    model: nn.Module,
    batches: Batches,
    task: Task,
    accelerator: Any,
    after_batch: Callable[[int, int], None] = lambda batch, batches: None,
) -> dict[str, float]:
    """Metrics of ``model`` over ``batches``; every example counts once for any number of processes."""
    metrics = task.metrics(accelerator.device)
    training = model.training
    model.eval()
    iterator = iter(batches)
    rounds = batches.rounds
    try:
        with torch.no_grad(), accelerator.autocast():
            for done in range(rounds):
                batch = next(iterator, None)  # a process may have a batch less than others
                if batch is not None:
                    metrics.update(model, batch)
                after_batch(done + 1, rounds)
            return metrics.compute()
    finally:
        model.train(training)
