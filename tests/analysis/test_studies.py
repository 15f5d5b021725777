"""The studies say what the papers say, and every one of their networks can be built."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from dynaconv.analysis.studies import STUDIES, find_study
from dynaconv.analysis.study_settings import StudySettings, arm_of
from dynaconv.analysis.widths import at_width
from dynaconv.errors import UserError
from dynaconv.papers.catalogue import read_catalogue
from dynaconv.papers.networks import count, network
from dynaconv.recipes import load
from dynaconv.tasks.network import build_model

RECIPES = {
    "routing": {
        "sigmoid": "condconv_mobilenetv1_025",
        **{
            name: f"condconv_mobilenetv1_025_{name}"
            for name in (
                *("single", "partially_shared", "hidden_small", "hidden_medium", "hidden_large"),
                *("hierarchical", "softmax"),
            )
        },
    },
    "begin": {
        "begin-7": "condconv_mobilenetv1_025",
        **{f"begin-{layer}": f"condconv_mobilenetv1_025_begin_{layer}" for layer in (1, 5, 13)},
        "fc-only": "condconv_mobilenetv1_025_fc_only",
        "no-fc": "condconv_mobilenetv1_025_no_fc",
    },
    "places": {
        "static": "dy_mobilenetv2_050_static",
        **{
            place: f"dy_mobilenetv2_050_layers_{place.replace('-', '_')}"
            for place in ("c1", "c2", "c3", "c1-c3", "c2-c3", "c1-c2", "c1-c2-c3")
        },
    },
    "temperature": {
        "static": "dy_mobilenetv2_050_static",
        "annealed": "dy_mobilenetv2_050",
        **{f"temperature-{t}": f"dy_mobilenetv2_050_temperature_{t}" for t in (1, 5, 10, 20, 30, 40)},
    },
    "squeeze": {
        "static-se": "dy_mobilenetv3_small_static",
        "static": "dy_mobilenetv3_small_nose_static",
        "dynamic-se": "dy_mobilenetv3_small",
        "dynamic": "dy_mobilenetv3_small_nose",
    },
    "methods": {"condconv": "condconv_mobilenetv2_050", "dynamic": "dy_mobilenetv2_050"},
    "keypoints": {
        "static": "keypoints_b_mobilenetv2_050",
        "head": "keypoints_b_dy_mobilenetv2_050_head",
        "backbone": "keypoints_b_dy_mobilenetv2_050_backbone",
        "both": "keypoints_b_dy_mobilenetv2_050",
    },
}
"""The recipe whose claim is the paper's figure of an arm."""
ELSEWHERE = {("begin", "static"): 50.0}  # Table 4 prints Howard et al.'s; the recipe's claim is the text's 50.4


def claimed(recipe: str) -> float:
    claim: dict[str, Any] = load(recipe)["claim"]
    return float(claim["top1"] if claim.get("top1") is not None else claim["published"]["ap"])


@pytest.mark.parametrize("name", STUDIES)
def test_published_figures_are_those_of_the_recipes(name: str) -> None:
    recipes = RECIPES.get(name, {})
    printed = {arm.slug: arm.published for arm in STUDIES[name].arms if arm.published is not None}
    expected = {slug: claimed(recipe) for slug, recipe in recipes.items()}
    expected |= {slug: figure for (study, slug), figure in ELSEWHERE.items() if study == name}
    assert printed == expected


def test_published_figures_are_those_of_the_catalogue() -> None:
    top1 = {entry.name: entry.top1 for entry in read_catalogue()}
    assert STUDIES["methods"].arm("condconv").published == float(top1["condconv_mobilenetv2_050"])
    assert STUDIES["temperature"].arm("annealed").published == float(top1["dy_mobilenetv2_050"])
    assert STUDIES["squeeze"].arm("dynamic").published == float(top1["dy_mobilenetv3_small_nose"])


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_whole(name: str) -> None:
    """Slugs are different, pairs and donors exist, and nothing is compared with itself."""
    study = find_study(name)
    slugs = [arm.slug for arm in study.arms]
    assert len(set(slugs)) == len(slugs)
    pairs = [(arm.slug, arm.against) for arm in study.arms if arm.against]
    pairs += [(one, other) for one, other, _ in study.further]
    assert pairs
    for one, other in pairs:
        assert one != other
        assert {one, other} <= set(slugs)
    for arm in study.arms:
        assert {arm.like, arm.begins_from} - {""} <= set(slugs)
        assert arm.published is None or arm.direction is None, "a printed figure says the sign"
    assert study.source == "" or study.claim.startswith("No paper's") or study.source[-1].isdigit()


@pytest.mark.parametrize("name", STUDIES)
def test_every_network_is_built_and_every_recipe_valid(name: str) -> None:
    study = find_study(name)
    settings = StudySettings.of_study(name, {}, {})
    argument = "num_keypoints" if study.task == "keypoints" else "num_classes"
    shapes = set()
    for arm in study.arms:
        if arm.as_costly:
            continue
        made = arm_of(study, arm, settings)
        recipe = made.recipe(settings, 3)
        assert recipe.seed == 3
        assert recipe.temperature_epochs <= recipe.epochs // 2
        if made.model.method is None:
            with torch.device("meta"):
                network = build_model(made.model, 10, argument=argument)
            shapes.add(tuple(tensor.shape for tensor in network.parameters()))
        assert made.begins_from is None or made.begins_from.training["epochs"] + recipe.epochs == 30
    varied = [arm for arm in study.arms if arm.method is None and arm.args]
    assert len(shapes) >= min(2, len(varied)), "the arms' networks do not differ"


def test_the_default_networks_fit_a_desk() -> None:
    """A network of a study at its default size has at most 25 million multiply-adds (the counter-case more)."""
    for study in STUDIES.values():
        if study.name in ("wide", "keypoints") or study.network == "small_resnet":
            continue
        name = "dy_mobilenetv2_050" if study.network == "mobilenetv2_050" else study.network
        assert count(network(name, int(study.settings["image_size"]))).total < 25e6, study.name


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no study 'temprature'.*'temperature'.*--list"):
        find_study("temprature")
    with pytest.raises(UserError, match=r"no arm 'temperature-3'"):
        find_study("temperature").arm("temperature-3")
    with pytest.raises(UserError, match="no study 'nothing'"):
        StudySettings.of_study("nothing", {}, {})


def test_width_scales_all_arms_alike() -> None:
    study = find_study("experts")
    settings = StudySettings.of_study("experts", {"width": 0.125}, {})
    widths = {arm_of(study, arm, settings).model.args["width_multiplier"] for arm in study.arms}
    assert widths == {0.125, 0.25}
    plain = StudySettings.of_study("routing", {"width": 0.125, "network_args": {"experts": 2}}, {})
    args = arm_of(find_study("routing"), find_study("routing").arms[1], plain).model.args
    assert args == {"experts": 2, "routing": "single", "width_multiplier": 0.125}


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.task == "classification"])
def test_another_network_stands_in_for_the_studys(name: str) -> None:
    """It gets what the arms ask for, and not what belongs to the study's own network: its blocks, its width."""
    study = find_study(name)
    asked = {key for arm in (study, *study.arms) for key in arm.args}
    plain = "dy_mobilenetv2_035" if asked else "mobilenetv2_035"
    other = StudySettings.of_study(name, {"network": plain}, {})
    arms = [arm_of(study, arm, other) for arm in study.arms if not arm.as_costly]
    assert all(set(arm.model.args) <= asked for arm in arms)
    assert not any(one.same_as(two) for one, two in itertools.combinations(arms, 2))
    assert list(build_model(arms[0].model, 10).parameters())


def test_a_dynamic_network_made_static_is_widened_and_made_dynamic_again() -> None:
    study = find_study("evidence")
    settings = StudySettings.of_study(
        "evidence", {"network": "dy_mobilenetv2_035", "network_args": {"static": True}}, {}
    )
    made, own = arm_of(study, study.arm("dynamic"), settings).model, {"name": "mobilenetv2_035", "args": {}}
    sizes = {sum(p.numel() for p in build_model(spec, 10).parameters()) for spec in (made, made.model_copy(update=own))}
    assert len(sizes) == 1, "other than timm's network made dynamic"
    assert at_width(made, 0.5).args == {"static": True, "width_multiplier": 0.5}


def test_small_data_are_taken_whole() -> None:
    settings = StudySettings.of_study("routing", {}, {})
    assert (settings.for_data(500).train_images, settings.for_data(50_000).train_images) == (None, 10_000)
    assert StudySettings.of_study("routing", {"train_images": 99}, {}).for_data(50_000).train_images == 99
    assert settings.facts() == settings.for_data(500).facts()


def test_short_runs_reach_the_last_temperature() -> None:
    study = find_study("temperature")
    settings = StudySettings.of_study("temperature", {}, {"epochs": 6})
    assert arm_of(study, study.arm("annealed"), settings).training["temperature_epochs"] == 3
    assert arm_of(study, study.arm("temperature-5"), settings).training["temperature_epochs"] == 0


def test_facts_do_not_hold_what_may_differ_between_machines() -> None:
    one = StudySettings.of_study("evidence", {"data": "/a", "seeds": (0,), "workers": 3}, {"device": "cpu"})
    other = StudySettings.of_study("evidence", {"data": "/b", "seeds": (0, 1), "arms": ("static",)}, {"device": "auto"})
    assert one.facts() == other.facts()
    assert one.facts() != StudySettings.of_study("evidence", {}, {"lr": 0.1}).facts()
