"""A verdict is what the interval allows, and no more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynaconv.analysis import verdicts
from dynaconv.analysis.runs import RunResult
from dynaconv.analysis.statistics import difference_of
from dynaconv.analysis.verdicts import claimed_sign, difference, verdict


def run(seed: int, right: int, images: int = 1000, score: float | None = None) -> RunResult:
    """A run that has classified the first ``right`` images rightly; one of another task, with ``score`` alone."""
    bits = np.packbits([1] * right + [0] * (images - right)).tobytes().hex()
    value = 100 * right / images if score is None else score
    correct = bits if score is None else None
    return RunResult("x", None, seed, value, [(1, value)], [1.0], 1e-3, 0, None, None, correct, images)


def runs(*right: int) -> list[RunResult]:
    return [run(seed, count) for seed, count in enumerate(right)]


@pytest.mark.parametrize(
    ("ours", "claimed", "expected"),
    [
        ((720, 722, 721), 1, verdicts.SAME),
        ((720, 722, 721), -1, verdicts.OPPOSITE),
        ((720, 722, 721), 0, verdicts.UNEXPECTED),
        ((720, 722, 721), None, verdicts.BETTER),
        ((680, 679, 681), None, verdicts.WORSE),
        ((680, 679, 681), -1, verdicts.SAME),
        ((720, 690, 705), 1, verdicts.NOT_SHOWN),
        ((720, 690, 705), 0, verdicts.NOT_SHOWN),
        ((700, 700, 700), 1, verdicts.NOT_SHOWN),
    ],
)
def test_a_verdict_by_artificial_results(ours: tuple[int, ...], claimed: int | None, expected: str) -> None:
    assert verdict(difference(runs(*ours), runs(700, 701, 699)), claimed) == expected


def test_pairs_are_of_equal_seeds() -> None:
    """Seeds 1 and 2 are there on both sides; seed 0 here and seed 5 there are left out."""
    ours = [run(0, 999), run(1, 710), run(2, 720)]
    theirs = [run(5, 1), run(2, 700), run(1, 700)]
    found = difference(ours, theirs)
    assert found is not None
    assert found.per_seed == pytest.approx((1.0, 2.0))


def test_one_seed_shows_nothing_and_no_seed_less() -> None:
    assert verdict(difference(runs(999), runs(1)), 1) == verdicts.ONE_SEED
    assert verdict(difference(runs(999), [run(7, 1)]), 1) == verdicts.NOT_RUN
    assert verdict(None, 1) == verdicts.NOT_RUN


def test_tasks_without_correctness_are_paired_by_their_figures() -> None:
    ours = [run(0, 0, 10, score=61.0), run(1, 0, 10, score=63.0)]
    theirs = [run(0, 0, 10, score=60.0), run(1, 0, 10, score=60.0)]
    found = difference(ours, theirs)
    assert found is not None
    assert found.per_seed == (1.0, 3.0)
    half = 12.7062 * math.sqrt(2) / math.sqrt(2)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert found.test_margin is None


def test_figures_in_pairs_alone() -> None:
    with pytest.raises(ValueError, match="expected as many"):
        difference_of([1.0], [])


@pytest.mark.parametrize(
    ("published", "against", "direction", "sign"),
    [(62.5, 62.0, None, 1), (56.5, 62.0, 1, -1), (62.0, 62.0, 1, 0), (None, 62.0, 1, 1), (62.0, None, None, None)],
)
def test_the_papers_sign(published: float | None, against: float | None, direction: int | None, sign: int) -> None:
    assert claimed_sign(published, against, direction) == sign
