"""Spread, Student's t and the paired interval: against hand values and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dynaconv.analysis.statistics import mean, paired_difference, spread, student_t


def runs(*correct: int, size: int = 100) -> list[list[int]]:
    """One run per number: that many of ``size`` images classified rightly, the first ones."""
    return [[1] * right + [0] * (size - right) for right in correct]


def test_mean_and_spread_by_hand() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert spread([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt(7))  # (4 + 1 + 9) / 2
    assert spread([5.0]) is None


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262)])
def test_student_t_is_the_printed_table(degrees: int, quantile: float) -> None:
    assert student_t(degrees) == pytest.approx(quantile, abs=5e-4)


def test_difference_by_hand() -> None:
    found = paired_difference(runs(83, 84, 88), runs(80, 82, 81))  # +3, +2, +7: mean 4, sd sqrt(7)
    assert found.per_seed == pytest.approx((3.0, 2.0, 7.0))
    assert found.mean == pytest.approx(4.0)
    half = 4.30265 * math.sqrt(7) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half), abs=1e-4)
    assert not found.shown


def test_difference_is_scipys_paired_t_test() -> None:
    random = np.random.default_rng(0)
    ours, theirs = (random.random((5, 400)) < 0.9).astype(int), (random.random((5, 400)) < 0.6).astype(int)
    found = paired_difference(ours.tolist(), theirs.tolist())
    interval = stats.ttest_rel(100 * ours.mean(axis=1), 100 * theirs.mean(axis=1)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.shown


def test_pairing_matters() -> None:
    """Seeds that shift both networks alike do not widen the interval."""
    found = paired_difference(runs(62, 72, 81), runs(60, 70, 80))
    assert found.low is not None
    assert found.low > 0.0


def test_one_seed_has_no_interval() -> None:
    found = paired_difference(runs(90), runs(80))
    assert found.mean == pytest.approx(10.0)
    assert found.low is None
    assert found.high is None
    assert not found.shown


def test_equal_differences_do_not_make_an_interval_of_width_zero() -> None:
    found = paired_difference(runs(81, 82, 83), runs(80, 81, 82))
    assert found.low is not None
    assert found.high is not None
    floor = 100 / 100 / math.sqrt(6)
    assert found.high - found.low == pytest.approx(2 * 4.30265 * floor / math.sqrt(3), abs=1e-4)
    assert not found.shown  # one image of a hundred at every seed is nothing yet


def test_test_margin_is_the_one_sample_interval_over_images() -> None:
    random = np.random.default_rng(1)
    ours, theirs = (random.random((3, 500)) < 0.8).astype(int), (random.random((3, 500)) < 0.7).astype(int)
    by_image = (ours - theirs).mean(axis=0)
    found = paired_difference(ours.tolist(), theirs.tolist())
    assert found.test_margin == pytest.approx(100 * 1.96 * stats.sem(by_image))


def test_interval_covers_as_often_as_it_says() -> None:
    """True difference 1 point, normal over seeds: the interval holds it in about 95 of 100 comparisons."""
    random = np.random.default_rng(2)
    trials, held = 200, 0
    static = runs(500, 500, 500, size=1000)
    for _ in range(trials):
        differences = np.round(10 * (1.0 + 0.5 * random.standard_normal(3))).astype(int)
        found = paired_difference(runs(*(500 + differences), size=1000), static)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.0 <= found.high
    assert 0.92 <= held / trials <= 0.98


@pytest.mark.parametrize(
    ("ours", "theirs"), [([], []), (runs(1), runs(1, 2)), (runs(1, size=5), runs(1, size=6)), ([[]], [[]])]
)
def test_unpaired_runs_are_refused(ours: list[list[int]], theirs: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        paired_difference(ours, theirs)
