"""The table of a study: the paper's column, ours with its interval, and a verdict."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynaconv.analysis.study_result import Ablation, ArmRow, Pair
from dynaconv.analysis.verdicts import BETTER, NOT_RUN, OPPOSITE, SAME, WORSE
from dynaconv.errors import RunError
from dynaconv.figures import short_number
from dynaconv.files import write_text

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
        points(pair, row),
        pair.verdict if pair else "",
    ]


def score(row: ArmRow) -> str:
    """Mean and standard deviation."""
    if row.mean is None:
        return NOT_RUN
    return f"{row.mean:.2f}" + ("" if row.spread is None else f" ± {row.spread:.2f}")


def points(pair: Pair | None, row: ArmRow) -> str:
    """A difference with its interval; with the number of pairs where the arm has more runs than pairs."""
    if pair is None or pair.difference is None:
        return ""
    found = pair.difference
    interval = "[no interval]" if found.low is None else f"[{found.low:+.2f}, {found.high:+.2f}]"
    pairs = "" if len(found.per_seed) == len(row.seeds) else f"\n{len(found.per_seed)} pairs"
    return f"{found.mean:+.2f}\n{interval}{pairs}"


def sentence(ablation: Ablation, pair: Pair) -> str:
    """One pair in one sentence."""
    what = f"{ablation.label(pair.slug)} against {ablation.label(pair.against)}: {pair.verdict}"
    found = pair.difference
    if found is None:
        return what + "."
    if pair.verdict in (SAME, OPPOSITE):
        what += f" {'as' if pair.verdict == SAME else 'to what'} is claimed, {BETTER if found.mean > 0 else WORSE}"
    seeds = len(found.per_seed)
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
    interval = "" if found.low is None else f", 95 % interval {found.low:+.2f} to {found.high:+.2f}"
    return f"{what} ({found.mean:+.2f} points{interval}, {counted})."


def notes(ablation: Ablation) -> list[str]:
    """How the figures came about."""
    facts = ablation.facts
    lines = [
        ablation.claim + (f" ({ablation.source})" if ablation.source else ""),
        f"One recipe for all arms, but for what their names say: {_recipe(ablation)}; pictures of "
        f"{facts['image_size']} pixels"
        + (f", {facts['train_images']:,} of them to train on." if facts.get("train_images") else "."),
        *_other_network(facts),
        "Ours: mean ± standard deviation over the seeds, of the last epoch. The interval is Student's t over the "
        "differences of equal seeds (pairs; counted where an arm has more runs); a verdict is given where it leaves "
        "zero out.",
    ]
    if any(row.step_ratio is not None for row in ablation.rows):
        lines.append(f"Time: a training step, measured in turns with {ablation.rows[0].label}, loading left out.")
    entropies = [f"{row.label} {row.routing_entropy:.2f}" for row in ablation.rows if row.routing_entropy is not None]
    if entropies:
        lines.append(
            "Entropy of the routing weights at the end, as a share of log K (1 is even; near 1 they can still matter): "
            f"{', '.join(entropies)}."
        )
    lines += _shared_runs(ablation)
    for row in ablation.rows:
        if row.width:
            width, ratio = row.width["width_multiplier"], row.width["ratio"]
            lines.append(f"{row.label}: width multiplier {width:g}, {ratio:.2f} of the other's cost.")
    return lines


def _other_network(facts: Mapping[str, Any]) -> list[str]:
    """That the network is not the study's own, or not at its own width."""
    chosen = [f"width multiplier {facts['width']:g}"] if facts.get("width") is not None else []
    chosen += [f"{name}={value}" for name, value in (facts.get("network_args") or {}).items()]
    if facts.get("network"):
        chosen = [f"{facts['network']} in place of the study's", *chosen]
    return [f"Network: {', '.join(chosen)}."] if chosen else []


def _recipe(ablation: Ablation) -> str:
    facts = ablation.facts
    recipe = (
        f"{facts['epochs']} epochs, batch {facts['batch_size']}, {facts['opt']}, lr {facts['lr']:g} "
        f"({facts['sched']}), weight decay {facts['weight_decay']:g}"
    )
    if any(row.routing_entropy is not None for row in ablation.rows) and "temperature_start" in facts:
        recipe += (
            f", softmax temperature {facts['temperature_start']:g} to {facts['temperature_end']:g} in "
            f"{facts['temperature_epochs']} epochs (half of all at most)"
        )
    return recipe


def _shared_runs(ablation: Ablation) -> list[str]:
    """Which arms have runs of another study, or of another arm that is the same network."""
    taken: dict[str, list[str]] = {}
    for row in ablation.rows:
        for name in row.taken_from:
            taken.setdefault(name, []).append(row.label)
    lines = [f"Runs of the study {name}, and not new ones: {', '.join(labels)}." for name, labels in taken.items()]
    for number, row in enumerate(ablation.rows):
        earlier = [twin.label for twin in ablation.twins(row.slug) if twin in ablation.rows[:number]]
        if earlier:
            lines.append(f"{row.label}: here this is the same network as {earlier[0]}, and the runs are the same.")
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
