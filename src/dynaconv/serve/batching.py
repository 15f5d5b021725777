"""Concurrent requests become batches: one thread has the network, and takes what waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One image on its way through the network.

    Attributes:
        example: as the task made it.
        options: of the prediction, such as ``{"top": 5}``.
        routing: whether the routing weights are wanted too.
        done: the result. Whoever no longer wants it cancels it; a job that waits is left out then.
        arrived: when it was submitted, in seconds of ``time.monotonic``.
    """

    example: Any
    options: dict[str, Any] = field(default_factory=dict)
    routing: bool = False
    done: Future[Any] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Runs jobs in one thread, several at a time.

    Args:
        run: returns one result for every job.
        max_batch: most jobs of one call of ``run``.
        max_wait: seconds that a job waits for others before it runs.
        warm_up: called once, in the thread, before the first job.
        measured: told the number of jobs of every batch and its seconds; in the thread.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Any]],
        *,
        max_batch: int,
        max_wait: float,
        warm_up: Callable[[], None] = lambda: None,
        measured: Callable[[int, float], None] = lambda jobs, seconds: None,
    ) -> None:
        self._run, self._warm_up, self._measured = run, warm_up, measured
        self.max_batch, self.max_wait = max_batch, max_wait
        self.ready = False
        self.failure: Exception | None = None
        """Why the warm-up failed; nothing will run then."""
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="dynaconv-network", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that no batch has taken yet."""
        return len(self._waiting)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let them run, in this order.

        Raises:
            RuntimeError: the batcher is closed, or its warm-up has failed.
        """
        with self._changed:
            if self._closing or self.failure is not None:
                raise RuntimeError("the service is stopping") from self.failure
            self._waiting.extend(jobs)
            self._changed.notify()

    def close(self, timeout: float | None = None) -> None:
        """Run what waits, then stop; wait for that."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _work(self) -> None:
        try:
            self._warm_up()
        except Exception as error:
            log.exception("the network cannot run")
            with self._changed:
                self.failure = error
                for job in self._waiting:
                    if job.done.set_running_or_notify_cancel():
                        job.done.set_exception(RuntimeError("the network cannot run"))
                self._waiting.clear()
            return
        self.ready = True
        while (jobs := self._next()) is not None:
            if jobs:
                start = time.monotonic()
                self._settle(jobs)
                self._measured(len(jobs), time.monotonic() - start)

    def _next(self) -> list[Job] | None:
        """The next batch; None when nothing will come any more."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                self._changed.wait()
            until = self._waiting[0].arrived + self.max_wait
            while len(self._waiting) < self.max_batch and not self._closing:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken = [self._waiting.popleft() for _ in range(min(self.max_batch, len(self._waiting)))]
        return [job for job in taken if job.done.set_running_or_notify_cancel()]

    def _settle(self, jobs: Sequence[Job]) -> None:
        try:
            results = self._run(jobs)
            if len(results) != len(jobs):
                raise RuntimeError(f"{len(results)} results of {len(jobs)} jobs")
        except Exception as error:
            if len(jobs) > 1:  # one of them may be to blame; the others' results are theirs
                log.warning("a batch of %d images failed (%s); they run one by one", len(jobs), error)
                for job in jobs:
                    self._settle([job])
                return
            log.exception("the network failed on an image")
            jobs[0].done.set_exception(error)
            return
        for job, result in zip(jobs, results, strict=True):
            job.done.set_result(result)
