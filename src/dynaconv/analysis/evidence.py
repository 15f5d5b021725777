"""The figures of ``docs/evidence.md``, from the raw results that are kept beside it.

``python -m dynaconv.analysis.evidence docs/evidence.md`` rewrites every part of the page between
``<!-- begin NAME -->`` and ``<!-- end NAME -->``; the prose around them is written by hand and holds no figure.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from dynaconv.analysis.answer import Studies, answer, distinct
from dynaconv.analysis.raw import Raw
from dynaconv.analysis.studies import STUDIES
from dynaconv.analysis.study import Study
from dynaconv.analysis.study_report import markdown
from dynaconv.analysis.study_result import Ablation, Pair, summarise_study
from dynaconv.errors import UserError

HALF_WIDTH = 0.5  # points: the main comparison goes on until its intervals are no wider to either side


def read_studies(folder: Path) -> dict[str, Ablation]:
    """Every study whose raw results lie in a folder as ``STUDY.json``, or as ``STUDY-MORE.json`` on other data."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        study = study_of(path.stem)
        if study is not None:
            found[path.stem] = summarise_study(study, Raw(path, study.name).read())
    return found


def study_of(stem: str) -> Study | None:
    """The study of a raw file of that name; None where it is no study's."""
    names = [name for name in STUDIES if stem == name or stem.startswith(f"{name}-")]
    return STUDIES[max(names, key=len)] if names else None


def progress(study: Ablation) -> str:
    """What is done, and what is missing until the intervals are narrow enough, in a paragraph."""
    runs = [f"{row.label} {len(row.seeds)}" for row in study.rows]
    pairs = distinct(study, study.pairs)
    lines = [f"Runs done so far: {', '.join(runs)}."]
    open_pairs = [pair for pair in pairs if not _narrow(pair)]
    if open_pairs:
        lines.append(
            f"{len(open_pairs)} of {len(pairs)} intervals are not there yet, or wider than {HALF_WIDTH} points to "
            "either side: more seeds are needed."
        )
    else:
        lines.append(f"Every interval is {HALF_WIDTH} points or less to either side.")
    seconds = [
        f"{row.label} {row.seconds_per_image * _images(study) / 60:.0f}" for row in study.rows if row.seconds_per_image
    ]
    if seconds:
        lines.append(
            f"Minutes of one run, the median (the machine did other work at the same time): {', '.join(seconds)}."
        )
    return " ".join(lines)


def _images(study: Ablation) -> int:
    """Pictures that a run sees in its epochs."""
    listed = (str(line) for name, line in study.facts.items() if name.startswith("images of train/"))
    size = study.facts["train_images"] or sum(int(line.split()[0].replace(",", "")) for line in listed)
    return int(size * study.facts["epochs"])


def _narrow(pair: Pair) -> bool:
    found = pair.difference
    return found is not None and found.low is not None and found.high is not None and found.high - found.low <= 1.0


def singles(study: Ablation) -> str:
    """The single runs: one line for every seed."""
    seeds = sorted({seed for row in study.rows for seed in row.seeds})
    if not seeds:
        return "No run is done yet."
    lines = [
        "| seed | " + " | ".join(row.label for row in study.rows) + " |",
        "| ---: | " + " | ".join("---:" for _ in study.rows) + " |",
    ]
    for seed in seeds:
        by_seed = [dict(zip(row.seeds, row.scores, strict=True)) for row in study.rows]
        cells = [f"{one[seed]:.2f}" if seed in one else "" for one in by_seed]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machines(study: Ablation) -> str:
    """What computed the results."""
    if not study.about:
        return "nothing yet."
    return "; ".join(
        f"dynaconv {one['dynaconv']}, torch {one['torch']}, timm {one['timm']}, {one['device']}, {one['threads']} "
        f"thread{'s' if one['threads'] > 1 else ''}"
        for one in study.about
    )


def part(name: str, studies: Studies) -> str:
    """The text between two markers.

    Args:
        name: ``answer``; ``intervals`` (how many there are); ``open`` (the studies that are not run yet); or
            ``STUDY table``, ``progress``, ``singles``, ``machines``.

    Raises:
        UserError: there is no such part, or no such study among the results.
    """
    if name == "intervals":
        return intervals(studies)
    if name == "answer":
        return "\n\n".join(answer(studies))
    if name == "open":
        done = {study.study for study in studies.values()}
        missing = [study for study in STUDIES.values() if study.name not in done]
        return "\n".join(f"- `{study.name}`: {study.title} ({study.source or 'ours'})" for study in missing) or "None."
    study, _, what = name.partition(" ")
    makers: dict[str, Callable[[Ablation], str]] = {
        "table": markdown,
        "progress": progress,
        "singles": singles,
        "machines": machines,
    }
    if study not in studies or what not in makers:
        raise UserError(f"The page has a part {name!r}; expected answer, open, or a study and table.")
    return makers[what](studies[study])


def rewritten(page: str, studies: Studies) -> str:
    """The page with every part between markers made anew.

    Raises:
        UserError: a study has results and the page has no place for its table.
    """
    for name in studies:
        if f"<!-- begin {name} table -->" not in page:
            raise UserError(
                f"The page has no place for the results of {name}: add the lines '<!-- begin {name} table -->' and "
                f"'<!-- end {name} table -->'."
            )
    return replaced(page, lambda name: part(name, studies))


def replaced(page: str, make: Callable[[str], str]) -> str:
    """A page with what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` replaced by ``make(NAME)``."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n{make(match[2])}\n{match[3]}"

    return re.sub(r"(<!-- begin (.+?) -->)\n.*?(<!-- end \2 -->)", made, page, flags=re.DOTALL)


def intervals(studies: Studies) -> str:
    """How many intervals the page has, and that none is corrected for their number."""
    pairs = [pair for study in studies.values() for pair in distinct(study, study.pairs)]
    found = [pair.difference for pair in pairs if pair.difference is not None and pair.difference.low is not None]
    return (
        f"Intervals on this page: {len(found)}. None is corrected for their number: of intervals that should hold "
        "zero, about one in twenty leaves it out by luck."
    )


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(rewritten(target.read_text(), read_studies(target.with_suffix(""))))
