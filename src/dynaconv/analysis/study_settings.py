"""The settings of a study, and its arms as the engine takes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from dynaconv.analysis.arms import Arm
from dynaconv.analysis.settings import NOT_IN_RESULTS, ExperimentSettings
from dynaconv.analysis.studies import find_study
from dynaconv.analysis.study import Study, StudyArm
from dynaconv.errors import UserError
from dynaconv.models import ZOO
from dynaconv.tasks.network import ModelSpec
from dynaconv.train.settings import settings_class

ONLY_HERE = {
    "study",
    "arms",
    "seeds",
    "workers",
    "training",
    "data",
    "data_root",
    "download",
    "bad_images",
    "most_images",
}
"""Settings that may differ between two parts of one study: another place of the same data, more seeds."""


class StudySettings(ExperimentSettings):
    """The settings of one study, resolved.

    Attributes:
        study: its name.
        network: timm's name, in place of the study's; an arm asks of it what it asks of the study's.
        network_args: laid over the study's arguments of the network.
        width: width multiplier of the network; where the study varies the width, that of its narrowest arm.
        arms: slugs of the arms that run; all if empty. Those that others are compared with run too.
        most_images: train on no more images than this, where ``train_images`` does not say how many.
    """

    study: str
    network: str | None = None
    network_args: dict[str, Any] = Field(default_factory=dict)
    width: float | None = Field(default=None, gt=0)
    arms: tuple[str, ...] = ()
    most_images: int | None = Field(default=None, ge=1)

    @field_validator("study")
    @classmethod
    def _known(cls, name: str) -> str:
        find_study(name)
        return name

    @classmethod
    def of_study(cls, name: str, given: Mapping[str, Any], training: Mapping[str, Any]) -> StudySettings:
        """A study's defaults with what is given laid over them.

        Args:
            name: the study's.
            given: settings of the experiment.
            training: settings of the recipe.

        Raises:
            UserError: no such study; an unknown or impossible setting.
        """
        study = find_study(name)
        recipe = settings_class(study.task).of({**study.training, **training})
        data_args = {**study.settings.get("data_args", {}), **given.get("data_args", {})}
        values = {**study.settings, **given, "data_args": data_args}
        return cls.of({**values, "study": name, "task": study.task, "training": recipe})

    def for_data(self, size: int) -> StudySettings:
        """The settings for data with so many training images: ``train_images`` is decided."""
        if self.train_images is None and self.most_images is not None and size > self.most_images:
            return self.model_copy(update={"train_images": self.most_images})
        return self

    def facts(self) -> dict[str, Any]:
        """What all results of the study share, wherever they were computed."""
        plain = self.model_dump(mode="json", exclude=ONLY_HERE)
        recipe = self.training.model_dump(mode="json", exclude=NOT_IN_RESULTS | {"device"})
        return {**plain, **recipe}

    def defaults(self) -> dict[str, Any]:
        """Of every fact that is a setting what it is where nobody chooses: what older results had of later options."""
        fields = {**type(self).model_fields, **type(self.training).model_fields}
        known = self.facts()
        found = {
            name: field.get_default(call_default_factory=True)
            for name, field in fields.items()
            if name in known and not field.is_required()
        }
        plain: dict[str, Any] = json.loads(json.dumps(found))  # as it is read from a file
        return plain

    def default_folder(self) -> Path:
        """``runs/ablate-STUDY-DATA-XXXXXX``, where the last part follows from the facts."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()[:6]
        return Path("runs") / f"ablate-{self.study}-{Path(self.data).name}-{digest}"


def arm_of(study: Study, arm: StudyArm, settings: StudySettings) -> Arm:
    """A study's arm as the engine takes it (not one that has to be widened first)."""
    begins = study.arm(arm.begins_from) if arm.begins_from else None
    epochs = settings.training.epochs
    first = max(1, round(arm.share_of_epochs * epochs)) if begins else 0
    if begins and first >= epochs:
        raise UserError(f"The arm {arm.slug} has {epochs} epochs for two parts; expected at least 2 (--epochs 2).")
    beginning = None
    if begins:
        part = arm_of(study, begins, settings)
        beginning = Arm(slug=part.slug, label=part.label, model=part.model, training={**part.training, "epochs": first})
    training = {**arm.training, **({"epochs": epochs - first} if begins else {})}
    return Arm(
        slug=arm.slug,
        label=arm.label,
        model=_model_of(study, arm, settings),
        training=fitting(training, settings),
        method=arm.method or "static",
        experts=arm.experts,
        like=_model_of(study, study.arms[0], settings) if study.task == "keypoints" else None,
        begins_from=beginning,
    )


def fitting(training: dict[str, Any], settings: StudySettings) -> dict[str, Any]:
    """A temperature falls in half of the epochs at most, so that a short run reaches its end."""
    epochs = training.get("epochs", settings.training.epochs)
    annealing = training.get("temperature_epochs", settings.training.temperature_epochs)
    return {**training, "temperature_epochs": min(annealing, epochs // 2)}


def _model_of(study: Study, arm: StudyArm, settings: StudySettings) -> ModelSpec:
    own = {} if settings.network not in (None, study.network) else study.own_args
    args = {**own, **study.args, **arm.args, **settings.network_args}
    if settings.width is not None:
        varied = [other.args["width_multiplier"] for other in study.arms if "width_multiplier" in other.args]
        width = arm.args.get("width_multiplier")
        args["width_multiplier"] = settings.width * (width / min(varied) if width else 1)
    name = settings.network or study.network
    if arm.method is not None and name in ZOO and not args.get("static"):
        raise UserError(
            f"The study {study.name} makes a static network dynamic, and {name} is dynamic as it is; choose a static "
            "one with --model, such as mobilenetv2_050, or make it one with --arg static=True."
        )
    return ModelSpec(
        name=name,
        method=arm.method,
        experts=arm.experts,
        share=arm.share,
        router=arm.router,
        hidden=arm.hidden,
        args=args,
    )
