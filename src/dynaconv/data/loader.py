"""Loaders: worker processes, batches, normalisation on the device."""

from __future__ import annotations

import atexit
import signal
import time
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

from dynaconv.data.augment import Preprocess
from dynaconv.data.bad_images import BadImages
from dynaconv.data.examples import Examples, Loaded
from dynaconv.data.sampling import Draw, EvaluationBatches, TrainBatches
from dynaconv.errors import RunError
from dynaconv.torch_private import loader_workers, shut_down_workers, unwatch_workers

Batch = tuple[Tensor, Tensor]
LOOK = 5.0  # seconds between looks at whether the workers live
GRACE = 30  # seconds that a worker goes on after SIGTERM, for its parent to finish the step

_open: weakref.WeakSet[Batches] = weakref.WeakSet()


class Batches:
    """Iterate over ``(images, labels)``.

    Shapes: images ``(B, 3, S, S)`` float32, normalised, on ``device``; labels ``(B,)`` int64.

    Args:
        examples: the data set.
        batches: which examples form which batch.
        workers: loader processes; 0 loads in this process. The batches are the same.
        timeout: seconds without a batch after which workers count as hung.
    """

    def __init__(
        self,
        examples: Examples,
        batches: TrainBatches | EvaluationBatches,
        preprocess: Preprocess,
        bad_images: BadImages,
        *,
        workers: int = 0,
        timeout: float = 120.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batches, self.bad_images = batches, bad_images
        self.device = torch.device(device)
        self._timeout = timeout
        self._loader = _data_loader(examples, batches, workers, min(timeout, LOOK), pin=self.device.type == "cuda")
        self._mean = _channels([255 * value for value in preprocess.mean], self.device)
        self._std = _channels([255 * value for value in preprocess.std], self.device)
        _open.add(self)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for images, labels, bad in self._loaded():
            self.bad_images.report(bad)
            if len(labels):
                yield self._normalise(images), labels.to(self.device, non_blocking=True)
            elif isinstance(self.batches, TrainBatches):
                raise RunError("A training batch had no readable image, nor had 100 others drawn in their place.")

    def _loaded(self) -> Iterator[Any]:
        """What the workers give; asks now and then whether they live."""
        iterator = iter(self._loader)
        unwatch_workers(iterator)
        since = time.monotonic()
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, ConnectionError, EOFError) as error:
                hung = str(error).startswith("DataLoader timed out")
                if hung and time.monotonic() - since < self._timeout:
                    continue
                if isinstance(error, RuntimeError) and not hung and not str(error).startswith("DataLoader worker (pid"):
                    raise
                what = f"gave no batch for {self._timeout:.0f} s" if hung else f"died ({str(error).strip()})"
                raise RunError(
                    f"A loader worker {what}. Fewer --workers or more memory may help; --workers 0 shows the cause."
                ) from error
            yield batch
            since = time.monotonic()

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
        """Choose the epoch that the next iteration goes through, and where in it to begin. Training only."""
        if not isinstance(self.batches, TrainBatches):
            raise TypeError("set_epoch is for training; evaluation has one order")
        self.batches.epoch, self.batches.first = epoch, first_batch

    def _normalise(self, images: Tensor) -> Tensor:
        images = images.to(self.device, non_blocking=True)
        if images.dtype != torch.uint8:
            return images  # normalised by its transform
        return images.float().sub_(self._mean).div_(self._std)


def _data_loader(
    examples: Examples, batches: Sampler[list[Draw]], workers: int, timeout: float, *, pin: bool
) -> DataLoader[Any]:
    return DataLoader(
        examples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        timeout=timeout if workers else 0,
        worker_init_fn=_leave_signals_to_the_parent,
        persistent_workers=workers > 0,
        # The iterator draws a seed when it is made: from a generator of its own, so that the run's numbers stay.
        generator=torch.Generator(),
    )


def _collate(examples: list[Loaded]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    images = [example.image for example in examples if example.image is not None]
    labels = [example.label for example in examples if example.image is not None]
    bad = [pair for example in examples for pair in example.bad]
    stacked = default_collate(images) if images else torch.empty(0)
    return stacked, torch.tensor(labels, dtype=torch.int64), bad


def _leave_signals_to_the_parent(_worker: int) -> None:
    """A signal to the whole process group must not take the loader from under the step that is being finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(_signal: int, _frame: object) -> None:
    signal.alarm(GRACE)


@atexit.register  # runs before multiprocessing's own exit handler, which would wait for workers that end later
def _close_all() -> None:
    for batches in list(_open):
        batches.close()


def _channels(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
