"""The settings of an experiment, and of a comparison, validated once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator
from typing_extensions import Self

from dynaconv.data import Frozen
from dynaconv.data.opening import LARGEST_SEED, MOST_WORKERS
from dynaconv.errors import suggest
from dynaconv.tasks import TASKS, task_class
from dynaconv.tasks.network import MOST_EXPERTS
from dynaconv.tasks.sources import digest_of, short_name
from dynaconv.tasks.task import Metric
from dynaconv.train import TrainSettings
from dynaconv.train.recipe import read_size
from dynaconv.train.settings import OPERATIONAL, LoopSettings, settings_class

METHODS = ("dynamic", "condconv")
DEFAULT_BACKBONE = "test_resnet"
CLASSIFICATION = "classification"


def annealing_epochs(epochs: int) -> int:
    """Return the epochs in which the temperature falls: half of all, at most the paper's 10."""
    return min(10, epochs // 2)


RECIPE = TrainSettings(epochs=10, lr=0.003, opt="adamw", weight_decay=0.05, temperature_epochs=annealing_epochs(10))
"""What a comparison trains with unless told otherwise: a recipe that short runs of small networks do well with."""


class ExperimentSettings(Frozen):
    """What all runs of an experiment share; its arms say in what they differ.

    Attributes:
        task: what the networks are trained for; its metric that chooses the best epoch is compared.
        pretrained: begin from timm's pretrained weights (dynamic twins: copies of them plus small noise).
        data, data_root, train_split, eval_split, download: as ``open_data`` takes them.
        data_args: what else the task wants to know of the data, such as the ``sigmas`` of keypoints.
        image_size, crop_pct, interpolation: preprocessing; the data set's own where ``None``.
        batch_size: examples of one optimizer step.
        train_images: train on this many images, the same share of every class, always the same ones; all if ``None``.
        seeds: one run of every arm for each.
        workers: loader processes; they do not change what is computed.
        training: the recipe. Its ``seed`` is replaced by each of ``seeds``.
    """

    task: str = CLASSIFICATION
    pretrained: bool = False
    data: str = "digits"
    data_args: dict[str, Any] = Field(default_factory=dict)
    data_root: str | None = None
    train_split: str | None = None
    eval_split: str | None = None
    download: bool = False
    image_size: Annotated[int | tuple[int, int] | None, BeforeValidator(read_size)] = None
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    batch_size: int = Field(default=64, ge=1)
    train_images: int | None = Field(default=None, ge=1)
    bad_images: Literal["error", "skip"] = "error"
    seeds: tuple[int, ...] = (0, 1, 2)
    workers: int = Field(default=0, ge=0, le=MOST_WORKERS)
    training: SerializeAsAny[LoopSettings] = RECIPE

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or min(seeds) < 0 or max(seeds) > LARGEST_SEED:
            raise ValueError(f"seeds is {seeds!r}; expected at least one, none below 0 or above {LARGEST_SEED}")
        return tuple(dict.fromkeys(seeds))

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"There is no task {task!r}. {suggest(task, TASKS)}")
        return task

    @property
    def metric(self) -> Metric:
        """What is compared."""
        task = task_class(self.task)
        found: Metric = next(metric for metric in task.metrics_shown if metric.name == task.best)
        return found

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        expected = settings_class(self.task)
        if not isinstance(self.training, task_class(self.task).options):
            raise ValueError(
                f"training is {type(self.training).__name__}, and the task {self.task} needs its own settings: "
                f"expected {expected.__name__}, which settings_class({self.task!r}) returns"
            )
        if self.training.ema is not None:
            raise ValueError("ema is not for comparisons: averaged weights hide what short runs differ in")
        return self


class CompareSettings(ExperimentSettings):
    """Settings of a comparison; the recipe in ``training`` is the same for every run.

    Attributes:
        backbone: the network, named as in :class:`~dynaconv.tasks.network.ModelSpec`.
        model_args: passed on to ``timm.create_model``, or to the function that builds it.
        weights: begin from this local file instead of new or pretrained weights.
        methods: ``dynamic``, ``condconv``; the static twin always runs too.
        experts: values of K to try; the method's own (4 and 8) if empty.
        share: ``layer`` or ``block``, the layers that share one router; the method's own if ``None``.
        finetune: weights (a run, a checkpoint, a safetensors file) that the networks of a method begin from, by the
            method, ``static`` among them; the tensors that fit are taken.
    """

    backbone: str = DEFAULT_BACKBONE
    model_args: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    methods: tuple[str, ...] = METHODS
    experts: tuple[int, ...] = ()
    share: Literal["layer", "block"] | None = None
    finetune: dict[str, str] = Field(default_factory=dict)

    @field_validator("finetune")
    @classmethod
    def _weights_of_methods(cls, finetune: dict[str, str]) -> dict[str, str]:
        for method in finetune:
            if method not in ("static", *METHODS):
                raise ValueError(f"finetune names the method {method!r}. {suggest(method, ('static', *METHODS))}")
        return finetune

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        known = ("static", *METHODS)
        for method in methods:
            if method not in known:
                raise ValueError(f"There is no method {method!r}. {suggest(method, known)}")
        chosen = tuple(dict.fromkeys(method for method in methods if method != "static"))
        if not chosen:
            raise ValueError(f"methods is {methods!r}; expected at least one of {', '.join(METHODS)} beside static")
        return chosen

    @field_validator("experts")
    @classmethod
    def _some_experts(cls, experts: tuple[int, ...]) -> tuple[int, ...]:
        for count in experts:
            if not 1 <= count <= MOST_EXPERTS:
                raise ValueError(
                    f"experts is {count}; expected at least 1, at most {MOST_EXPERTS} (the papers use 4 and 8)"
                )
        return tuple(dict.fromkeys(experts))

    def facts(self) -> dict[str, Any]:
        """The settings that all results in one folder must share. Methods, experts and seeds may be added later."""
        plain = self.model_dump(mode="json", exclude={"methods", "experts", "seeds", "workers", "training", "weights"})
        plain |= self._files()
        if self.task == CLASSIFICATION and not self.data_args:  # folders from before there were other tasks
            del plain["task"], plain["data_args"]
        if not self.finetune:
            del plain["finetune"]
        recipe = self.training.model_dump(mode="json", exclude=NOT_IN_RESULTS)
        return {**plain, **recipe, **versions()}

    def _files(self) -> dict[str, Any]:
        """The files that the networks come from: the same name with another content is another comparison."""
        found = {"network_file": digest_of(self.backbone), "weights": self.weights}
        if self.weights is not None:
            found["weights_file"] = digest_of(self.weights)
        return {name: value for name, value in found.items() if value is not None}

    def default_folder(self) -> Path:
        """``runs/compare-BACKBONE-DATA-XXXXXX``, where the last part follows from the facts."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()[:6]
        return Path("runs") / f"compare-{short_name(self.backbone)}-{Path(self.data).name}-{digest}".replace(":", "-")


def static_name(name: str) -> str:
    """The name of the static network whose dynamic twin has this name of its own, else ``name``.

    >>> static_name("ssd300_condconv_mobilenetv1_050"), static_name("resnet18")
    ('ssd300_mobilenetv1_050', 'resnet18')
    """
    from dynaconv.models import TWINS

    return next((static for static, (_, twin) in TWINS.items() if twin == name), name)


NOT_IN_RESULTS = {"seed"} | OPERATIONAL - {"device"}


def versions() -> dict[str, str]:
    """Versions of what computes the results."""
    import timm
    import torch

    import dynaconv

    return {"dynaconv": dynaconv.__version__, "torch": torch.__version__, "timm": timm.__version__}
