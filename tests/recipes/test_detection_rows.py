"""The recipes of SSD300: what section 4.2 of Yang et al. 2019 states, written here a second time."""

from __future__ import annotations

import pytest
import torch

from dynaconv.recipes import header, list_recipes, resolve
from dynaconv.tasks.detection import DetectionOptions
from dynaconv.train.optimizer import build_optimizer, build_schedule

# recipe: AP in percent, that of the static twin
TABLE_2 = {"050": (18.0, 14.4), "075": (21.0, 18.2), "100": (22.4, 20.3)}
NAMES = list_recipes("detection")


def test_every_row_has_its_recipe_and_its_static_twin() -> None:
    rows = [f"ssd300_condconv_mobilenetv1_{width}" for width in (*TABLE_2, "050_small")]
    assert sorted(NAMES) == sorted([*rows, *(f"{name}_static" for name in rows)])


@pytest.mark.parametrize("width", TABLE_2)
def test_claims_are_the_published_figures(width: str) -> None:
    ap, static = TABLE_2[width]
    dynamic, twin = (resolve(f"ssd300_condconv_mobilenetv1_{width}{end}").claim for end in ("", "_static"))
    assert dynamic is not None
    assert twin is not None
    assert (dynamic.published, twin.published) == ({"ap": ap}, {"ap": static})
    assert dynamic.reproduced == twin.reproduced == "no"
    assert f"{ap} %" in header(f"ssd300_condconv_mobilenetv1_{width}")


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_static")])
def test_a_static_twin_differs_in_its_network_alone(name: str) -> None:
    twin, dynamic = resolve(name), resolve(name.removesuffix("_static"))
    without = {"claim", "model"}
    assert twin.model_dump(exclude=without) == dynamic.model_dump(exclude=without)
    assert twin.model.name == dynamic.model.name.replace("condconv_", "")


def test_the_schedule_is_the_papers() -> None:
    """20,000 steps; 0.3 to 0.9 in the first 1,000; then a cosine to 0. One epoch has 112 steps."""
    recipe = resolve("ssd300_condconv_mobilenetv1_100")
    settings, steps = recipe.settings, 115_287 // 1024
    assert (recipe.batch_size, recipe.image_size, steps) == (1024, 300, 112)
    assert settings.epochs * steps == pytest.approx(20_000, rel=0.005)
    assert settings.warmup_epochs * steps == pytest.approx(1_000, rel=0.01)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), settings)
    schedule = build_schedule(optimizer, settings, steps)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3)
    for step, rate in ((504, 0.6), (1008, 0.9), (10_024, 0.45), (20_048, 0.0)):
        schedule.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, abs=0.006), step


def test_the_augmentation_is_the_ssd_papers() -> None:
    settings = resolve("ssd300_condconv_mobilenetv1_050").settings
    assert isinstance(settings, DetectionOptions)
    assert (settings.distort, settings.zoom_out, settings.iou_crop, settings.hflip) == (True, 0.5, True, 0.5)
