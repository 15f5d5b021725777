"""The thread with the network: what it puts together, what it leaves out, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from dynaconv.serve.batching import Batcher, Job

WAIT = 60.0


@pytest.fixture
def made() -> Iterator[Callable[..., Batcher]]:
    """Makes batchers and closes them."""
    batchers: list[Batcher] = []

    def make(run: Callable[[Sequence[Job]], Sequence[Any]], **options: Any) -> Batcher:
        batchers.append(Batcher(run, **{"max_batch": 4, "max_wait": 0.0, **options}))
        batchers[-1].start()
        return batchers[-1]

    yield make
    for batcher in batchers:
        batcher.close(WAIT)
        assert not batcher._thread.is_alive()


def doubled(jobs: Sequence[Job]) -> list[int]:
    return [2 * job.example for job in jobs]


def test_order_is_kept_and_no_batch_is_too_large(made: Callable[..., Batcher]) -> None:
    sizes: list[int] = []
    hold = threading.Event()

    def run(jobs: Sequence[Job]) -> list[int]:
        sizes.append(len(jobs))
        assert hold.wait(WAIT)
        return doubled(jobs)

    batcher, jobs = made(run), [Job(number) for number in range(10)]
    batcher.submit(jobs[:1])
    while not sizes:
        time.sleep(0.001)
    batcher.submit(jobs[1:])
    hold.set()
    assert [job.done.result(WAIT) for job in jobs] == [2 * number for number in range(10)]
    assert sizes == [1, 4, 4, 1]


def test_it_waits_for_others_but_not_longer_than_it_may(made: Callable[..., Batcher]) -> None:
    sizes: list[int] = []
    batcher = made(lambda jobs: sizes.append(len(jobs)) or doubled(jobs), max_wait=3600.0)
    jobs = [Job(number) for number in range(4)]
    for job in jobs:
        batcher.submit([job])
    assert [job.done.result(WAIT) for job in jobs] == [0, 2, 4, 6]
    assert sizes == [4], "a full batch goes at once"
    short = made(doubled, max_wait=0.05)
    lonely, start = Job(7), time.monotonic()
    short.submit([lonely])
    assert lonely.done.result(WAIT) == 14
    assert time.monotonic() - start >= 0.05


def test_cancelled_jobs_are_left_out(made: Callable[..., Batcher]) -> None:
    began, hold, seen = threading.Event(), threading.Event(), []

    def run(jobs: Sequence[Job]) -> list[int]:
        began.set()
        assert hold.wait(WAIT)
        seen.extend(job.example for job in jobs)
        return doubled(jobs)

    batcher, jobs = made(run), [Job(number) for number in range(4)]
    batcher.submit(jobs[:1])
    assert began.wait(WAIT)
    batcher.submit(jobs[1:])
    assert not jobs[0].done.cancel(), "it runs"
    assert jobs[2].done.cancel()
    hold.set()
    assert jobs[3].done.result(WAIT) == 6
    assert seen == [0, 1, 3]


def test_one_bad_job_does_not_take_the_others_with_it(
    made: Callable[..., Batcher], caplog: pytest.LogCaptureFixture
) -> None:
    def run(jobs: Sequence[Job]) -> list[int]:
        if any(job.example == 2 for job in jobs):
            raise ValueError("two")
        return doubled(jobs)

    batcher, jobs = made(run, max_wait=WAIT), [Job(number) for number in range(4)]
    batcher.submit(jobs)
    with pytest.raises(ValueError, match="two"):
        jobs[2].done.result(WAIT)
    assert [jobs[number].done.result(WAIT) for number in (0, 1, 3)] == [0, 2, 6]
    assert "a batch of 4 images failed (two)" in caplog.text
    again = Job(5)
    batcher.submit([again, *(Job(0) for _ in range(3))])
    assert again.done.result(WAIT) == 10, "the thread goes on"


def test_results_that_are_missing_are_an_error_and_not_a_client_that_waits(made: Callable[..., Batcher]) -> None:
    batcher, job = made(lambda jobs: []), Job(1)
    batcher.submit([job])
    with pytest.raises(RuntimeError, match="0 results of 1 jobs"):
        job.done.result(WAIT)


def test_close_finishes_what_waits_and_takes_no_more() -> None:
    batcher, jobs = Batcher(doubled, max_batch=2, max_wait=3600.0), [Job(number) for number in range(5)]
    batcher.submit(jobs)
    batcher.start()
    batcher.close(WAIT)
    assert [job.done.result(0) for job in jobs] == [0, 2, 4, 6, 8]
    with pytest.raises(RuntimeError, match="stopping"):
        batcher.submit([Job(1)])


def test_a_warm_up_that_fails_is_kept_and_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("no memory")

    batcher, job = Batcher(doubled, max_batch=2, max_wait=0, warm_up=fail), Job(1)
    batcher.submit([job])
    batcher.start()
    with pytest.raises(RuntimeError, match="cannot run"):
        job.done.result(WAIT)
    batcher.close(WAIT)
    assert (batcher.ready, str(batcher.failure)) == (False, "no memory")
    with pytest.raises(RuntimeError):
        batcher.submit([Job(1)])
    assert "the network cannot run" in caplog.text
