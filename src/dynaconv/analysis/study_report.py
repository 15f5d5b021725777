"""The table of a study: the paper's column, ours with its interval, and a verdict."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dynaconv.analysis.runs import RunResult
from dynaconv.analysis.statistics import Difference, mean, spread
from dynaconv.analysis.study import Study
from dynaconv.analysis.verdicts import NOT_RUN, claimed_sign, difference, verdict
from dynaconv.errors import RunError
from dynaconv.figures import short_number
from dynaconv.files import write_text

FORMAT = 1
NAME = "ablate"  # of the files
HEADINGS = (
    "arm",
    "params",
    "MAdds",
    "time,\nx {first}",
    "paper,\n%",
    "ours, %",
    "seeds",
    "against",
    "paper,\npoints",
    "ours, points\n[95 %]",
    "verdict",
)


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


def headings(ablation: Ablation) -> list[str]:
    """Of the table's columns."""
    return [heading.format(first=ablation.rows[0].label) for heading in HEADINGS]


def cells(ablation: Ablation, row: ArmRow) -> list[str]:
    """One arm's line."""
    pair = row.pair
    return [
        row.label,
        "" if row.parameters is None else short_number(row.parameters),
        "" if row.madds is None else short_number(row.madds),
        "" if row.step_ratio is None else f"{row.step_ratio:.2f}",
        "" if row.published is None else f"{row.published:.1f}",
        score(row),
        str(len(row.seeds)),
        ablation.label(pair.against) if pair else "",
        "" if pair is None or pair.published is None else f"{pair.published:+.1f}",
        points(pair),
        pair.verdict if pair else "",
    ]


def score(row: ArmRow) -> str:
    """Mean and standard deviation."""
    if row.mean is None:
        return NOT_RUN
    return f"{row.mean:.2f}" + ("" if row.spread is None else f" ± {row.spread:.2f}")


def points(pair: Pair | None) -> str:
    """A difference with its interval."""
    if pair is None or pair.difference is None:
        return ""
    found = pair.difference
    interval = "[no interval]" if found.low is None else f"[{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.mean:+.2f}\n{interval}"


def sentence(ablation: Ablation, pair: Pair) -> str:
    """One pair in one sentence."""
    what = f"{ablation.label(pair.slug)} against {ablation.label(pair.against)}: {pair.verdict}"
    found = pair.difference
    if found is None:
        return what + "."
    seeds = len(found.per_seed)
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
    interval = "" if found.low is None else f", 95 % interval {found.low:+.2f} to {found.high:+.2f}"
    return f"{what} ({found.mean:+.2f} points{interval}, {counted})."


def notes(ablation: Ablation) -> list[str]:
    """How the figures came about."""
    facts = ablation.facts
    recipe = (
        f"{facts['epochs']} epochs, batch {facts['batch_size']}, {facts['opt']}, lr {facts['lr']:g} "
        f"({facts['sched']}), weight decay {facts['weight_decay']:g}"
    )
    lines = [
        ablation.claim + (f" ({ablation.source})" if ablation.source else ""),
        f"One recipe for all arms: {recipe}; pictures of {facts['image_size']} pixels"
        + (f", {facts['train_images']:,} of them to train on." if facts.get("train_images") else "."),
        "Ours: mean ± standard deviation over the seeds, of the last epoch. The interval is Student's t over the "
        "differences of equal seeds; a verdict is given where it leaves zero out.",
    ]
    if any(row.step_ratio is not None for row in ablation.rows):
        lines.append(f"Time: a training step, measured in turns with {ablation.rows[0].label}, loading left out.")
    for row in ablation.rows:
        if row.width:
            width, ratio = row.width["width_multiplier"], row.width["ratio"]
            lines.append(f"{row.label}: width multiplier {width:g}, {ratio:.2f} of the other's cost.")
    return lines


def markdown(ablation: Ablation) -> str:
    """The whole result as Markdown."""
    names = [heading.replace("\n", " ") for heading in headings(ablation)]
    lines = [_bar(names), _bar(["---", *["---:"] * 6, "---", "---:", "---:", "---"])]
    lines += [_bar([cell.replace("\n", " ") for cell in cells(ablation, row)]) for row in ablation.rows]
    if ablation.further:
        lines += ["", *[f"- {sentence(ablation, pair)}" for pair in ablation.further]]
    return "\n".join([*lines, "", *[f"{note}  " for note in notes(ablation)]]).rstrip()


def as_csv(ablation: Ablation) -> str:
    """One line for every arm; an empty cell is a figure that cannot be given."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("arm", "parameters", "madds", "step_ratio", "published", "mean", "spread", "seeds", "against"),
            *("published_difference", "difference", "low", "high", "verdict"),
        ]
    )
    for row in ablation.rows:
        pair = row.pair
        found = pair.difference if pair else None
        writer.writerow(
            [
                *(row.slug, row.parameters, row.madds, row.step_ratio, row.published, row.mean, row.spread),
                len(row.seeds),
                *((pair.against, pair.published) if pair else ("", "")),
                *((found.mean, found.low, found.high) if found else ("", "", "")),
                pair.verdict if pair else "",
            ]
        )
    return text.getvalue().rstrip("\n")


def write_study(ablation: Ablation, folder: Path) -> None:
    """Write ``ablate.json``, ``.md`` and ``.csv``; each is whole or not there.

    Raises:
        RunError: the disk is full.
    """
    contents = {
        "json": json.dumps(ablation.plain(), indent=2),
        "md": markdown(ablation),
        "csv": as_csv(ablation),
    }
    for kind, text in contents.items():
        path = folder / f"{NAME}.{kind}"
        try:
            write_text(path, text + "\n")
        except OSError as error:
            raise RunError(
                f"Cannot write {path}: {error.strerror or error}. Make room, and repeat the command."
            ) from error


def _bar(parts: Sequence[str]) -> str:
    return "| " + " | ".join(parts) + " |"
