"""Recipes: what the papers state, written here a second time, is what every recipe resolves to."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from dynaconv.cli.train import train
from dynaconv.errors import UserError
from dynaconv.models import ZOO, Options
from dynaconv.models.builder import known_arguments
from dynaconv.models.options import Design, check_arguments
from dynaconv.recipes import header, list_recipes, load, resolve
from dynaconv.tasks.classification import ImageData, Preprocess, open_splits
from dynaconv.tasks.classification.source import Subset
from dynaconv.tasks.network import build_model
from dynaconv.train import fit
from dynaconv.train.optimizer import build_optimizer, build_schedule
from dynaconv.train.recipe import Recipe, resolve_recipe

CLASSIFIERS = list_recipes("classification")
PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "cost" / "published.csv"

# name: (top-1, the static twin's), in percent, read from the papers' tables
TOP1: dict[str, tuple[float | None, float | None]] = {
    "condconv_mobilenetv1_100": (73.7, 71.9),
    "condconv_mobilenetv2_100": (74.6, 71.6),
    "condconv_mnasnet_a1": (76.2, 74.9),
    "condconv_resnet50": (78.6, 77.7),
    "condconv_efficientnet_b0": (78.3, 77.2),
    "condconv_efficientnet_b0_depth": (79.5, None),
    "condconv_efficientnet_b0_4e": (77.8, 77.3),
    "condconv_mobilenetv1_050_32e": (71.6, None),
    "condconv_mobilenetv1_025": (62.0, 50.4),
    "condconv_mobilenetv1_025_single": (56.5, 50.4),
    "condconv_mobilenetv1_025_partially_shared": (62.5, 50.4),
    "condconv_mobilenetv1_025_hidden_small": (57.7, 50.4),
    "condconv_mobilenetv1_025_hidden_medium": (62.2, 50.4),
    "condconv_mobilenetv1_025_hidden_large": (54.1, 50.4),
    "condconv_mobilenetv1_025_hierarchical": (60.3, 50.4),
    "condconv_mobilenetv1_025_softmax": (60.5, 50.4),
    "condconv_mobilenetv1_025_begin_1": (62.5, 50.4),
    "condconv_mobilenetv1_025_begin_5": (62.0, 50.4),
    "condconv_mobilenetv1_025_begin_13": (59.5, 50.4),
    "condconv_mobilenetv1_025_fc_only": (54.2, 50.4),
    "condconv_mobilenetv1_025_no_fc": (60.2, 50.4),
    "condconv_mobilenetv2_050": (68.4, 65.4),
    "dy_mobilenetv2_100": (75.2, 72.0),
    "dy_mobilenetv2_075": (73.7, 69.8),
    "dy_mobilenetv2_050": (69.9, 65.4),
    "dy_mobilenetv2_035": (65.9, 60.3),
    "dy_mobilenetv3_small": (70.3, 67.4),
    "dy_mobilenetv3_small_nose": (69.6, 65.4),
    "dy_resnet18": (72.7, 70.4),
    "dy_resnet10": (67.7, 63.5),
    "dy_mobilenetv2_050_temperature_1": (64.8, 65.4),
    "dy_mobilenetv2_050_temperature_5": (65.7, 65.4),
    "dy_mobilenetv2_050_temperature_10": (67.5, 65.4),
    "dy_mobilenetv2_050_temperature_20": (69.4, 65.4),
    "dy_mobilenetv2_050_temperature_30": (69.4, 65.4),
    "dy_mobilenetv2_050_temperature_40": (69.2, 65.4),
    "dy_mobilenetv2_050_layers_c1": (67.4, 65.4),
    "dy_mobilenetv2_050_layers_c2": (67.4, 65.4),
    "dy_mobilenetv2_050_layers_c3": (68.2, 65.4),
    "dy_mobilenetv2_050_layers_c1_c3": (68.7, 65.4),
    "dy_mobilenetv2_050_layers_c2_c3": (68.4, 65.4),
    "dy_mobilenetv2_050_layers_c1_c2": (68.6, 65.4),
    "dy_mobilenetv2_050_layers_c1_c2_c3": (69.4, 65.4),
}

DY = {"opt": "momentum", "momentum": 0.9, "batch_size": 256, "temperature": (30, 1, 10), "auto_augment": None}
DY_V2 = {**DY, "lr": 0.05, "sched": "cosine", "min_lr": 0, "weight_decay": 4e-5, "epochs": 300, "mixup": 0}
DY_V3 = {**DY, "lr": 0.1, "sched": "cosine", "min_lr": 0, "weight_decay": 3e-5, "epochs": 300, "dropout": 0.2}
DY_RESNET = {
    **{**DY, "lr": 0.1, "sched": "multistep", "weight_decay": 1e-4, "epochs": 100},
    **{"milestones": (30, 60, 90), "decay_rate": 0.1, "label_smoothing": 0},
}
CONDCONV = {"auto_augment": "original", "mixup": 0.2, "image_size": 224}
FOLLOWING_KORNBLITH = {**CONDCONV, "bn_momentum": 0.1, "ema": None}
RMSPROP = {
    **{**CONDCONV, "opt": "rmsproptf", "momentum": 0.9, "opt_args": {"alpha": 0.9, "eps": 1e-3}},
    **{"weight_decay": 1e-5, "sched": "step", "decay_rate": 0.97, "decay_epochs": 2.4, "warmup_epochs": 5},
    **{"bn_momentum": 0.01, "label_smoothing": 0.1, "ema": 0.9999},
}

# What Chen et al. 2020, section 5.1, Yang et al. 2019, section 4.1, Tan et al. 2019 and Tan and Le 2019 state.
STATED: dict[str, dict[str, Any]] = {
    "dy_mobilenetv2_100": {**DY_V2, "dropout": 0.2, "label_smoothing": 0.1, "mixup": 0.2},
    "dy_mobilenetv2_075": {**DY_V2, "dropout": 0.1, "label_smoothing": 0.1},
    "dy_mobilenetv2_050": {**DY_V2, "dropout": 0, "label_smoothing": 0},
    "dy_mobilenetv2_035": {**DY_V2, "dropout": 0, "label_smoothing": 0},
    "dy_mobilenetv3_small": DY_V3,
    "dy_mobilenetv3_small_nose": DY_V3,
    "dy_resnet18": {**DY_RESNET, "dropout": 0.1},
    "dy_resnet10": {**DY_RESNET, "dropout": 0},
    "dy_mobilenetv2_050_temperature_1": {**DY_V2, "temperature": (1, 1, 0)},
    "dy_mobilenetv2_050_temperature_40": {**DY_V2, "temperature": (40, 40, 0)},
    "dy_mobilenetv2_050_layers_c3": {**DY_V2, "temperature": (30, 30, 0), "convs": "C3"},
    "condconv_mobilenetv1_100": FOLLOWING_KORNBLITH,
    "condconv_mobilenetv1_050_32e": {**FOLLOWING_KORNBLITH, "experts": 32},
    "condconv_mobilenetv2_100": FOLLOWING_KORNBLITH,
    "condconv_resnet50": FOLLOWING_KORNBLITH,
    "condconv_mobilenetv1_025": {
        **{**FOLLOWING_KORNBLITH, "auto_augment": None, "mixup": 0, "dropout": 0, "experts": 32},
        "temperature": (1, 1, 0),
    },
    "condconv_mnasnet_a1": {**RMSPROP, "dropout": 0.2},
    "condconv_efficientnet_b0": {**RMSPROP, "dropout": 0.25, "drop_path": 0.2},
    "condconv_efficientnet_b0_depth": {**RMSPROP, "dropout": 0.25, "drop_path": 0.2},
    "condconv_efficientnet_b0_4e": {**RMSPROP, "dropout": 0.25, "drop_path": 0.2, "experts": 4},
}

# name: its rows in published.csv (table, row of the network, row of its static twin)
COST = {
    "condconv_mobilenetv1_100": ("Table 1", "MobileNetV1 (1.0x) CondConv-8", "MobileNetV1 (1.0x) baseline"),
    "condconv_mobilenetv2_100": ("Table 1", "MobileNetV2 (1.0x) CondConv-8", "MobileNetV2 (1.0x) baseline"),
    "condconv_mnasnet_a1": ("Table 1", "MnasNet-A1 CondConv-8", "MnasNet-A1 baseline"),
    "condconv_resnet50": ("Table 1", "ResNet-50 CondConv-8", "ResNet-50 baseline"),
    "condconv_efficientnet_b0": ("official README", "CondConv-B0 8e", "EfficientNet-B0"),
    "condconv_efficientnet_b0_4e": ("official README", "CondConv-B0 4e", "EfficientNet-B0"),
    "condconv_efficientnet_b0_depth": ("official README", "CondConv-B0-depth 8e", None),
    "condconv_mobilenetv1_050_32e": ("App. A", "CondConv-MobileNetV1 0.5x, 32 experts", None),
    "condconv_mobilenetv1_025": ("Table 3", "CC-MobileNetV1 (0.25x)", None),
    "condconv_mobilenetv2_050": ("Table 2", "CondConv x0.5 K=8", None),
    "dy_mobilenetv2_100": ("Table 8", "DY-MobileNetV2 x1.0", "MobileNetV2 x1.0"),
    "dy_mobilenetv2_075": ("Table 8", "DY-MobileNetV2 x0.75", "MobileNetV2 x0.75"),
    "dy_mobilenetv2_050": ("Table 8", "DY-MobileNetV2 x0.5", "MobileNetV2 x0.5"),
    "dy_mobilenetv2_035": ("Table 8", "DY-MobileNetV2 x0.35", "MobileNetV2 x0.35"),
    "dy_mobilenetv3_small": ("Table 8", "DY-MobileNetV3-Small", "MobileNetV3-Small"),
    "dy_resnet18": ("Table 8", "DY-ResNet-18", "ResNet-18"),
    "dy_resnet10": ("Table 8", "DY-ResNet-10", "ResNet-10"),
}


def of(recipe: Recipe, what: str) -> Any:
    """A setting by the name that the tables above use."""
    settings, model = recipe.settings, recipe.model
    if what == "temperature":
        return settings.temperature_start, settings.temperature_end, settings.temperature_epochs
    if what in model.args:
        return model.args[what]
    return next(getattr(part, what) for part in (model, recipe, settings) if hasattr(part, what))


def shown(name: str, *options: str) -> Recipe:
    """The recipe that ``dynaconv train --recipe NAME --show`` prints."""
    app = Typer()
    app.command()(train)
    result = CliRunner().invoke(app, ["--recipe", name, "--data", "digits", "--show", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return resolve_recipe(json.loads(result.output), {}, {}, {})


def test_every_row_has_its_recipe_and_its_static_twin() -> None:
    twins = {f"{name}_static" for name in CLASSIFIERS if f"{name}_static" in CLASSIFIERS}
    assert set(CLASSIFIERS) == set(TOP1) | twins
    tables = [name for name in TOP1 if not re.search(r"_025_|_temperature_|_layers_|_4e", name)]
    assert {f"{name}_static" for name in tables} == twins


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_recipe_resolves_and_names_a_network_that_takes_its_arguments(name: str) -> None:
    model = resolve(name).model
    spec = ZOO[model.name]
    check_arguments(model.name, model.args, known_arguments(spec))
    options = Options.take(dict(model.args))
    assert options.static == name.endswith("_static")
    assert Design.of(spec, options).experts == (model.args.get("experts") or spec.experts)


@pytest.mark.slow
def test_every_recipes_network_can_be_built() -> None:
    for name in CLASSIFIERS:
        with torch.device("meta"):
            model = build_model(resolve(name).model, classes=10)
        dynamic = any(getattr(module, "is_router", False) for module in model.modules())
        assert dynamic != name.endswith("_static"), name


# name: learning rates at the beginning of these epochs
RATES = {
    "dy_resnet18": {0: 0.1, 29: 0.1, 30: 0.01, 60: 0.001, 90: 0.0001},
    "dy_mobilenetv2_100": {0: 0.05, 150: 0.025, 300: 0.0},
    "dy_mobilenetv3_small": {0: 0.1, 150: 0.05, 300: 0.0},
    "condconv_mobilenetv1_100": {0: 0.0, 5: 0.8, 10: 1.6 * 0.975**10, 100: 1.6 * 0.975**100},
    "condconv_mnasnet_a1": {0: 0.0, 5: 0.064 * 0.97**2, 240: 0.064 * 0.97**100},
    "condconv_efficientnet_b0": {0: 0.0, 4: 0.8 * 0.128, 12: 0.128 * 0.97**5, 349: 0.128 * 0.97**145},
}


@pytest.mark.parametrize("name", RATES)
def test_learning_rate_at_the_epochs_that_matter(name: str) -> None:
    settings = resolve(name).settings
    optimizer = build_optimizer(torch.nn.Linear(2, 2), settings)
    schedule = build_schedule(optimizer, settings, steps_per_epoch=10)
    for epoch, rate in RATES[name].items():
        schedule.step_update(epoch * 10)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, abs=1e-12), epoch


def test_optimizers_are_the_papers() -> None:
    layer = torch.nn.Linear(2, 2)
    chen, kornblith, tan = (
        build_optimizer(layer, resolve(name).settings)
        for name in ("dy_resnet18", "condconv_resnet50", "condconv_efficientnet_b0")
    )
    assert type(chen) is type(kornblith) is torch.optim.SGD
    assert [group["nesterov"] for group in chen.param_groups] == [False]
    assert [group["weight_decay"] for group in chen.param_groups] == [1e-4]  # all parameters
    assert {group["nesterov"] for group in kornblith.param_groups} == {True}
    assert type(tan).__name__ == "RMSpropTF"
    assert {(group["alpha"], group["momentum"], group["eps"]) for group in tan.param_groups} == {(0.9, 0.9, 1e-3)}


@pytest.mark.parametrize("name", TOP1)
def test_claim_and_header_carry_the_published_figure(name: str) -> None:
    top1, static = TOP1[name]
    claim = resolve(name).claim
    assert claim is not None
    assert (claim.top1, claim.static_top1) == (top1, static)
    assert claim.reproduced == "no"
    text = header(name)
    (published,) = re.findall(r"^Published: (.*?)(?=^\w)", text, re.MULTILINE | re.DOTALL)
    for figure in (top1, static):
        assert figure is None or f"{figure} %" in published
    assert re.search(r"^Reproduced: no\.$", text, re.MULTILINE)
    assert re.search(r"^Duration: unknown", text, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name.endswith("_static")])
def test_static_twin_differs_in_its_layers_alone(name: str) -> None:
    twin, dynamic = resolve(name), resolve(name.removesuffix("_static"))
    assert twin.claim is not None
    assert dynamic.claim is not None
    assert twin.claim.top1 == dynamic.claim.static_top1
    without = {"claim", "model"}
    assert twin.model_dump(exclude=without) == dynamic.model_dump(exclude=without)
    assert twin.model.model_dump() == {**dynamic.model.model_dump(), "args": {**dynamic.model.args, "static": True}}


@pytest.mark.parametrize("name", STATED)
def test_settings_are_those_that_the_papers_state(name: str) -> None:
    recipe = resolve(name)
    assert {what: of(recipe, what) for what in STATED[name]} == STATED[name]


def test_the_dropout_that_yang_et_al_leave_open_is_within_their_range() -> None:
    searched = [name for name in CLASSIFIERS if name.startswith("condconv") and resolve(name).settings.mixup]
    assert len(searched) > 10
    for name in searched:
        dropout = resolve(name).model.dropout
        assert dropout is not None
        assert 0 <= dropout <= 0.4


def test_no_softmax_router_of_a_condconv_network_is_annealed() -> None:
    yang = [name for name in CLASSIFIERS if name.startswith("condconv") and "mobilenetv2_050" not in name]
    assert {of(resolve(name), "temperature") for name in yang} == {(1, 1, 0)}


@pytest.mark.parametrize("name", COST)
def test_header_carries_the_published_cost(name: str) -> None:
    if not PUBLISHED.is_file():
        pytest.skip("the table of published costs is not beside the repository")
    paper = "DynamicConv" if name.startswith("dy_") or name == "condconv_mobilenetv2_050" else "CondConv"
    table, network, static = COST[name]
    with PUBLISHED.open() as file:
        figures = {
            (line["row"], line["quantity"]): float(line["published"])
            for line in csv.DictReader(file)
            if (line["paper"], line["table"]) == (paper, table)
        }
    found = [value for (row, _), value in figures.items() if row in (network, static)]
    assert found
    (line,) = re.findall(r"^Cost: (.*?)(?=^\w)", header(name), re.MULTILINE | re.DOTALL)
    units = {"M": 1.0, "G": 1000.0}
    printed = {round(float(number) * units[unit], 3) for number, unit in re.findall(r"([\d.]+)([MG])\b", line)}
    assert set(found) <= printed


def test_every_recipe_is_the_callers_own() -> None:
    load("dy_resnet18")["settings"]["lr"] = 99.0
    assert load("dy_resnet18")["settings"]["lr"] == 0.1


def test_an_unknown_recipe_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no recipe 'dy_mobilenet_v2_050'.*'dy_mobilenetv2_050'"):
        load("dy_mobilenet_v2_050")


def test_the_command_line_wins_over_the_recipe() -> None:
    plain = shown("dy_mobilenetv2_050")
    recipe = shown(
        "dy_mobilenetv2_050", "--lr", "0.2", "--dropout", "0.3", "--batch-size", "32", "--set", "momentum=0.8"
    )
    changed = (recipe.settings.lr, recipe.model.dropout, recipe.batch_size, recipe.settings.momentum)
    assert changed == (0.2, 0.3, 32, 0.8)
    assert (plain.settings.lr, plain.model.dropout, plain.batch_size, plain.settings.momentum) == (0.05, 0, 256, 0.9)
    kept = recipe.settings.model_copy(update={"lr": 0.05, "momentum": 0.9})
    assert kept == plain.settings == resolve("dy_mobilenetv2_050").settings


def test_a_misspelt_setting_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no setting 'weight_decai'.*'weight_decay'"):
        shown("dy_mobilenetv2_050", "--set", "weight_decai=0")


def test_a_misspelt_key_of_a_recipe_is_named_with_the_nearest() -> None:
    recipe = load("dy_mobilenetv2_050")
    recipe["settings"]["temperatur_start"] = 3
    with pytest.raises(UserError, match=r"no setting 'temperatur_start'.*'temperature_start'"):
        resolve_recipe(recipe, {}, {}, {})


@pytest.mark.slow
def test_a_recipe_trains_on_digits(tmp_path: Path) -> None:
    """Two steps of the real thing: dy_mobilenetv2_035 as its recipe builds it, with its optimizer and schedules."""
    recipe = resolve("dy_mobilenetv2_035")
    whole = open_splits("digits")
    splits = replace(whole, train=Subset(whole.train, range(32)), evaluation=Subset(whole.evaluation, range(16)))
    data = ImageData(
        splits,
        Preprocess(image_size=32, mean=splits.mean, std=splits.std, crop_pct=1.0),
        name="digits",
        batch_size=16,
        eval_batch_size=16,
        workers=0,
        seed=0,
        bad_images="error",
        max_bad_images=None,
        loader_timeout=60.0,
    )
    settings = recipe.settings.model_copy(update={"epochs": 1, "device": "cpu", "tensorboard": False})
    network = build_model(recipe.model, len(data.classes))
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    result = fit(network, data, settings, out=tmp_path / "run", about={"recipe": recipe.model_dump(mode="json")})
    (record,) = result.history
    assert record.temperature == 30
    assert record.dropped_steps == 0
    assert all(
        not weight.equal(before[name]) for name, weight in network.named_parameters() if name.endswith("conv_pw.weight")
    )
    written = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert written["claim"]["top1"] == 65.9
    assert written["settings"]["epochs"] == 1
