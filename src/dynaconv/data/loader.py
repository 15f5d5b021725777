"""Loaders: worker processes, batches, and checks that the workers are alive."""

from __future__ import annotations

import atexit
import itertools
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from dynaconv.data.decoding import BadImages
from dynaconv.data.examples import Examples, Loaded
from dynaconv.data.sampling import Draw, EvaluationBatches, TrainBatches
from dynaconv.errors import RunError
from dynaconv.torch_private import loader_workers, shut_down_workers, unwatch_workers

LOOK = 5.0  # seconds between looks at whether the workers live
TICKS = 8  # of an alarm until a time limit is over
GRACE = 30  # seconds that a worker goes on after SIGTERM, for its parent to finish the step

_open: weakref.WeakSet[Batches] = weakref.WeakSet()


class Batches:
    """Iterate over the batches of one split, each on ``device``.

    The task defines what a batch is: ``collate`` makes it from examples in a worker; ``to_device`` moves it and does
    work that is faster on the device, such as normalising pixels.

    Args:
        examples: the split.
        batches: which examples form which batch.
        bad_images: what happens to unreadable images.
        collate: from a list of examples (never empty) to a batch of tensors in nested lists, tuples or dictionaries.
        to_device: from that batch to the one that the task's loss and metrics take.
        workers: loader processes; 0 loads in this process. The batches are the same.
        timeout: seconds without a batch after which workers count as hung. Without workers, a picture that is being
            read then is a bad one (in the main thread alone, and where nobody else has set an alarm).
    """

    def __init__(
        self,
        examples: Examples,
        batches: TrainBatches | EvaluationBatches,
        bad_images: BadImages,
        *,
        collate: Callable[[list[Any]], Any],
        to_device: Callable[[Any, torch.device], Any],
        workers: int = 0,
        timeout: float = 120.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batches, self.bad_images = batches, bad_images
        self.device = torch.device(device)
        self._timeout, self._to_device = timeout, to_device
        pin = self.device.type == "cuda"
        self._loader = _data_loader(examples, batches, _Collate(collate), workers, min(timeout, LOOK), pin=pin)
        _open.add(self)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch, bad in self._loaded():
            self.bad_images.report(bad)
            if batch is not None:
                yield self._to_device(batch, self.device)
            elif isinstance(self.batches, TrainBatches):
                raise RunError("A training batch had no readable image, nor had 100 others drawn in their place.")

    def _loaded(self) -> Iterator[Any]:
        """The batches of the workers; checks now and then that the workers are alive.

        Waits are counted in looks, not by the clock: a process that was suspended (Ctrl-Z, a debugger) has not waited.
        """
        iterator = iter(self._loader)
        unwatch_workers(iterator)
        waited = 0.0
        while True:
            try:
                with _time_limit(self._timeout) if not self._loader.num_workers else nullcontext():
                    batch = next(iterator)
            except StopIteration:
                return
            except TimeoutError as error:
                raise RunError(f"The loader gave no batch for {self._timeout:.0f} s. Is the disk there?") from error
            except (RuntimeError, ConnectionError, EOFError) as error:
                hung = str(error).startswith("DataLoader timed out")
                if hung:
                    waited += self._loader.timeout
                    if waited < self._timeout:
                        continue
                if isinstance(error, RuntimeError) and not hung and not str(error).startswith("DataLoader worker (pid"):
                    raise
                what = f"gave no batch for {self._timeout:.0f} s" if hung else f"died ({str(error).strip()})"
                raise RunError(
                    f"A loader worker {what}. Fewer --workers or more memory may help; --workers 0 shows the cause."
                ) from error
            yield batch
            waited = 0.0

    @property
    def rounds(self) -> int:
        """Evaluation batches of the process that has most of them."""
        if not isinstance(self.batches, EvaluationBatches):
            raise TypeError("rounds is for evaluation; all processes have the same number of training batches")
        return self.batches.rounds

    @property
    def size(self) -> int:
        """Examples of the split, over all processes."""
        return self.batches.size

    @property
    def whole(self) -> int:
        """Examples of a whole batch, over all processes."""
        return self.batches.whole

    def worker_ids(self) -> list[int]:
        """Process ids of the workers at work."""
        return loader_workers(self._loader)

    def close(self) -> None:
        """End the worker processes; iterating again starts new ones."""
        shut_down_workers(self._loader)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch of the next iteration, and the batch with which it begins. Training only."""
        if not isinstance(self.batches, TrainBatches):
            raise TypeError("set_epoch is for training; evaluation has one order")
        self.batches.epoch, self.batches.first = epoch, first_batch


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in whatever blocks for longer, again and again.

    The alarm ticks, and ticks are counted: while a process is suspended, at most one of them waits for it.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield  # the alarm is not ours
        return

    ticks = itertools.count(1)

    def ring(*_: object) -> None:
        if next(ticks) % TICKS == 0:
            raise TimeoutError(f"it could not be read within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds / TICKS, seconds / TICKS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _data_loader(
    examples: Examples, batches: Sampler[list[Draw]], collate: _Collate, workers: int, timeout: float, *, pin: bool
) -> DataLoader[Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: so it was asked
        return DataLoader(
            examples,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            timeout=timeout if workers else 0,
            worker_init_fn=_leave_signals_to_the_parent,
            persistent_workers=workers > 0,
            # A new iterator draws a seed. It gets its own generator, so that the run's random numbers do not change.
            generator=torch.Generator(),
        )


class _Collate:
    """Applies the task's collate function to the examples that could be read, and lists the others."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, loaded: list[Loaded]) -> tuple[Any, list[tuple[str, str]]]:
        examples = [one.example for one in loaded if one.example is not None]
        return (self.collate(examples) if examples else None), [pair for one in loaded for pair in one.bad]


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Ignore SIGINT, and end some time after SIGTERM: after a signal to the whole process group the training process
    still needs the loader, to finish its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(_signal: int, _frame: object) -> None:
    signal.alarm(GRACE)


@atexit.register  # runs before multiprocessing's own exit handler, which would wait for workers that end later
def _close_all() -> None:
    for batches in list(_open):
        batches.close()
