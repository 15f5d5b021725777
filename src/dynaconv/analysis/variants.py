"""The networks that are compared: the static twin and its dynamic ones, built so that only the method differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from dynaconv.analysis.settings import CompareSettings
from dynaconv.layers import CondConv2d, DynamicConv2d
from dynaconv.tasks.network import ModelSpec
from dynaconv.tasks.task import TaskData
from dynaconv.train.run_folder.weights import finetune_from

DEFAULT_EXPERTS = {"dynamic": DynamicConv2d.default_experts, "condconv": CondConv2d.default_experts}


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    method: str
    experts: int | None = None

    @property
    def slug(self) -> str:
        """Part of a file's name."""
        return self.method if self.experts is None else f"{self.method}-k{self.experts}"

    @property
    def label(self) -> str:
        """For people."""
        return self.method if self.experts is None else f"{self.method} K={self.experts}"

    def spec(self, settings: CompareSettings) -> ModelSpec:
        """How to build it; saved with its weights."""
        if self.experts is None:
            return ModelSpec(name=settings.backbone, args=settings.model_args)
        if named := self._named_twin(settings):
            return ModelSpec(name=named, args={**settings.model_args, "experts": self.experts})
        return ModelSpec(
            name=settings.backbone,
            args=settings.model_args,
            method=cast(Literal["dynamic", "condconv"], self.method),
            experts=self.experts,
            share=settings.share,
        )

    def build(self, settings: CompareSettings, data: TaskData, seed: int) -> nn.Module:
        """The network with the weights that training begins from.

        The static twin is initialised first, from ``seed``; a dynamic one copies its weights and draws the rest, so
        that within a seed both begin with the same stem, normalisation, classifier and first expert. From scratch,
        every further expert is drawn by the network's own initialiser, as in the papers: they are the kernels of K - 1
        more networks (donors). With ``pretrained`` or ``weights`` they are copies of those kernels plus small noise.

        A network whose dynamic twin has a name of its own (:data:`dynaconv.models.TWINS`: detectors, keypoint networks)
        becomes that one; it begins with the static one's weights in the same way.

        ``settings.finetune`` is laid over this.

        Raises:
            UserError: no such network, or it does not take the arguments.
        """
        network = self._initialised(settings, data, seed)
        if self.method in settings.finetune:
            finetune_from(network, Path(settings.finetune[self.method]))
        return network

    def _initialised(self, settings: CompareSettings, data: TaskData, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        weights = None if settings.weights is None else Path(settings.weights)
        if not self._named_twin(settings):  # built from the static one, which is drawn first
            return data.network(self.spec(settings), pretrained=settings.pretrained, weights=weights)
        static = data.network(STATIC.spec(settings))
        twin = data.network(self.spec(settings), weights=weights)
        if weights is None:
            _begin_alike(twin, static)
        return twin

    def _named_twin(self, settings: CompareSettings) -> str | None:
        from dynaconv.models import TWINS

        method, name = TWINS.get(settings.backbone, (None, None))
        return name if method == self.method else None


STATIC = Variant("static")


def _begin_alike(twin: nn.Module, static: nn.Module) -> None:
    """Copy the static network's weights: layers that both have, and the first expert of every bank."""
    own = twin.state_dict()
    with torch.no_grad():
        for name, value in static.state_dict().items():
            target = own[name]
            (target if target.shape == value.shape else target[0]).copy_(value)


def variants(settings: CompareSettings) -> list[Variant]:
    """Static first, then every method with every K."""
    return [
        STATIC,
        *(
            Variant(method, experts)
            for method in settings.methods
            for experts in (settings.experts or (DEFAULT_EXPERTS[method],))
        ),
    ]
