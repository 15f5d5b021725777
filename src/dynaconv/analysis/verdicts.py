"""From a difference with its interval to a verdict on a paper's claim."""

from __future__ import annotations

from collections.abc import Sequence

from dynaconv.analysis.comparison import difference_between
from dynaconv.analysis.runs import RunResult
from dynaconv.analysis.statistics import Difference

SAME = "same order"
OPPOSITE = "opposite"
NOT_SHOWN = "no difference shown"
UNEXPECTED = "a difference where the paper has none"
BETTER, WORSE = "better", "worse"
ONE_SEED = "one seed shows nothing"
NOT_RUN = "not run yet"


def difference(ours: Sequence[RunResult], theirs: Sequence[RunResult]) -> Difference | None:
    """The difference over the seeds that both have; None where there is no such seed."""
    by_seed = {result.seed: result for result in theirs}
    pairs = [(result, by_seed[result.seed]) for result in ours if result.seed in by_seed]
    if not pairs:
        return None
    return difference_between([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def claimed_sign(published: float | None, against: float | None, direction: int | None = None) -> int | None:
    """-1, 0 or 1 as the paper puts an arm below, beside or above another one; None where it says nothing.

    Args:
        published, against: the paper's two figures.
        direction: what it says where it prints no figures.
    """
    if published is None or against is None:
        return direction
    return (published > against) - (published < against)


def verdict(found: Difference | None, claimed: int | None) -> str:
    """Whether a difference is that of the paper.

    An order is only claimed where the 95 % interval over the seeds leaves zero out; that there is no difference is
    never claimed, only that none was shown.

    Args:
        found: our difference.
        claimed: the sign of the paper's, see :func:`claimed_sign`.
    """
    if found is None:
        return NOT_RUN
    if found.low is None:
        return ONE_SEED
    if not found.shown:
        return NOT_SHOWN
    sign = 1 if found.mean > 0 else -1
    if claimed is None:
        return BETTER if sign > 0 else WORSE
    if claimed == 0:
        return UNEXPECTED
    return SAME if sign == claimed else OPPOSITE
