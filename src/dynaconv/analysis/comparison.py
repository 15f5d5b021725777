"""The result of a comparison: one row per network, and the conclusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from dynaconv.analysis.arms import Arm, label_of
from dynaconv.analysis.measure import Measurement
from dynaconv.analysis.runs import RunResult
from dynaconv.analysis.statistics import Difference, difference_of, mean, paired_difference, spread
from dynaconv.tasks.task import Metric

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        method, experts: ``static`` with ``None``; ``dynamic`` or ``condconv`` with K.
        parameters: as stored, all K experts.
        madds: multiply-adds of one image at the comparison's size, mixing and routing included.
        values: the metric of each seed's last epoch; a share in percent. In files the three have the metric's name:
            ``top1``, ``top1_mean``, ``top1_spread``.
        mean, spread: their mean, and sample standard deviation (``None`` with one seed).
        difference: to static, paired over seeds; ``None`` for static.
        train_seconds_per_image, train_ratio: a training step, by the batch size; median of the ratios to static.
        latency_seconds, latency_ratio: one image, forward, of the frozen network; median of the ratios to static.
        step_bytes, step_bytes_ratio: peak memory of a training step.
        curve: for every evaluated epoch, its number and each seed's value.
        routing_entropy: mean over seeds and routers at the end, as a share of log K; 1 is even, 0 one expert.
        dropped_steps: over all seeds.
        conclusion: one sentence.
        train_ratio_quartiles, latency_ratio_quartiles: of the ratios over the rounds; ``None`` where not known.
        mixing_share: of the multiply-adds, how much mixes the experts; ``None`` where not known.
        frozen: False where the latency is of the networks as they are: one of them cannot be frozen, or the file is
            of 0.2 or older.
    """

    method: str
    experts: int | None
    parameters: int
    madds: float
    values: tuple[float, ...]
    mean: float
    spread: float | None
    difference: Difference | None
    train_seconds_per_image: float
    train_ratio: float
    latency_seconds: float
    latency_ratio: float
    step_bytes: int
    step_bytes_ratio: float
    curve: tuple[tuple[int, tuple[float, ...]], ...]
    routing_entropy: float | None
    dropped_steps: int
    conclusion: str
    train_ratio_quartiles: tuple[float, float] | None = None
    latency_ratio_quartiles: tuple[float, float] | None = None
    mixing_share: float | None = None
    frozen: bool = False

    @property
    def label(self) -> str:
        """For people."""
        return label_of(self.method, self.experts)

    def named(self, metric: str) -> dict[str, Any]:
        """As a dictionary whose figures have the metric's name."""
        names = {"values": metric, "mean": f"{metric}_mean", "spread": f"{metric}_spread"}
        return {names.get(name, name): value for name, value in asdict(self).items()}


class Price(NamedTuple):
    """Parameters, multiply-adds of one image, and the share of them that mixes experts."""

    parameters: int
    madds: float
    mixing_share: float


@dataclass(frozen=True)
class Comparison:
    """All rows, and the settings of the comparison.

    Attributes:
        backbone, data: the network's name; the data in one line.
        task, metric: what it was trained for; what is compared.
        baseline: the task's metrics, as shares of 1, of what is best guessed without looking at the pictures.
        test_images, image_size, batch_size: what their names say.
        seeds: in the order of the rows' per-seed figures.
        settings: all of them, resolved.
        about: versions, device, threads.
        rows: static first.
    """

    backbone: str
    task: str
    metric: Metric
    baseline: dict[str, float]
    data: str
    test_images: int
    image_size: int | tuple[int, int]
    batch_size: int
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    about: dict[str, Any]
    rows: tuple[Row, ...]

    def plain(self) -> dict[str, Any]:
        """As a dictionary of plain types, which ``compare.json`` holds."""
        return {"format": FORMAT, **asdict(self), "rows": [row.named(self.metric.name) for row in self.rows]}


def summarise(
    metric: Metric,
    arm: Arm,
    results: Sequence[RunResult],
    static: Sequence[RunResult],
    price: Price,
    measured: Measurement,
    static_measured: Measurement,
    batch_size: int,
) -> Row:
    """One network's row from its runs and the static twin's, seed by seed."""
    values = tuple(result.value for result in results)
    difference = None
    if arm.experts is not None:
        difference = difference_between(results, static)
    entropies = [result.routing_entropy for result in results if result.routing_entropy is not None]
    return Row(
        method=arm.method,
        experts=arm.experts,
        parameters=price.parameters,
        madds=price.madds,
        values=values,
        mean=mean(values),
        spread=spread(values),
        difference=difference,
        train_seconds_per_image=measured.step.seconds / batch_size,
        train_ratio=measured.step.ratio,
        latency_seconds=measured.latency.seconds,
        latency_ratio=measured.latency.ratio,
        step_bytes=measured.step_bytes,
        step_bytes_ratio=measured.step_bytes / static_measured.step_bytes,
        curve=_curve(results),
        routing_entropy=mean(entropies) if entropies else None,
        dropped_steps=sum(result.dropped_steps for result in results),
        conclusion=conclude(arm.label, difference, results[0].test_images, metric.higher_is_better),
        train_ratio_quartiles=measured.step.ratio_quartiles,
        latency_ratio_quartiles=measured.latency.ratio_quartiles,
        mixing_share=price.mixing_share,
        frozen=measured.frozen,
    )


def difference_between(results: Sequence[RunResult], static: Sequence[RunResult]) -> Difference:
    """Paired run by run; image by image where the task says of every image whether it was right."""
    ours, theirs = ([right for one in runs if (right := one.correctness()) is not None] for runs in (results, static))
    if ours and theirs:
        return paired_difference(ours, theirs)
    return difference_of([one.value for one in results], [one.value for one in static])


def _curve(results: Sequence[RunResult]) -> tuple[tuple[int, tuple[float, ...]], ...]:
    by_epoch = zip(*(result.curve for result in results), strict=True)
    return tuple((points[0][0], tuple(value for _, value in points)) for points in by_epoch)


def conclude(label: str, difference: Difference | None, test_images: int, higher_is_better: bool = True) -> str:
    """One sentence about one network.

    A difference is claimed only if its interval over seeds does not contain zero. If another test set of the same size
    could cancel it, the sentence says so.
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
    verb = "better" if (difference.mean > 0) == higher_is_better else "worse"
    sentence = f"{label}: {verb} than static by {abs(difference.mean):.2f} points ({interval})"
    margin = difference.test_margin
    if margin is not None and margin >= abs(difference.mean):
        sentence += f", but other {test_images:,} test images could move it by {margin:.2f} either way"
    return sentence + "."
