"""The settings of a training run, validated once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from typing_extensions import Self

from dynaconv.data.opening import LARGEST_SEED, LONGEST_WAIT
from dynaconv.tasks import task_class
from dynaconv.tasks.classification.task import ClassificationOptions
from dynaconv.tasks.task import TaskOptions

LARGEST_RATE = 1e4


LATER = ("temperature_schedule", "expert_dropout", "load_balance", "expert_diversity")
"""Settings that are saved only where they are not at their defaults."""


class LoopSettings(TaskOptions):
    """Settings of a training run that are the same for every task; the task's own are added to them.

    The batch size belongs to the data (``open_data(batch_size=...)``): the examples of one optimizer step.

    Attributes:
        epochs: passes over the training data.
        seed: of everything random in the loop (dropout, mixup); the data has its own.
        opt, lr, momentum, weight_decay, opt_args: timm's optimizer by name; ``opt_args`` are passed on to it.
        decay_all: decay normalisation parameters and biases too (off: weights only, timm's custom).
        sched: timm's schedule by name; ``multistep`` multiplies by ``decay_rate`` at ``milestones`` (epochs), ``step``
            every ``decay_epochs``.
        warmup_epochs, warmup_lr, min_lr: linear warm-up from ``warmup_lr``; the schedule's lowest rate.
        sched_per: change the rate after every ``step`` or every ``epoch``.
        clip_grad: largest gradient norm, or ``None``.
        accumulate: parts into which a batch is cut to save memory; the gradient is the same up to batch norm's
            statistics.
        ema: decay of the averaged weights, or ``None``; they are what is evaluated then. ``ema_warmup`` begins with
            less.
        amp: ``no``, ``bf16`` or ``fp16`` (mixed precision).
        compile, deterministic: torch's switches of these names.
        channels_last: the layout of images and weights; ``None`` chooses it and keeps the choice with the run.
        device: ``auto`` (what accelerate finds), ``cpu``, ``cuda``, ``cuda:1`` (the second GPU) or ``mps``.
        temperature_start, temperature_end, temperature_epochs, temperature_per: annealing of softmax routers (30 to 1
            in 10 epochs: Chen et al. 2020, section 4.2); nothing happens to a model without them.
        temperature_schedule: how it falls: ``linear`` (the paper's), ``cosine``, ``exponential``, or ``constant``: the
            start throughout (formulas: :class:`dynaconv.TemperatureSchedule`).
        expert_dropout: probability with which a router drops an expert for an example in training (Yang et al. 2019,
            section 4.1; formula: :func:`dynaconv.routing.drop_experts`); ``None`` leaves the routers as the network
            has them.
        load_balance: factor of a loss that keeps all experts in use (Shazeer et al. 2017, eq. 7; formula:
            :func:`dynaconv.train.regularisation.load_balance`); 0 for off.
        expert_diversity: factor of a loss that keeps the expert kernels of a layer different (after Bansal et al. 2018;
            formula: :func:`dynaconv.train.regularisation.kernel_likeness`); 0 for off.
        eval_every: epochs between evaluations; the last epoch is always evaluated.
        checkpoint_every: steps between checkpoints inside an epoch; every epoch ends with one.
        keep: checkpoints kept besides the best.
        nan_patience: steps in a row with a loss or gradient that is not finite (each is dropped) after which the run
            stops.
        log_every: steps between points in TensorBoard.
        curves: draw the learning curves at the end.
        tensorboard, wandb: log there too (a CSV is always written).
        timeout: seconds that a process waits for the others before it gives up.
    """

    epochs: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)

    opt: str = "sgd"
    lr: float = Field(default=0.05, gt=0, le=LARGEST_RATE)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=4e-5, ge=0, le=LARGEST_RATE)
    decay_all: bool = False
    opt_args: dict[str, Any] = Field(default_factory=dict)

    sched: Literal["cosine", "step", "multistep", "poly", "tanh", "constant"] = "cosine"
    sched_per: Literal["step", "epoch"] = "step"
    warmup_epochs: int = Field(default=0, ge=0)
    warmup_lr: float = Field(default=1e-5, ge=0, le=LARGEST_RATE)
    min_lr: float = Field(default=0.0, ge=0, le=LARGEST_RATE)
    milestones: tuple[int, ...] = (30, 60, 90)
    decay_rate: float = Field(default=0.1, gt=0)
    decay_epochs: float = Field(default=30, gt=0)

    clip_grad: float | None = Field(default=None, gt=0)
    accumulate: int = Field(default=1, ge=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    ema_warmup: bool = False
    amp: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    deterministic: bool = False
    device: str = "auto"

    temperature_start: float = Field(default=30.0, ge=1e-4, le=1e6)
    temperature_end: float = Field(default=1.0, ge=1e-4, le=1e6)
    temperature_epochs: int = Field(default=10, ge=0)
    temperature_per: Literal["step", "epoch"] = "epoch"
    temperature_schedule: Literal["linear", "cosine", "exponential", "constant"] = "linear"

    expert_dropout: float | None = Field(default=None, ge=0, lt=1)
    load_balance: float = Field(default=0.0, ge=0, le=1e4)
    expert_diversity: float = Field(default=0.0, ge=0, le=1e4)

    eval_every: int = Field(default=1, ge=1)
    checkpoint_every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)
    nan_patience: int = Field(default=20, ge=1)
    log_every: int = Field(default=50, ge=1)
    curves: bool = True
    tensorboard: bool = True
    wandb: bool = False
    timeout: float = Field(default=600.0, gt=0, le=LONGEST_WAIT)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs} and epochs is {self.epochs}; expected the warm-up to be shorter"
            )
        if self.load_balance and self.compile:
            raise ValueError(
                f"load_balance is {self.load_balance} and compile is on: the loss reads the routing weights of every "
                "pass, which a compiled network does not show; choose one of the two"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out settings that came later, where they are off: runs and comparisons from before go on."""
        found: dict[str, Any] = plain(self)
        fields = type(self).model_fields
        return {name: value for name, value in found.items() if name not in LATER or value != fields[name].default}


class TrainSettings(LoopSettings, ClassificationOptions):
    """Settings of a classifier's training: the loop's (:class:`LoopSettings`) and the task's, the augmentation's among
    them (:class:`~dynaconv.tasks.classification.ClassificationOptions`)."""


@lru_cache
def settings_class(task: str) -> type[LoopSettings]:
    """The settings of a run of this task: the loop's and the task's own, flat.

    Raises:
        UserError: there is no such task.
    """
    options = task_class(task).options
    if issubclass(TrainSettings, options):
        return TrainSettings
    name = f"{task.capitalize()}Settings"
    return type(name, (LoopSettings, options), {"__module__": __name__, "__doc__": f"Settings of a run of {task}."})


OPERATIONAL = frozenset(
    {"checkpoint_every", "keep", "nan_patience", "log_every", "curves", "tensorboard", "wandb", "timeout", "device"}
)
"""Settings that may differ between a run and its resumption: they do not change what is computed."""
