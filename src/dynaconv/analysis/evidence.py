"""The figures of ``docs/evidence.md``, from the raw results that are kept beside it.

``python -m dynaconv.analysis.evidence docs/evidence.md`` rewrites every part of the page between
``<!-- begin NAME -->`` and ``<!-- end NAME -->``; the prose around them is written by hand and holds no figure.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dynaconv.analysis.raw import Raw
from dynaconv.analysis.studies import STUDIES
from dynaconv.analysis.study import Study
from dynaconv.analysis.study_report import markdown
from dynaconv.analysis.study_result import Ablation, ArmRow, Pair, summarise_study
from dynaconv.analysis.verdicts import NOT_RUN, NOT_SHOWN, ONE_SEED
from dynaconv.errors import UserError
from dynaconv.figures import short_number

Studies = Mapping[str, Ablation]
METHODS = ("condconv", "dynamic")
COMPARISONS = {
    "evidence": "on CIFAR-10",
    "evidence-imagenette": "on Imagenette",
    "wide": "on 5,000 images of CIFAR-10",
}
"""The comparisons of static, CondConv and Dynamic that the answer is made of, and where they were made."""
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


def answer(studies: Studies) -> list[str]:
    """When it helps, when not, and what it costs: three sentences, as far as the results go."""
    main = studies.get("evidence")
    if main is None:
        return ["Nothing is known yet: no run is done."]
    static = next(row for row in main.rows if row.slug == "static")
    helps: list[str] = []
    others: list[str] = []
    for name in (name for name in COMPARISONS if name in studies):
        study = studies[name]
        pairs = _compared(study)
        better = [pair for pair in pairs if _is_better(pair)]
        for said, chosen in ((helps, better), (others, [pair for pair in pairs if pair not in better])):
            if chosen:
                said.append(f"{_where(name, study)}, {_and([_finding(study, pair) for pair in chosen])}")
    return [
        f"**When it helps:** {'. '.join(map(_capital, helps)) or 'No gain is shown'}.",
        f"**When it does not, or nothing is shown:** {'. '.join(map(_capital, others)) or 'No such comparison'}.",
        f"**What it costs:** {_and([_cost(row, static) for row in main.rows if row.slug in METHODS])}.",
    ]


def _compared(study: Ablation) -> list[Pair]:
    """Each method against the static network, then against wider ones; where a control has not begun, nothing."""
    own = [row.pair for row in study.rows if row.pair and row.slug in METHODS]
    wider = [pair for pair in study.further if pair.against.startswith("wide-")]
    return own + [pair for pair in wider if study.study == "evidence" or pair.difference is not None]


def _is_better(pair: Pair) -> bool:
    found = pair.difference
    return found is not None and pair.verdict not in (NOT_RUN, ONE_SEED, NOT_SHOWN) and found.mean > 0


def _where(name: str, study: Ablation) -> str:
    static = next(row for row in study.rows if row.slug == "static")
    return (
        f"{COMPARISONS[name]} at {study.facts['image_size']} pixels with a ResNet of "
        f"{short_number(static.madds or 0)} multiply-adds, {study.facts['epochs']} epochs and equal recipes"
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _finding(study: Ablation, pair: Pair) -> str:
    """A clause: who, against whom, and by how much; that it is not known where it is not."""
    who, whom = study.label(pair.slug), _against(study, pair)
    found = pair.difference
    if found is None or pair.verdict in (NOT_RUN, ONE_SEED):
        runs = "no pair of runs" if found is None else "one pair of runs"
        return f"whether {who} is better than {whom} is not known yet ({runs} done)"
    seeds = len(found.per_seed)
    interval = f"{found.mean:+.2f} points, 95 % interval {found.low:+.2f} to {found.high:+.2f}, {seeds} seeds"
    if pair.verdict == NOT_SHOWN:
        return f"no difference between {who} and {whom} is shown ({interval})"
    return f"{who} is {'better' if found.mean > 0 else 'worse'} than {whom} ({interval})"


def _against(study: Ablation, pair: Pair) -> str:
    names = {
        "static": "the static network of the same width",
        "wide-time": "a static network widened to the same time",
        "wide-parameters": "a static network widened to as many parameters",
    }
    return names.get(pair.against, study.label(pair.against))


def _cost(row: ArmRow, static: ArmRow) -> str:
    if not row.parameters or not static.parameters or not row.madds or not static.madds:
        return f"the cost of {row.label} is not known yet"
    told = (
        f"{row.label} has {row.parameters / static.parameters:.1f} times the static network's parameters and "
        f"{row.madds / static.madds:.2f} times its multiply-adds"
    )
    if row.step_ratio is None or row.forward_ratio is None:
        return told
    return (
        f"{told}, and takes {row.step_ratio:.1f} times as long for a training step and {row.forward_ratio:.1f} times "
        "for one picture"
    )


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def progress(study: Ablation) -> str:
    """What is done, and what is missing until the intervals are narrow enough, in a paragraph."""
    runs = [f"{row.label} {len(row.seeds)}" for row in study.rows]
    pairs = [row.pair for row in study.rows if row.pair] + list(study.further)
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
            f"Minutes of one run, as it was (the machine did other work at the same time): {', '.join(seconds)}."
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
        name: ``answer``; ``open`` (the studies that are not run yet); or ``STUDY table``, ``progress``, ``singles``,
            ``machines``.

    Raises:
        UserError: there is no such part, or no such study among the results.
    """
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
    """The page with every part between markers made anew."""
    return replaced(page, lambda name: part(name, studies))


def replaced(page: str, make: Callable[[str], str]) -> str:
    """A page with what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` replaced by ``make(NAME)``."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n{make(match[2])}\n{match[3]}"

    return re.sub(r"(<!-- begin (.+?) -->)\n.*?(<!-- end \2 -->)", made, page, flags=re.DOTALL)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(rewritten(target.read_text(), read_studies(target.with_suffix(""))))
