"""The arms of an experiment: networks with their training, built so that only what is studied differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from dynaconv.analysis.settings import CompareSettings, ExperimentSettings
from dynaconv.errors import blame_input
from dynaconv.layers import CondConv2d, DynamicConv2d
from dynaconv.tasks.network import ModelSpec, height_and_width
from dynaconv.tasks.task import TaskData
from dynaconv.train.run_folder.weights import finetune_from
from dynaconv.train.settings import LoopSettings

DEFAULT_EXPERTS = {"dynamic": DynamicConv2d.default_experts, "condconv": CondConv2d.default_experts}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the table: a network, and how its training differs from the experiment's recipe.

    Attributes:
        slug: its name in files; other arms of the experiment have others.
        label: for people.
        model: how to build the network; saved with its weights.
        training: settings laid over the experiment's.
        method, experts: as a comparison's table names the network.
        like: the static network whose weights a network begins with that is dynamic by its name or its arguments; other
            networks are initialised by their builder in an order that gives them the same weights.
        weights: a local file that the network begins from, see :func:`~dynaconv.tasks.network.build_model`.
        finetune: weights (a run, a checkpoint, a safetensors file) that are laid over the first ones, where they fit.
        begins_from: the arm whose trained network it goes on with: upgraded to a dynamic one if ``model`` says so. The
            epochs of both are the cost of this arm.
    """

    slug: str
    label: str
    model: ModelSpec
    training: Mapping[str, Any] = field(default_factory=dict)
    method: str = "static"
    experts: int | None = None
    like: ModelSpec | None = None
    weights: Path | None = None
    finetune: Path | None = None
    begins_from: Arm | None = None

    def same_as(self, other: Arm) -> bool:
        """Whether both are the same network with the same training, so that a run of one is a run of the other."""

        def what(arm: Arm) -> tuple[object, ...]:
            begins = None if arm.begins_from is None else what(arm.begins_from)
            return arm.model, dict(arm.training), arm.like, begins

        return what(self) == what(other)

    def recipe(self, settings: ExperimentSettings, seed: int) -> LoopSettings:
        """The settings of one run.

        Raises:
            UserError: a setting of the arm is unknown or impossible.
        """
        base = settings.training
        return type(base).of({**base.model_dump(), **self.training, "seed": seed})

    def build(self, settings: ExperimentSettings, data: TaskData, seed: int) -> nn.Module:
        """The network with the weights that training begins from.

        The static network is initialised first, from ``seed``; a dynamic one copies its weights and draws the rest, so
        that within a seed both begin with the same stem, normalisation, classifier and first expert. From scratch,
        every further expert is drawn by the network's own initialiser, as in the papers: they are the kernels of K - 1
        more networks (donors). With ``pretrained`` or ``weights`` they are copies of those kernels plus small noise.

        A network that is dynamic by its name (detectors, keypoint networks) copies the weights of :attr:`like`. The
        weights of :attr:`finetune` are laid over all this.

        Raises:
            UserError: no such network, or it does not take the arguments.
        """
        network = self._initialised(settings, data, seed)
        if self.finetune is not None:
            finetune_from(network, self.finetune)
        return network

    def _initialised(self, settings: ExperimentSettings, data: TaskData, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        if self.like is None:
            return data.network(self.model, pretrained=settings.pretrained, weights=self.weights)
        static = data.network(self.like)
        network = data.network(self.model, weights=self.weights)
        if self.weights is None:
            _begin_alike(network, static)
        return network

    def upgrade(self, trained: nn.Module, data: TaskData, seed: int) -> nn.Module:
        """The trained network of :attr:`begins_from` as this arm goes on with it.

        A dynamic one computes at first nearly what the trained one computes: its experts are copies of the trained
        kernels plus noise that sums to zero over them, and its routing weights sum to one.
        """
        if self.model.method is None:
            return trained
        from dynaconv.conversion import dynamize

        torch.manual_seed(seed)
        with blame_input():
            return dynamize(
                trained,
                method=self.model.method,
                experts=self.model.experts,
                share=self.model.share,
                router=self.model.router_factory(),
                input_size=(3, *height_and_width(data.image_size)),
                inplace=True,
            )


def _begin_alike(network: nn.Module, static: nn.Module) -> None:
    """Copy the static network's weights: layers that both have, and the first expert of every bank."""
    own = network.state_dict()
    with torch.no_grad():
        for name, value in static.state_dict().items():
            target = own[name]
            (target if target.shape == value.shape else target[0]).copy_(value)


def label_of(method: str, experts: int | None) -> str:
    """How people read the network of a comparison: ``static``, ``dynamic K=4``."""
    return method if experts is None else f"{method} K={experts}"


def static_arm(settings: CompareSettings) -> Arm:
    """The static twin."""
    model = ModelSpec(name=settings.backbone, args=settings.model_args)
    return Arm(
        slug="static",
        label="static",
        model=model,
        weights=_path(settings.weights),
        finetune=_path(settings.finetune.get("static")),
    )


def dynamic_arm(settings: CompareSettings, method: str, experts: int) -> Arm:
    """A dynamic twin: of a name of its own (:data:`dynaconv.models.TWINS`), or the network converted."""
    from dynaconv.models import TWINS

    named_method, name = TWINS.get(settings.backbone, ("", ""))
    plain = static_arm(settings).model
    if named_method == method:
        model = ModelSpec(name=name, args={**settings.model_args, "experts": experts})
    else:
        model = ModelSpec(
            name=settings.backbone,
            args=settings.model_args,
            method=cast(Literal["dynamic", "condconv"], method),
            experts=experts,
            share=settings.share,
        )
    return Arm(
        slug=f"{method}-k{experts}",
        label=label_of(method, experts),
        model=model,
        method=method,
        experts=experts,
        like=plain if named_method == method else None,
        weights=_path(settings.weights),
        finetune=_path(settings.finetune.get(method)),
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def compared_arms(settings: CompareSettings) -> list[Arm]:
    """Static first, then every method with every K."""
    return [
        static_arm(settings),
        *(
            dynamic_arm(settings, method, experts)
            for method in settings.methods
            for experts in (settings.experts or (DEFAULT_EXPERTS[method],))
        ),
    ]
