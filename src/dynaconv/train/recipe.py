"""A recipe: everything a run needs but the place of the data, and the claim that it is meant to reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from dynaconv.data import Frozen
from dynaconv.data.opening import LARGEST_SIDE
from dynaconv.errors import UserError
from dynaconv.files import read_json
from dynaconv.tasks import task_of_model
from dynaconv.tasks.network import ModelSpec
from dynaconv.train.settings import LoopSettings, TrainSettings, settings_class


class Claim(Frozen):
    """A result of a paper, and whether it was reproduced.

    Attributes:
        paper, row: its source.
        top1: in percent.
        static_top1: of the static twin, in percent.
        published: figures of other tasks, in percent, by the metric's name.
        reproduced: ``no`` until it is; then what was measured, with a link to the log.
        notes: deviations from the paper, and details that it does not give.
    """

    paper: str
    row: str
    top1: float | None = None
    static_top1: float | None = None
    published: dict[str, float] = Field(default_factory=dict)
    reproduced: str = "no"
    notes: str = ""


def read_size(value: Any) -> Any:
    """A size as it is typed, ``224`` or ``256x192`` (height and width), as numbers.

    Raises:
        ValueError: not such a text, or a number below 1.
    """
    numbers = value.lower().split("x") if isinstance(value, str) else value
    if isinstance(value, str):
        if not 1 <= len(numbers) <= 2 or not all(number.strip().isdecimal() for number in numbers):
            raise ValueError(f"image_size is {value!r}; expected a number, or height and width such as 256x192")
        numbers = [int(number) for number in numbers]
    sides = numbers if isinstance(numbers, (list, tuple)) else [numbers]
    for side in sides:
        if isinstance(side, int) and not 1 <= side <= LARGEST_SIDE:
            bound = "at least 1 pixel" if side < 1 else f"at most {LARGEST_SIDE:,} pixels a side"
            raise ValueError(f"image_size is {'x'.join(map(str, sides))}; expected {bound}")
    return sides[0] if len(sides) == 1 else tuple(sides)


class Recipe(Frozen):
    """One run, resolved.

    Attributes:
        model: how to build it.
        task: what it is trained for, see :data:`dynaconv.tasks.TASKS`.
        settings: of the training, the task's among them.
        batch_size: examples of one optimizer step, over all processes.
        image_size: side of the square that the network sees, or height and width (also as text: ``256x192``).
        interpolation, crop_pct: preprocessing. These three are the data set's own where ``None``.
        data: name of the data set it is for; ``--data`` says where it is.
        data_args: what else the task wants to know of the data, such as the ``sigmas`` of keypoints.
        claim: what it is meant to reproduce.
    """

    model: ModelSpec
    task: str = "classification"
    settings: SerializeAsAny[LoopSettings] = TrainSettings()
    batch_size: int = Field(default=64, ge=1)
    image_size: Annotated[int | tuple[int, int] | None, BeforeValidator(read_size)] = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    data: str | None = None
    data_args: dict[str, Any] = Field(default_factory=dict)
    claim: Claim | None = None

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_task(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        task, given = values.get("task", "classification"), values.get("settings", {})
        if not isinstance(task, str) or not isinstance(given, dict):
            return values
        return {**values, "settings": settings_class(task)(**given)}


def resolve_recipe(
    base: dict[str, Any],
    model: dict[str, Any],
    settings: dict[str, Any],
    rest: dict[str, Any],
    data_args: dict[str, Any] | None = None,
) -> Recipe:
    """A recipe's dictionary, updated with the values of the command line; ``None`` keeps the value of the recipe."""
    chosen = _given(rest)
    if "task" not in chosen and "task" not in base:
        chosen["task"] = task_of_model(model.get("name") or base.get("model", {}).get("name"))
    return Recipe(
        **{
            **base,
            **chosen,
            "model": ModelSpec(**_network(base.get("model", {}), _given(model))),
            "settings": {**base.get("settings", {}), **_given(settings)},
            "data_args": {**base.get("data_args", {}), **(data_args or {})},
        }
    )


def _network(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    network = {**base, **given, "args": {**base.get("args", {}), **given.get("args", {})}}
    if network.get("method") is None and "experts" in given and _has_experts(network.get("name", "")):
        # One of the papers' networks: K is an argument of its own.
        network["args"]["experts"] = network.pop("experts")
    return network


def _has_experts(name: str) -> bool:
    from dynaconv.models import TWINS, ZOO

    return name in ZOO or name in (twin for _, twin in TWINS.values())


def read_recipe(path: Path) -> dict[str, Any]:
    """The dictionary of a recipe in a JSON file; a run's ``run.json`` is one.

    Raises:
        UserError: no such file; not JSON.
    """
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"There is no recipe file {path}.") from error
    except OSError as error:
        raise UserError(f"The recipe {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"The recipe {path} is not JSON: {error}.") from error
    recipe = content.get("recipe", content) if isinstance(content, dict) else content
    if not isinstance(recipe, dict):
        raise UserError(
            f"The recipe {path} holds a {type(recipe).__name__}; expected an object with 'model' and 'settings'."
        )
    model = recipe.get("model", {})
    parts = {"model": model, **{part: recipe.get(part, {}) for part in ("settings", "data_args")}}
    if isinstance(model, dict):
        parts |= {"model.args": model.get("args", {}), "model.name": model.get("name", "")}
    for part, value in parts.items():
        kind = str if part == "model.name" else dict
        if not isinstance(value, kind):
            expected = "the name of a network" if kind is str else "an object"
            raise UserError(f"The recipe {path} has {part} {str(value)[:50]!r}; expected {expected}.")
    return recipe


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
