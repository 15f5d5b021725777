"""Means, standard deviations, and the confidence interval of a difference after a few runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A paired difference in the metric; of a share, in percentage points.

    Attributes:
        per_seed: method minus static, one value per seed.
        mean: their mean.
        low, high: 95 % interval of the mean over seeds; ``None`` with one seed.
        test_margin: half-width of the 95 % interval that comes from the choice of the test images alone; ``None`` with
            one test image, and where the metric is no mean over images.
    """

    per_seed: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    test_margin: float | None

    @property
    def shown(self) -> bool:
        """Whether there is an interval and it does not contain zero."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high


def mean(values: Sequence[float]) -> float:
    """``sum(values) / n``."""
    return math.fsum(values) / len(values)


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation, ``sqrt(sum((x - mean)^2) / (n - 1))``; ``None`` with fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def student_t(degrees_of_freedom: int, confidence: float = CONFIDENCE) -> float:
    """The quantile q of Student's t with ``P(|T| <= q) = confidence``."""
    from scipy.stats import t  # type: ignore[import-untyped]

    return float(t.ppf((1 + confidence) / 2, degrees_of_freedom))


def paired_difference(
    method: Sequence[Sequence[bool]] | Sequence[Sequence[int]],
    static: Sequence[Sequence[bool]] | Sequence[Sequence[int]],
) -> Difference:
    """The difference in top-1 between a method and its static twin, paired over seeds.

    Formula, for n seeds, with ``d_s`` the difference in top-1 of the runs of seed s (same data order, augmentation,
    and first kernels)::

        mean +- t(0.975, n - 1) * max(sd(d), floor) / sqrt(n),   floor = 100 / N / sqrt(6)

    The interval covers the variation over seeds on the same N test images. It assumes that the ``d_s`` are roughly
    normal, which a few seeds cannot verify; with 2 or 3 seeds it is wide, as it should be. ``floor`` is the rounding
    error of a difference of two shares of N images (each uniform within one image, ``1/12 + 1/12``), so that a few
    equal differences do not give an interval of width zero.

    ``test_margin`` covers the variation over test sets of N images from the same source. It follows from the mean over
    seeds of the difference in correctness ``x_i`` of every image i; images are assumed to be independent::

        1.96 * sd(x) / sqrt(N) * 100

    Args:
        method, static: by seed, for every test image whether it was classified rightly. Shapes ``(n, N)``.

    Raises:
        ValueError: no seeds, or not the same seeds and images on both sides.
    """
    if not method or len(method) != len(static):
        raise ValueError(
            f"{len(method)} runs of the method and {len(static)} static ones; expected as many, at least 1"
        )
    images = {len(run) for run in (*method, *static)}
    if len(images) != 1 or images == {0}:
        raise ValueError(f"the runs saw {sorted(images)} test images; expected the same number, at least 1, in all")
    size = images.pop()
    per_seed = tuple(100 * (sum(a) - sum(b)) / size for a, b in zip(method, static, strict=True))
    return _with_interval(per_seed, floor=100 / size / math.sqrt(6), test_margin=_test_margin(method, static))


def difference_of(method: Sequence[float], static: Sequence[float]) -> Difference:
    """The paired difference of a metric that is no mean over test images, such as average precision.

    The interval over seeds is that of :func:`paired_difference` with ``floor = 0``; what other test images would change
    is not known.

    Raises:
        ValueError: no seeds, or not the same number on both sides.
    """
    if not method or len(method) != len(static):
        raise ValueError(
            f"{len(method)} runs of the method and {len(static)} static ones; expected as many, at least 1"
        )
    per_seed = tuple(ours - theirs for ours, theirs in zip(method, static, strict=True))
    return _with_interval(per_seed, floor=0.0, test_margin=None)


def _with_interval(per_seed: tuple[float, ...], floor: float, test_margin: float | None) -> Difference:
    centre, sd = mean(per_seed), spread(per_seed)
    low = high = None
    if sd is not None:
        half = student_t(len(per_seed) - 1) * max(sd, floor) / math.sqrt(len(per_seed))
        low, high = centre - half, centre + half
    return Difference(per_seed, centre, low, high, test_margin)


def _test_margin(
    method: Sequence[Sequence[bool]] | Sequence[Sequence[int]],
    static: Sequence[Sequence[bool]] | Sequence[Sequence[int]],
) -> float | None:
    by_image = [
        (sum(ours) - sum(theirs)) / len(method)
        for ours, theirs in zip(zip(*method, strict=True), zip(*static, strict=True), strict=True)
    ]
    sd = spread(by_image)
    return None if sd is None else 100 * 1.96 * sd / math.sqrt(len(by_image))
