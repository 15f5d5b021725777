"""The result of a study: every arm's runs, and the pairs of arms with difference, interval and verdict."""

from __future__ import annotations

import json
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
        step_ratio, forward_ratio: time of a training step, and of one image forward, by the first arm's.
        width: of a widened arm: its width multiplier, and its cost by the other's.
        seeds, scores: of the finished runs, in percent.
        mean, spread: of the scores.
        seconds_per_image: of training, mean over the runs; loading included, not paired.
        routing_entropy: at the end of training, mean over the runs and the routers, as a share of log K: 1 where
            routers do not choose at all; ``None`` without routers.
        pair: what it is compared with; ``None`` for the arm that others are compared with.
    """

    slug: str
    label: str
    published: float | None
    parameters: int | None
    madds: float | None
    step_ratio: float | None
    forward_ratio: float | None
    width: Mapping[str, float] | None
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    mean: float | None
    spread: float | None
    seconds_per_image: float | None
    routing_entropy: float | None
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

    def label(self, slug: str) -> str:
        """An arm's name for people."""
        return next(row.label for row in self.rows if row.slug == slug)


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
                forward_ratio=times and times["latency"]["ratio"],
                width=note.get("width"),
                seeds=tuple(result.seed for result in results[arm.slug]),
                scores=scores,
                mean=mean(scores) if scores else None,
                spread=spread(scores),
                seconds_per_image=mean(seconds) if seconds else None,
                routing_entropy=mean(entropies) if entropies else None,
                pair=pair(arm.slug, arm.against, arm.direction) if arm.against else None,
            )
        )
    machines = [
        plain["about"] for by_seed in content["results"].values() for plain in by_seed.values() if "about" in plain
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
