"""The sentence claims what the interval allows, and no more."""

from __future__ import annotations

from dynaconv.analysis.comparison import conclude
from dynaconv.analysis.statistics import Difference


def test_an_interval_that_holds_zero_shows_no_difference() -> None:
    sentence = conclude("dynamic K=4", Difference((1.0, -0.5), 0.25, -9.3, 9.8, 0.5), 100)
    assert sentence == ("dynamic K=4: no difference shown (+0.25 points, 95 % interval -9.30 to +9.80, 2 seeds).")


def test_an_interval_that_ends_at_zero_shows_no_difference() -> None:
    assert "no difference shown" in conclude("x", Difference((1.0, 1.0), 1.0, 0.0, 2.0, 0.5), 100)


def test_better_and_worse() -> None:
    better = conclude("dynamic K=4", Difference((2.0, 2.2, 1.8), 2.0, 1.5, 2.5, 0.4), 10_000)
    assert better == "dynamic K=4: better than static by 2.00 points (95 % interval +1.50 to +2.50, 3 seeds)."
    worse = conclude("condconv K=8", Difference((-2.0, -2.2, -1.8), -2.0, -2.5, -1.5, 0.4), 10_000)
    assert "worse than static by 2.00 points" in worse


def test_a_test_set_that_could_undo_it_is_named() -> None:
    sentence = conclude("x", Difference((0.3, 0.3, 0.3), 0.3, 0.1, 0.5, 1.4), 359)
    assert "better than static by 0.30" in sentence
    assert "other 359 test images could move it by 1.40 either way" in sentence


def test_one_seed_concludes_nothing() -> None:
    sentence = conclude("x", Difference((5.0,), 5.0, None, None, 1.0), 100)
    assert "no interval" in sentence
    assert "better" not in sentence


def test_static_is_the_measure() -> None:
    assert conclude("static", None, 100) == "static is what the others are compared with."
