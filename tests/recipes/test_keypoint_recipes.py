"""Keypoint recipes: the tables' figures and the settings of section 6, written here a second time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dynaconv.recipes import list_recipes, resolve
from dynaconv.tasks.keypoints import KeypointOptions
from dynaconv.tasks.network import build_model
from dynaconv.train import TrainSettings
from dynaconv.train.optimizer import build_optimizer, build_schedule

# Chen et al. 2020, Tables 10 and 11: average precision in percent
AP = {
    **{"a_resnet18": 67.0, "a_dy_resnet18": 68.6, "a_mobilenetv2_100": 64.7, "a_dy_mobilenetv2_100": 67.6},
    **{"a_mobilenetv2_050": 57.0, "a_dy_mobilenetv2_050": 61.9, "a_mobilenetv3_small": 57.1},
    **{"a_dy_mobilenetv3_small": 59.3, "b_mobilenetv2_100": 64.6, "b_dy_mobilenetv2_100": 68.2},
    **{"b_mobilenetv2_050": 59.2, "b_dy_mobilenetv2_050": 62.8, "b_mobilenetv3_small": 57.1},
    **{"b_dy_mobilenetv3_small": 60.0, "b_dy_mobilenetv2_050_head": 60.3, "b_dy_mobilenetv2_050_backbone": 62.3},
}


def test_every_row_has_its_recipe() -> None:
    assert set(list_recipes("keypoints")) == {f"keypoints_{name}" for name in [*AP, "mouse", "mouse_static"]}


@pytest.mark.parametrize("name", AP)
def test_figures_and_settings_are_the_papers(name: str) -> None:
    recipe = resolve(f"keypoints_{name}")
    assert (recipe.task, recipe.image_size, recipe.settings.epochs) == ("keypoints", (256, 192), 210)
    assert recipe.claim is not None
    assert recipe.claim.published["ap"] == AP[name]
    assert recipe.claim.reproduced == "no"
    settings = recipe.settings
    assert isinstance(settings, KeypointOptions)
    assert (settings.rotation, settings.scale) == (45, (0.65, 1.35))
    assert (settings.temperature_start, settings.temperature_end) == (30, 30)


def test_learning_rates() -> None:
    settings = resolve("keypoints_b_dy_mobilenetv2_050").settings
    optimizer = build_optimizer(torch.nn.Linear(2, 2), settings)
    assert type(optimizer) is torch.optim.Adam
    schedule = build_schedule(optimizer, settings, steps_per_epoch=10)
    for epoch, rate in {0: 1e-3, 169: 1e-3, 170: 1e-4, 199: 1e-4, 200: 1e-5, 209: 1e-5}.items():
        schedule.step_update(epoch * 10)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate), epoch


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_the_rate_falls_at_the_milestone_and_not_before(per: Any) -> None:
    """timm's schedule alone is early: by a step, or by a whole epoch."""
    settings = TrainSettings(sched="multistep", sched_per=per, milestones=(3, 5), lr=1.0, decay_rate=0.1, epochs=7)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), settings)
    schedule = build_schedule(optimizer, settings, steps_per_epoch=4)
    rates = []
    for step in range(7 * 4):  # as the loop does it
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step_update(step + 1)
        if step % 4 == 3:
            schedule.step(step // 4 + 1)
    assert rates == pytest.approx([1.0] * 12 + [0.1] * 8 + [0.01] * 8)


@pytest.mark.parametrize("name", ["head", "backbone"])
def test_table_11_makes_one_part_dynamic(name: str) -> None:
    with torch.device("meta"):
        network = build_model(resolve(f"keypoints_b_dy_mobilenetv2_050_{name}").model, 17, argument="num_keypoints")
    routers = [part for part, module in network.named_modules() if getattr(module, "is_router", False)]
    assert routers
    assert all(part.startswith(name) for part in routers)
