"""The result of a study: every arm's runs, and the pairs of arms with difference, interval and verdict."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dynaconv.analysis.runs import RunResult
from dynaconv.analysis.statistics import Difference, mean, spread
from dynaconv.analysis.study import Study
from dynaconv.analysis.verdicts import claimed_sign, difference, verdict

FORMAT = 1  # of ablate.json


@dataclass(frozen=True)
class Pair:
    """An arm compared with another one.

    Attributes:
        slug, against: the two arms.
        published: the paper's difference in points; ``None`` where it prints none.
        claimed: the sign that the paper states; ``None`` where it says nothing.
        difference: ours; ``None`` where no seed has both.
        verdict: see :func:`~dynaconv.analysis.verdicts.verdict`.
    """

    slug: str
    against: str
    published: float | None
    claimed: int | None
    difference: Difference | None
    verdict: str


@dataclass(frozen=True)
class ArmRow:
    """One arm.

    Attributes:
        slug, label, published: as the study has them.
        parameters, madds: counted; ``None`` where the arm has not been built yet.
        step_ratio, frozen_ratio: time of a training step, and of one image through the frozen network, by the first
            arm's; ``None`` where not measured.
        width: of a widened arm: its width multiplier, and its cost by the other's.
        seeds, scores: of the finished runs, in percent.
        mean, spread: of the scores.
        seconds_per_image: of training, median over the runs; loading included, not paired.
        routing_entropy: at the end of training, mean over the runs and the routers, as a share of log K: 1 where
            routers do not choose at all; ``None`` without routers.
        taken_from: the studies whose runs they are, where they are another's.
        pair: what it is compared with; ``None`` for the arm that others are compared with.
    """

    slug: str
    label: str
    published: float | None
    parameters: int | None
    madds: float | None
    step_ratio: float | None
    frozen_ratio: float | None
    width: Mapping[str, float] | None
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    mean: float | None
    spread: float | None
    seconds_per_image: float | None
    routing_entropy: float | None
    taken_from: tuple[str, ...]
    pair: Pair | None


@dataclass(frozen=True)
class Ablation:
    """A study's result.

    Attributes:
        study, title, source, claim: of the study.
        facts: settings that all results share.
        rows: of every arm.
        further: more pairs.
        about: what computed the results, one entry for each different one.
    """

    study: str
    title: str
    source: str
    claim: str
    facts: dict[str, Any]
    rows: tuple[ArmRow, ...]
    further: tuple[Pair, ...]
    about: tuple[dict[str, Any], ...]

    def plain(self) -> dict[str, Any]:
        """As a dictionary of plain types, which ``ablate.json`` holds."""
        return {"format": FORMAT, **asdict(self)}

    @property
    def pairs(self) -> list[Pair]:
        """Every arm with what it is compared with, then the further ones."""
        return [*(row.pair for row in self.rows if row.pair), *self.further]

    def row(self, slug: str) -> ArmRow:
        """One arm."""
        return next(row for row in self.rows if row.slug == slug)

    def label(self, slug: str) -> str:
        """An arm's name for people."""
        return self.row(slug).label

    def twins(self, slug: str) -> list[ArmRow]:
        """The arms that are the same network with the same runs as this one, without it."""
        own = self.row(slug)
        what = (own.parameters, own.madds, own.seeds, own.scores)
        return [
            row
            for row in self.rows
            if own.seeds and row is not own and (row.parameters, row.madds, row.seeds, row.scores) == what
        ]


def summarise_study(study: Study, content: Mapping[str, Any]) -> Ablation:
    """A study's result from the content of its raw file, and from nothing else."""
    results = {
        arm.slug: [
            RunResult.of({name: value for name, value in plain.items() if name != "about"})
            for _, plain in sorted(content["results"].get(arm.slug, {}).items(), key=lambda item: int(item[0]))
        ]
        for arm in study.arms
    }
    published = {arm.slug: arm.published for arm in study.arms}

    def pair(slug: str, against: str, direction: int | None) -> Pair:
        ours, theirs = published[slug], published[against]
        found = difference(results[slug], results[against])
        claimed = claimed_sign(ours, theirs, direction)
        points = None if ours is None or theirs is None else round(ours - theirs, 2)
        return Pair(slug, against, points, claimed, found, verdict(found, claimed))

    rows = []
    for arm in study.arms:
        note, times = content["arms"].get(arm.slug, {}), content["measured"].get(arm.slug)
        scores = tuple(result.value for result in results[arm.slug])
        seconds = [result.seconds_per_image for result in results[arm.slug]]
        entropies = [found for result in results[arm.slug] if (found := result.routing_entropy) is not None]
        rows.append(
            ArmRow(
                slug=arm.slug,
                label=arm.label,
                published=arm.published,
                parameters=note.get("parameters"),
                madds=note.get("madds"),
                step_ratio=times and times["step"]["ratio"],
                frozen_ratio=_frozen_ratio(times),
                width=note.get("width"),
                seeds=tuple(result.seed for result in results[arm.slug]),
                scores=scores,
                mean=mean(scores) if scores else None,
                spread=spread(scores),
                seconds_per_image=statistics.median(seconds) if seconds else None,
                routing_entropy=mean(entropies) if entropies else None,
                taken_from=tuple(sorted({str(one["study"]) for one in _abouts(content, arm.slug) if "study" in one})),
                pair=pair(arm.slug, arm.against, arm.direction) if arm.against else None,
            )
        )
    machines = [
        {name: value for name, value in about.items() if name != "study"}
        for slug in content["results"]
        for about in _abouts(content, slug)
    ]
    return Ablation(
        study=study.name,
        title=study.title,
        source=study.source,
        claim=study.claim,
        facts=dict(content["facts"]),
        rows=tuple(rows),
        further=tuple(pair(*one) for one in study.further),
        about=tuple({json.dumps(one, sort_keys=True): one for one in machines}.values()),
    )


def _frozen_ratio(times: Mapping[str, Any] | None) -> float | None:
    """Unknown in older files, which hold the latency of networks that were not frozen."""
    return times["latency"]["ratio"] if times and times.get("frozen") else None


def _abouts(content: Mapping[str, Any], slug: str) -> list[dict[str, Any]]:
    """What computed each result of an arm."""
    return [plain["about"] for plain in content["results"].get(slug, {}).values() if "about" in plain]
