"""The comparison for people and programs: the cells of its table, and the files that it is written to."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from dynaconv.analysis.comparison import Comparison, Row
from dynaconv.analysis.folder import CompareFolder
from dynaconv.figures import short_number

NAME = "compare"  # of the files
STEADY = 0.1
SHAKY = "?"
MUCH_MIXING = 0.05  # share of the multiply-adds from which the notes say so
FEW = 5  # seeds, below which the table says that they are few


def headings(comparison: Comparison) -> tuple[str, ...]:
    """Of the table's columns."""
    return (
        "method",
        "experts",
        "params",
        "MAdds",
        comparison.metric.heading,
        "difference,\n[95 %]",
        "training,\nms/image",
        "latency,\nms",
        "memory,\nMB",
    )


def cells(row: Row) -> list[str]:
    """One row; the second line of a cell is the ratio to static, or the interval."""
    return [
        row.method,
        "" if row.experts is None else str(row.experts),
        short_number(row.parameters),
        short_number(row.madds),
        f"{row.mean:.2f}" + ("" if row.spread is None else f" ± {row.spread:.2f}"),
        _difference(row),
        _with_ratio(
            f"{1e3 * row.train_seconds_per_image:.3g}", row, row.train_ratio, unstable(row.train_ratio_quartiles)
        ),
        _with_ratio(f"{1e3 * row.latency_seconds:.3g}", row, row.latency_ratio, unstable(row.latency_ratio_quartiles)),
        _with_ratio(f"{row.step_bytes / 1e6:,.0f}", row, row.step_bytes_ratio),
    ]


def unstable(quartiles: tuple[float, float] | None) -> bool:
    """Return whether the quartiles of a ratio differ by more than a tenth."""
    return quartiles is not None and quartiles[1] - quartiles[0] > STEADY * quartiles[0]


def notes(comparison: Comparison) -> list[str]:
    """Notes for readers of the table."""
    seeds = len(comparison.seeds)
    recipe = comparison.settings["training"]
    label = comparison.metric.label
    temperature = ""
    if any(row.method == "dynamic" for row in comparison.rows):
        temperature = (
            f"; temperature {recipe['temperature_start']:g} to {recipe['temperature_end']:g} in "
            f"{recipe['temperature_epochs']} epochs"
        )
    begin = _beginning(comparison.settings)
    lines = [
        f"{comparison.backbone}{_arguments(comparison.settings['model_args'])} on {comparison.data}.",
        f"One recipe for all, from {begin}: {recipe['epochs']} epochs, batch {comparison.batch_size}, {recipe['opt']}, "
        f"lr {recipe['lr']:g} ({recipe['sched']}), weight decay {recipe['weight_decay']:g}{temperature}. Augmentation: "
        f"{_augmentation(comparison.settings['augment'])}.",
        f"{label[0].upper()}{label[1:]} of the last epoch on {comparison.test_images:,} test images: mean"
        + (" ± standard deviation" if seeds > 1 else "")
        + f" over {seeds} seed{'s' if seeds > 1 else ''} ({', '.join(map(str, comparison.seeds))}).",
    ]
    if comparison.metric.name in comparison.baseline:
        guess = comparison.metric.text(comparison.baseline[comparison.metric.name])
        lines.append(f"Guessed without looking at the pictures: {label} {guess}.")
    if seeds > 1:
        lines.append(_interval_note(comparison))
    lines.append(
        f"Training (a step at that batch, loading left out), latency (one image, {_form(comparison)}) and memory (peak "
        f"of a step): measured in turns with static on {comparison.about['device']}{_threads(comparison.about)}; "
        "below, times static's."
    )
    lines += _mixing_notes(comparison)
    shaky = [
        row for row in comparison.rows if unstable(row.train_ratio_quartiles) or unstable(row.latency_ratio_quartiles)
    ]
    if shaky:
        lines.append(
            f"{SHAKY} marks a timing that was not steady: the middle half of its rounds differs by over a tenth."
        )
    return lines


def _form(comparison: Comparison) -> str:
    if all(row.frozen for row in comparison.rows):
        return "networks frozen as for serving, static too"
    return "networks as they are, not frozen"


def _mixing_notes(comparison: Comparison) -> list[str]:
    """Where mixing is much of the work its price is inherent: its multiply-adds do not get fewer with the image."""
    shares = [
        f"{row.mixing_share:.0%} ({row.label})"
        for row in comparison.rows
        if row.mixing_share is not None and row.mixing_share >= MUCH_MIXING
    ]
    if not shares:
        return []
    return [
        f"At {comparison.image_size} pixels this network spends {', '.join(shares)} of its multiply-adds on mixing a "
        "kernel for every image; that part of the price does not depend on the size of the image."
    ]


def markdown(comparison: Comparison) -> str:
    """The whole result as Markdown, for a page of documentation."""
    columns = [heading.replace("\n", " ") for heading in headings(comparison)]
    lines = [_bar(columns), _bar(["---", *["---:"] * (len(columns) - 1)])]
    lines += [_bar([cell.replace("\n", "<br>") for cell in cells(row)]) for row in comparison.rows]
    conclusions = [f"- {row.conclusion}" for row in comparison.rows[1:]]
    return "\n".join([*lines, "", *conclusions, "", *[f"{note}  " for note in notes(comparison)]]).rstrip()


def _beginning(settings: dict[str, Any]) -> str:
    if settings.get("finetune"):
        return ", ".join(f"{path} ({method})" for method, path in settings["finetune"].items())
    return "pretrained weights" if settings["pretrained"] else settings.get("weights") or "scratch"


def _augmentation(chosen: dict[str, object] | None) -> str:
    """What is switched on, by the names of the options."""
    on = [f"{name} {_option(value)}" for name, value in (chosen or {}).items() if value not in (None, False, 0)]
    return ", ".join(on) or "none"


def _option(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_option, value))
    return f"{value:.3g}" if isinstance(value, float) else "on" if value is True else str(value)


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    first = f"{row.difference.mean:+.2f}"
    if row.difference.low is None:
        return f"{first}\n[no interval]"
    return f"{first}\n[{row.difference.low:+.2f}, {row.difference.high:+.2f}]"


def _with_ratio(text: str, row: Row, ratio: float, shaky: bool = False) -> str:
    return text if row.experts is None else f"{text}\nx{ratio:.2f}{SHAKY if shaky else ''}"


def _interval_note(comparison: Comparison) -> str:
    margins = [
        f"{row.difference.test_margin:.2f} ({row.label})"
        for row in comparison.rows
        if row.difference is not None and row.difference.test_margin is not None
    ]
    seeds = len(comparison.seeds)
    few = f" {seeds} seeds are few, and the interval is as wide as that makes it." if seeds < FEW else ""
    others = (
        f"Another test set of this size alone would move a difference by ± {', '.join(margins)}."
        if margins
        else f"What other test images would change is not known: {comparison.metric.label} is no mean over images."
    )
    unit = ", in points" if comparison.metric.percent else ""
    return (
        f"Difference: to static{unit}; its interval is Student's t over the {seeds} differences of equal seeds, "
        f"so it covers the luck of the seed on these test images.{few} {others}"
    )


def _threads(about: dict[str, object]) -> str:
    return f" ({about['threads']} threads)" if about["device"] == "cpu" else ""


def _arguments(model_args: dict[str, object]) -> str:
    return f" ({', '.join(f'{name}={value}' for name, value in model_args.items())})" if model_args else ""


def _bar(parts: Sequence[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def write_all(comparison: Comparison, folder: CompareFolder) -> None:
    """Write ``compare.json``, ``.csv``, ``.md``, ``.png``, ``.pdf``; each is whole or not there."""
    folder.write(folder.path / f"{NAME}.json", as_json(comparison))
    folder.write(folder.path / f"{NAME}.csv", as_csv(comparison))
    folder.write(folder.path / f"{NAME}.md", markdown(comparison))
    from dynaconv.analysis.figure import draw

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
    rows = [_flat(row, comparison) for row in comparison.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _flat(row: Row, comparison: Comparison) -> dict[str, object]:
    difference, metric = row.difference, comparison.metric.name
    return {
        "method": row.method,
        "experts": row.experts,
        "parameters": row.parameters,
        "madds": row.madds,
        f"{metric}_mean": row.mean,
        f"{metric}_spread": row.spread,
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
        **{f"{metric}_seed{seed}": value for seed, value in zip(comparison.seeds, row.values, strict=True)},
    }
