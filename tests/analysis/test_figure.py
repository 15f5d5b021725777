"""The picture shows every network, with its spread, and can be told apart without colours."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import matplotlib.image
import numpy as np
import pytest

from dynaconv.analysis.comparison import Comparison, Row
from dynaconv.analysis.figure import draw
from dynaconv.analysis.report import cells, headings, markdown, notes, unstable
from dynaconv.analysis.statistics import paired_difference, spread
from dynaconv.figures import short_number
from dynaconv.tasks.task import Metric


def row(method: str, experts: int | None, madds: float, top1: tuple[float, ...]) -> Row:
    right = [[1] * round(10 * value) + [0] * round(1000 - 10 * value) for value in top1]
    base = [[1] * 900 + [0] * 100 for _ in top1]
    return Row(
        method=method,
        experts=experts,
        parameters=400_000,
        madds=madds,
        values=top1,
        mean=sum(top1) / len(top1),
        spread=spread(top1),
        difference=None if experts is None else paired_difference(right, base),
        train_seconds_per_image=1.5e-3,
        train_ratio=1.0 if experts is None else 2.25,
        latency_seconds=2e-3,
        latency_ratio=1.0,
        step_bytes=12_000_000,
        step_bytes_ratio=1.0,
        curve=tuple((epoch, tuple(value - 10 / epoch for value in top1)) for epoch in range(1, 6)),
        routing_entropy=None,
        dropped_steps=0,
        conclusion=f"{method}: a sentence.",
    )


def comparison(seeds: int = 3) -> Comparison:
    training = {
        **{"epochs": 5, "opt": "adamw", "lr": 0.003, "sched": "cosine", "weight_decay": 0.05},
        **{"temperature_start": 30.0, "temperature_end": 1.0, "temperature_epochs": 2},
    }
    return Comparison(
        backbone="some_network",
        task="classification",
        metric=Metric("top1", "top-1", percent=True),
        baseline={"top1": 0.1},
        data="some data",
        test_images=1000,
        image_size=32,
        batch_size=64,
        seeds=tuple(range(seeds)),
        settings={
            **{"training": training, "augment": {"crop": "pad", "hflip": 0.0}, "model_args": {"width": 2}},
            "pretrained": False,
        },
        about={"device": "cpu", "threads": 2, "torch": "x", "timm": "x", "dynaconv": "x"},
        rows=(
            row("static", None, 4.1e6, (90.0, 90.5, 89.7)[:seeds]),
            row("dynamic", 4, 5.6e6, (91.5, 92.3, 91.0)[:seeds]),
            row("condconv", 8, 7.1e6, (92.0, 92.1, 91.2)[:seeds]),
        ),
    )


@pytest.mark.parametrize("seeds", [1, 3])
def test_three_panels_with_every_network(seeds: int) -> None:
    figure = draw(comparison(seeds))
    left, right, differences = figure.axes
    assert left.get_xlabel() == "MAdds per image (32x32)"
    lines = right.get_lines()
    assert [line.get_label() for line in lines] == ["static", "dynamic K=4", "condconv K=8"]
    for look in ("color", "marker", "linestyle"):
        assert len({getattr(line, f"get_{look}")() for line in lines}) == 3, look
    assert len(right.collections) == (3 if seeds > 1 else 0)  # bands
    assert [label.get_text() for label in differences.get_yticklabels()] == ["dynamic K=4", "condconv K=8"]
    means = [line.get_xdata()[0] for line in differences.get_lines() if line.get_marker() in ("s", "^")]
    assert means == pytest.approx([row.difference.mean for row in comparison(seeds).rows if row.difference])


def test_the_interval_that_decides_is_drawn() -> None:
    *_, differences = draw(comparison()).axes
    drawn = [list(line.get_xdata()) for line in differences.get_lines() if line.get_marker() == "|"]
    assert drawn == [[row.difference.low, row.difference.high] for row in comparison().rows if row.difference]
    assert "95 % interval" in differences.get_title(loc="left")
    assert "no interval" in draw(comparison(1)).axes[2].get_title(loc="left")


def test_an_unsteady_timing_is_marked() -> None:
    assert unstable((1.0, 1.2))
    assert not unstable((1.0, 1.05))
    steady = comparison()
    rows = (steady.rows[0], replace(steady.rows[1], train_ratio_quartiles=(2.0, 2.5)), steady.rows[2])
    shaky = replace(steady, rows=rows)
    assert cells(shaky.rows[1])[6] == "1.5\nx2.25?"
    assert any(note.startswith("? marks") for note in notes(shaky))
    assert not any(note.startswith("?") for note in notes(steady))


def test_no_text_overlaps() -> None:
    figure = draw(comparison())
    figure.canvas.draw()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]
            assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_ink_on_paper() -> None:
    picture = io.BytesIO()
    draw(comparison()).savefig(picture, format="png", dpi=100)
    pixels = matplotlib.image.imread(io.BytesIO(picture.getvalue()))
    assert pixels.shape[0] > 200
    assert 0.01 < float(np.mean(pixels[..., :3].mean(axis=2) < 0.9)) < 0.5


def test_cells_by_hand() -> None:
    static, dynamic, _ = comparison().rows
    assert len(cells(static)) == len(headings(comparison()))
    assert cells(static)[:6] == ["static", "", "400 K", "4.10 M", "90.07 ± 0.40", ""]
    assert cells(dynamic)[5] == "+1.60\n[-0.03, +3.23]"
    assert cells(dynamic)[6] == "1.5\nx2.25"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 K"), (408_938, "409 K"), (999_600, "1.00 M"), (12_345_678, "12.3 M")],
)
def test_count(number: float, text: str) -> None:
    assert short_number(number) == text


def test_notes_name_seeds_images_and_recipe() -> None:
    text = "\n".join(notes(comparison()))
    for words in ("width=2", "5 epochs", "batch 64", "adamw", "1,000 test images", "3 seeds (0, 1, 2)", "Student's t"):
        assert words in text
    assert "interval" not in "\n".join(notes(comparison(1)))
    assert markdown(comparison()).count("\n| ") == 4


@pytest.mark.parametrize(("share", "said"), [(None, False), (0.01, False), (0.26, True)])
def test_where_much_is_mixed_the_notes_say_that_the_price_is_inherent(share: float | None, said: bool) -> None:
    first = comparison()
    mixed = replace(first, rows=(first.rows[0], *(replace(one, mixing_share=share) for one in first.rows[1:])))
    sentence = [note for note in notes(mixed) if "on mixing a kernel for every image" in note]
    assert bool(sentence) == said
    assert not said or sentence[0].startswith("At 32 pixels this network spends 26% (dynamic K=4)")
