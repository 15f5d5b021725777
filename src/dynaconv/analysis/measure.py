"""Time and memory of networks, measured together with their static twin."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.counting.modules import LiveMemory, tensors_in
from dynaconv.errors import UserError
from dynaconv.inference import freeze
from dynaconv.tasks.task import Batch, Task, TaskData, cloned
from dynaconv.timing import clock_of, interleave, quartiles, ratios
from dynaconv.torch_private import TorchDispatchMode
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.optimizer import build_optimizer
from dynaconv.train.settings import LoopSettings

log = logging.getLogger(__name__)

WARM_UP = 2
ROUNDS = 40
MOST_SECONDS = 5.0  # after which no further round begins, if there have been FEWEST
FEWEST = 5


@dataclass(frozen=True)
class Timing:
    """Interleaved timings of one network.

    Attributes:
        seconds: ``ratio`` times the median over the rounds of the first network, so that both agree.
        ratio: median over the rounds of this network's time divided by the first network's in the same round.
        rounds: how many there were.
        ratio_quartiles: first and third quartile of those ratios.
    """

    seconds: float
    ratio: float
    rounds: int
    ratio_quartiles: tuple[float, float]


@dataclass(frozen=True)
class Measurement:
    """One network.

    Attributes:
        step: a training step at the comparison's batch size, loading left out.
        latency: one example through the network as it is served: :func:`dynaconv.freeze`, which folds batch
            norms of static networks too.
        step_bytes: peak memory of a training step (see :func:`peak_step_bytes`).
        frozen: False where one of the networks cannot be frozen; then ``latency`` is of all as they are.
    """

    step: Timing
    latency: Timing
    step_bytes: int
    frozen: bool = True


def measure(
    networks: Sequence[nn.Module],
    data: TaskData,
    settings: LoopSettings,
    tell: Callable[[str], None] = lambda what: None,
) -> list[Measurement]:
    """Measure all networks on the first training batch; ratios are relative to the first one.

    Timings are paired: every round runs each network once, one after the other, so that disturbances by other
    processes affect all networks. The ratio is the median over rounds of the ratio within a round.
    """
    accelerator = make_accelerator(settings)
    device = accelerator.device
    batches = data.training_batches(settings, device=device)
    batch = next(iter(batches))
    batches.close()
    task = data.task(settings, min(data.batch_size, data.train_size))
    tell("memory of a training step")
    steps = [_Step(network, task, batch, settings, accelerator) for network in networks]
    one = task.inputs(task.split(batch, task.size(batch))[0])
    served, frozen = as_served(networks, one)  # before the steps: they go over one batch again, and may diverge
    memory = [peak_step_bytes(step, device) for step in steps]
    tell("time of a training step")
    training = time_in_turns(steps, device, clock_of(device))
    tell("latency")
    passes = [_Pass(network, one, nullcontext if frozen else accelerator.autocast) for network in served]
    latency = time_in_turns(passes, device, clock_of(device))
    return [Measurement(*parts, frozen) for parts in zip(training, latency, memory, strict=True)]


def as_served(networks: Sequence[nn.Module], inputs: Tensor | Sequence[Tensor]) -> tuple[Sequence[nn.Module], bool]:
    """Frozen copies of all networks, or, where one cannot be frozen, all as they are, and False.

    Args:
        inputs: what the networks take; images, as one tensor or one by one.
    """
    examples = inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))
    try:
        return [freeze(network, examples=examples) for network in networks], True
    except (ValueError, RuntimeError) as error:
        log.warning("prices are measured without freezing: %s", error)
        return networks, False


def time_in_turns(
    actions: Sequence[Callable[[], object]], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> list[Timing]:
    """Time the actions in turns; the ratios are to the first one."""
    times = interleave(
        actions, rounds=ROUNDS, warmup=WARM_UP, device=device, clock=clock, seconds=MOST_SECONDS, fewest=FEWEST
    )
    first = statistics.median(times[0]) / 1000
    timings = []
    for own in times:
        to_first = ratios(own, times[0])
        ratio = statistics.median(to_first)
        timings.append(Timing(first * ratio, ratio, len(own), quartiles(to_first)))
    return timings


def peak_step_bytes(step: _Step, device: torch.device) -> int:
    """Peak memory of a training step in bytes: weights, gradients, optimizer state, activations kept for backward.

    On CUDA the allocator's ``max_memory_allocated`` over the second step, minus the memory of other networks. On the
    CPU, where PyTorch's allocator has no statistics: parameters, buffers, the batch, and the storages of all tensors
    that are alive at the same time during two real steps (forward, backward, optimizer). Workspaces inside kernels (a
    packed bank) and the rounding of the allocator are not included.

    Raises:
        UserError: the GPU's memory does not suffice.
    """
    with _blame_memory(step):
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device) - _bytes([*step.network.parameters(), *step.network.buffers()])
            step()
            torch.cuda.reset_peak_memory_stats(device)
            step()
            return torch.cuda.max_memory_allocated(device) - before + _bytes(step.batch)
        live = LiveMemory(step.network)
        live.hold(step.batch)
        with _Watch(live):
            step()
            step()
    return live.peak + _bytes([*step.network.parameters(), *step.network.buffers()])


class _Watch(TorchDispatchMode):
    """Reports every tensor that an operation makes to :class:`LiveMemory`."""

    sees_operators = True  # layers must run as they do when nobody looks

    def __init__(self, live: LiveMemory) -> None:
        super().__init__()
        self._live = live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._live.hold(result)
        return result


class _Step:
    """A training step on one batch, as the loop does it."""

    def __init__(self, network: nn.Module, task: Task, batch: Batch, settings: LoopSettings, accelerator: Any) -> None:
        network.to(accelerator.device)
        network.to(memory_format=_format(settings))
        self.network = network.train()
        self.batch, self.task, self._accelerator = batch, task, accelerator
        self._optimizer = build_optimizer(self.network, settings)
        self._parts = settings.accumulate

    def __call__(self) -> None:
        self.network.train()
        # mixup mixes in place
        for part in self.task.split(self.task.prepare(cloned(self.batch)), self._parts):
            with self._accelerator.autocast():
                loss = self.task.loss(self.network, part) / self._parts
            loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


class _Pass:
    """A forward pass in evaluation mode, in the context in which such a network runs.

    Args:
        context: makes it: ``dynaconv serve`` runs frozen networks in their own precision, evaluation others in that of
            the training. Under autocast a frozen layer could not run in one call.
    """

    def __init__(self, network: nn.Module, inputs: Any, context: Callable[[], AbstractContextManager[Any]]) -> None:
        self._network, self._inputs, self._context = network.eval(), inputs, context

    def __call__(self) -> None:
        with torch.no_grad(), self._context():
            self._network(self._inputs)


class _blame_memory:  # noqa: N801 - a context manager used like a function
    def __init__(self, step: _Step) -> None:
        self._size = step.task.size(step.batch)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise UserError(
                f"A training step with {self._size} images does not fit into the device's memory. Lower --batch-size, "
                "or cut the batch with --set accumulate=4."
            ) from error


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors_in(list(tensors)))


def _format(settings: LoopSettings) -> torch.memory_format:
    return torch.channels_last if settings.channels_last else torch.contiguous_format
