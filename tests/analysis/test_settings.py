"""Settings are checked once, with sentences that help."""

from __future__ import annotations

from typing import Any

import pytest

from dynaconv.analysis import CompareSettings
from dynaconv.analysis.arms import compared_arms
from dynaconv.analysis.settings import RECIPE
from dynaconv.errors import UserError
from dynaconv.train import TrainSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": ("dynamc",)}, r"no method 'dynamc'.*Did you mean 'dynamic'"),
        ({"methods": ("static",)}, "at least one of dynamic, condconv"),
        ({"methods": ()}, "at least one"),
        ({"experts": (0,)}, "experts is 0; expected at least 1"),
        ({"seeds": ()}, "at least one"),
        ({"seeds": (-1,)}, "none below 0"),
        ({"share": "blok"}, "'layer' or 'block'"),
        ({"batch_size": 0}, "batch_size"),
        ({"epoch": 3}, "no setting 'epoch'"),
        ({"task": "detection"}, "task detection needs its own settings"),
        ({"task": "keypoint"}, "no task 'keypoint'"),
        ({"training": TrainSettings(ema=0.9)}, "ema is not for comparisons"),
    ],
)
def test_mistakes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CompareSettings(**values)


def test_contenders_static_first_and_every_k() -> None:
    def slugs(settings: CompareSettings) -> list[str]:
        return [arm.slug for arm in compared_arms(settings)]

    assert slugs(CompareSettings()) == ["static", "dynamic-k4", "condconv-k8"]
    settings = CompareSettings(methods=("static", "condconv", "condconv"), experts=(2, 3, 2))
    assert slugs(settings) == ["static", "condconv-k2", "condconv-k3"]
    assert [arm.label for arm in compared_arms(settings)] == ["static", "condconv K=2", "condconv K=3"]


def test_facts_are_what_results_share() -> None:
    plain = CompareSettings()
    added = CompareSettings(seeds=(0, 1, 2, 3), methods=("dynamic",), experts=(2,), workers=2)
    assert added.facts() == plain.facts()
    assert added.default_folder() == plain.default_folder()
    other = CompareSettings(training=RECIPE.model_copy(update={"lr": 0.01}))
    assert [name for name, value in other.facts().items() if plain.facts()[name] != value] == ["lr"]
    assert other.default_folder() != plain.default_folder()
