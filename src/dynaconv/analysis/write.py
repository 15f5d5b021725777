"""The answer as files: JSON, CSV, markdown, the picture."""

from __future__ import annotations

import csv
import io
import json

from dynaconv.analysis.comparison import Comparison, Row
from dynaconv.analysis.figure import draw
from dynaconv.analysis.folder import CompareFolder
from dynaconv.analysis.table import markdown

NAME = "compare"


def write_all(comparison: Comparison, folder: CompareFolder) -> None:
    """Write ``compare.json``, ``.csv``, ``.md``, ``.png``, ``.pdf``; each is whole or not there."""
    folder.write(folder.path / f"{NAME}.json", as_json(comparison))
    folder.write(folder.path / f"{NAME}.csv", as_csv(comparison))
    folder.write(folder.path / f"{NAME}.md", markdown(comparison))
    figure = draw(comparison)
    for kind in ("png", "pdf"):
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=200)
        folder.write_bytes(folder.path / f"{NAME}.{kind}", picture.getvalue())


def as_json(comparison: Comparison) -> str:
    """All figures, unrounded."""
    return json.dumps(comparison.plain(), indent=2)


def as_csv(comparison: Comparison) -> str:
    """One line per network; an empty cell is a figure that cannot be given."""
    rows = [_flat(row, comparison.seeds) for row in comparison.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _flat(row: Row, seeds: tuple[int, ...]) -> dict[str, object]:
    difference = row.difference
    return {
        "method": row.method,
        "experts": row.experts,
        "parameters": row.parameters,
        "madds": row.madds,
        "top1_mean": row.top1_mean,
        "top1_spread": row.top1_spread,
        "difference": difference and difference.mean,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
        "difference_test_margin": difference and difference.test_margin,
        "train_seconds_per_image": row.train_seconds_per_image,
        "train_ratio": row.train_ratio,
        "latency_seconds": row.latency_seconds,
        "latency_ratio": row.latency_ratio,
        "step_bytes": row.step_bytes,
        "step_bytes_ratio": row.step_bytes_ratio,
        **{f"top1_seed{seed}": top1 for seed, top1 in zip(seeds, row.top1, strict=True)},
    }
