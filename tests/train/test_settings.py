"""Settings are validated once, and an error names the nearest known word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynaconv.errors import UserError
from dynaconv.tasks.network import ModelSpec, build_model
from dynaconv.train import TrainSettings
from dynaconv.train.recipe import Recipe, read_recipe, resolve_recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epocs": 3}, "no setting 'epocs'. Did you mean 'epochs'"),
        ({"epochs": 0}, "epochs is 0: input should be greater than or equal to 1"),
        ({"lr": -1}, "lr is -1"),
        ({"amp": "fp32"}, "amp is 'fp32': input should be 'no', 'bf16' or 'fp16'"),
        ({"sched": "cosin"}, "sched is 'cosin'"),
        ({"epochs": 3, "warmup_epochs": 3}, "expected the warm-up to be shorter"),
        ({"temperature_start": 0}, "temperature_start is 0"),
    ],
)
def test_mistakes(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainSettings.of(values)


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainSettings().epochs = 3  # type: ignore[misc]


def test_augmentation_is_a_part() -> None:
    assert TrainSettings(hflip=0.3, random_erasing=0.2).augment.random_erasing == 0.2


def test_recipe_with_the_command_line_laid_over_it() -> None:
    base = {"model": {"name": "resnet18", "dropout": 0.1}, "settings": {"epochs": 100, "lr": 0.1}, "batch_size": 256}
    recipe = resolve_recipe(base, {"dropout": 0.3, "name": None}, {"epochs": 3, "lr": None}, {"batch_size": None})
    assert (recipe.model.name, recipe.model.dropout) == ("resnet18", 0.3)
    assert (recipe.settings.epochs, recipe.settings.lr, recipe.batch_size) == (3, 0.1, 256)
    again = Recipe.of(json.loads(recipe.model_dump_json()))
    assert again == recipe


def test_recipe_mistakes_name_the_nearest() -> None:
    with pytest.raises(UserError, match="no setting 'learning_rate'"):
        resolve_recipe({"model": {"name": "x"}, "settings": {"learning_rate": 1}}, {}, {}, {})
    with pytest.raises(UserError, match=r"no setting 'bach_size'\. Did you mean 'batch_size'"):
        Recipe.of({"model": {"name": "x"}, "bach_size": 3})


def test_recipe_files(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    with pytest.raises(UserError, match="no recipe file"):
        read_recipe(path)
    path.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_recipe(path)
    path.write_text("[1]")
    with pytest.raises(UserError, match="holds a list"):
        read_recipe(path)
    path.write_text('{"recipe": {"model": {"name": "resnet18"}}, "classes": []}')
    assert read_recipe(path) == {"model": {"name": "resnet18"}}


def test_unknown_model() -> None:
    with pytest.raises(UserError, match=r"no model 'mobilenetv2_05'.*Did you mean.*'mobilenetv2_050'"):
        build_model(ModelSpec(name="mobilenetv2_05"), 10)


def test_model_option_that_it_does_not_take() -> None:
    with pytest.raises(UserError, match=r"The model resnet18 cannot be had: TypeError.*wings"):
        build_model(ModelSpec(name="resnet18", args={"wings": 2}), 10)


@pytest.mark.parametrize("base", [{}, {"model": {"name": "dy_resnet10", "args": {"experts": 2, "se": None}}}])
def test_experts_of_the_papers_networks_are_their_argument(base: dict[str, object]) -> None:
    recipe = resolve_recipe(base, {"name": "dy_resnet10", "experts": 6, "args": {"temperature": 3.0}}, {}, {})
    assert recipe.model.experts is None
    assert recipe.model.args.items() >= {"experts": 6, "temperature": 3.0}.items()


def test_experts_without_a_method() -> None:
    with pytest.raises(UserError, match="choose a method"):
        ModelSpec(name="resnet18", experts=4)
