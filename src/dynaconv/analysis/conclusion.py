"""What the figures allow to say, in one sentence."""

from __future__ import annotations

from dynaconv.analysis.statistics import Difference


def conclude(label: str, difference: Difference | None, test_images: int) -> str:
    """One sentence about one network.

    A difference is claimed only if its interval over seeds leaves zero out; if another test set of the same size could
    undo it, the sentence says so.
    """
    if difference is None:
        return "static is what the others are compared with."
    seeds = len(difference.per_seed)
    if difference.low is None or difference.high is None:
        return (
            f"{label}: {difference.mean:+.2f} points with one seed; one seed gives no interval, so nothing can be "
            "concluded (try --seeds 3 or more)."
        )
    interval = f"95 % interval {difference.low:+.2f} to {difference.high:+.2f}, {seeds} seeds"
    if not difference.shown:
        return f"{label}: no difference shown ({difference.mean:+.2f} points, {interval})."
    verb = "better" if difference.mean > 0 else "worse"
    sentence = f"{label}: {verb} than static by {abs(difference.mean):.2f} points ({interval})"
    margin = difference.test_margin
    if margin is not None and margin >= abs(difference.mean):
        sentence += f", but other {test_images:,} test images could move it by {margin:.2f} either way"
    return sentence + "."
