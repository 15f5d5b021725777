"""What routers do in the networks of ``docs/evidence.md``: the raw figures of their inspections, and tables of them.

``python -m dynaconv.analysis.routes.evidence keep RAW ARM SEED inspect.json`` adds an inspection to the raw file;
``python -m dynaconv.analysis.routes.evidence page docs/inspect.md`` writes the tables of the page anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynaconv.analysis.evidence import replaced
from dynaconv.analysis.routes.interventions import KERNELS, PUBLISHED_KERNELS, PUBLISHED_RESOLUTIONS, size_name
from dynaconv.errors import UserError
from dynaconv.files import write_text

FORMAT = 1
ARMS = {"condconv": "CondConv K=8", "dynamic": "dynamic K=4"}
PAPER = "DY-MobileNetV2 0.5x, ImageNet (published)"
OF_ROUTER = ("name", "router", "experts", "resolution", "entropy", "entropy_deviation", "class_share")

Runs = Mapping[str, Mapping[str, Any]]
Value = Callable[[Mapping[str, Any]], float]


def kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an ``inspect.json``: a few numbers of every router, and the interventions.

    Raises:
        UserError: the interventions were not measured.
    """
    tables = found["interventions"]
    if tables is None:
        raise UserError("This inspection has no interventions; inspect with --intervene.")
    routers = []
    for router in found["routers"]:
        few = {name: router[name] for name in (*OF_ROUTER, "constant", "dead")}
        few["twins"] = sum(len(pairs) for pairs in router["twins"].values())
        cosines = [value for matrix in router["similarity"].values() for value in _above_diagonal(matrix)]
        few["largest_cosine"] = max(cosines, default=None)
        few["near_0"], few["near_1"] = _ends(router["histogram"])
        routers.append(few)
    return {
        **{name: found[name] for name in ("network", "images", "top1", "top5")},
        "routers": routers,
        "kernels": [{name: row[name] for name in ("how", "top1", "top5")} for row in tables["kernels"]],
        "resolutions": tables["resolutions"],
        "by_resolution": tables["by_resolution"],
    }


def _above_diagonal(matrix: Sequence[Sequence[float | None]]) -> list[float]:
    return [value for row, line in enumerate(matrix) for value in line[row + 1 :] if value is not None]


def _ends(histogram: Sequence[int]) -> tuple[float, float]:
    """The share of the weights in the lowest and in the highest tenth of 0 to 1."""
    tenth, total = len(histogram) // 10, max(sum(histogram), 1)
    return sum(histogram[:tenth]) / total, sum(histogram[-tenth:]) / total


def keep(raw: Path, arm: str, seed: int, found: Path) -> None:
    """Add the inspection of an arm's network of a seed to the raw file."""
    empty: dict[str, Any] = {"format": FORMAT, "data": "CIFAR-10, test images", "runs": {}}
    content = read(raw) if raw.is_file() else empty
    runs = content["runs"].setdefault(arm, {})
    runs[str(seed)] = kept(json.loads(found.read_text()))
    content["runs"] = {name: dict(sorted(content["runs"][name].items())) for name in sorted(content["runs"])}
    write_text(raw, json.dumps(content, indent=1) + "\n")


def read(raw: Path) -> dict[str, Any]:
    """The raw file.

    Raises:
        UserError: it is none.
    """
    try:
        content = json.loads(raw.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{raw} cannot be read: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "runs" not in content:
        raise UserError(f"{raw} holds no inspections of the evidence's networks.")
    return content


def routers(runs: Runs) -> str:
    """A row for every router of an arm: means over the seeds (the class share over those in which weights vary), and
    counts seed by seed where one is not 0."""
    lines = [
        "| routing of | input | entropy | class share, % | weights < 0.1 / > 0.9, % | largest cosine "
        "| constant | dead | twins |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for place, router in enumerate(next(iter(runs.values()))["routers"]):

        def values(name: str, place: int = place) -> list[Any]:
            return [run["routers"][place][name] for run in runs.values()]

        dead = [len(experts) for experts in values("dead")]
        shares = [100 * share for share in values("class_share") if share is not None]
        cells = [
            f"`{router['name']}`",
            size_name(router["resolution"]),
            told(values("entropy"), 2),
            told(shares, 0) if shares else "-",
            f"{100 * np.mean(values('near_0')):.0f} / {100 * np.mean(values('near_1')):.0f}",
            told(values("largest_cosine"), 2),
            *(_by_seed(counts) for counts in (list(map(int, values("constant"))), dead, values("twins"))),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_seed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts)) if any(counts) else "0"


def kernels(arms: Mapping[str, Runs]) -> str:
    """Table 3 of Chen et al. 2020: the paper's figures, and every arm's mean and standard deviation over its seeds."""
    titles = [f"{ARMS[arm]}, {seeds(runs)}" for arm, runs in arms.items()]
    head = f"| kernels | {PAPER}: top-1 | top-5 | " + " | ".join(f"{title}: top-1 | top-5" for title in titles) + " |"
    lines = [head, "| --- | " + " | ".join(["---:"] * (2 + 2 * len(arms))) + " |"]
    for place, (how, label) in enumerate(KERNELS):
        cells = [label, *(f"{value:.1f}" for value in PUBLISHED_KERNELS[how])]
        for runs in arms.values():
            rows = [run["kernels"][place] for run in runs.values()]
            cells += [told([100 * row[metric] for row in rows], 1) for metric in ("top1", "top5")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def resolutions(runs: Runs) -> str:
    """Table 4 of Chen et al. 2020 for an arm; its last column is how much of the way from average to own weights."""
    first = next(iter(runs.values()))
    lines = _resolution_head([size_name(size) for size in first["resolutions"]])
    for place, row in enumerate(first["by_resolution"]):
        top1, top5 = (
            [100 * run["by_resolution"][place][metric] for run in runs.values()] for metric in ("top1", "top5")
        )
        ways = [_way(run["by_resolution"][place]["top1"], run) for run in runs.values()]
        marks = ["on" if on else "-" for on in row["enabled"]]
        lines.append("| " + " | ".join([*marks, told(top1, 1), told(top5, 1), f"{np.mean(ways):.0f}"]) + " |")
    return "\n".join(lines)


def published_resolutions() -> str:
    """Table 4 as the paper prints it, with the same last column."""
    lines = _resolution_head(["112²", "56²", "28²", "14²", "7²"])
    own, average = PUBLISHED_KERNELS["none"][0], PUBLISHED_KERNELS["average"][0]
    for enabled, top1, top5 in PUBLISHED_RESOLUTIONS:
        marks = ["on" if mark == "x" else "-" for mark in enabled]
        way = 100 * (top1 - average) / (own - average)
        lines.append("| " + " | ".join([*marks, f"{top1:.1f}", f"{top5:.1f}", f"{way:.0f}"]) + " |")
    return "\n".join(lines)


def _resolution_head(sizes: Sequence[str]) -> list[str]:
    return [
        "| " + " | ".join([*sizes, "top-1", "top-5", "of the gain, %"]) + " |",
        "| " + " | ".join(["---"] * len(sizes) + ["---:"] * 3) + " |",
    ]


def _way(top1: float, run: Mapping[str, Any]) -> float:
    by_name = {row["how"]: row["top1"] for row in run["kernels"]}
    return float(100 * (top1 - by_name["average"]) / (by_name["none"] - by_name["average"]))


def told(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation (n - 1); of one run its value.

    >>> told([69.0, 71.0], 1), told([70.0], 1)
    ('70.0 ± 1.4', '70.0')
    """
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def seeds(runs: Runs) -> str:
    """How many seeds, in words."""
    return f"{len(runs)} seed{'' if len(runs) == 1 else 's'}"


def part(name: str, arms: Mapping[str, Runs]) -> str:
    """The text between two markers: ``kernels``, ``resolutions published``, ``resolutions ARM``, ``routers ARM``.

    Raises:
        UserError: there is no such part, or no such arm among the inspections.
    """
    what, _, arm = name.partition(" ")
    if what == "kernels":
        return kernels(arms)
    if name == "resolutions published":
        return published_resolutions()
    if arm in arms and what == "routers":
        return routers(arms[arm])
    if arm in arms and what == "resolutions":
        return resolutions(arms[arm])
    raise UserError(f"The page has a part {name!r}; expected kernels, or routers or resolutions and an arm.")


def rewritten(page: str, arms: Mapping[str, Runs]) -> str:
    """The page with every part between markers made anew."""
    return replaced(page, lambda name: part(name, arms))


def _main(words: Sequence[str]) -> None:
    if words[0] == "keep":
        keep(Path(words[1]), words[2], int(words[3]), Path(words[4]))
    else:
        page = Path(words[1])
        page.write_text(rewritten(page.read_text(), read(page.parent / "evidence" / "interventions.json")["runs"]))


if __name__ == "__main__":
    _main(sys.argv[1:])
