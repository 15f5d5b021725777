"""The networks that are compared: the static twin and its dynamic ones, built so that only the method differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from dynaconv.analysis.settings import CompareSettings
from dynaconv.layers import CondConv2d, DynamicConv2d
from dynaconv.tasks.classification import ImageData
from dynaconv.tasks.network import ModelSpec, build_model

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
        return ModelSpec(
            name=settings.backbone,
            args=settings.model_args,
            method=cast(Literal["dynamic", "condconv"], self.method),
            experts=self.experts,
            share=settings.share,
        )

    def build(self, settings: CompareSettings, data: ImageData, seed: int) -> nn.Module:
        """The network with the weights that training begins from.

        The static twin is initialised first, from ``seed``; a dynamic one copies its weights and draws the rest, so
        that within a seed both begin with the same stem, normalisation, classifier and first expert. From scratch,
        every further expert is drawn by the network's own initialiser, as in the papers: they are the kernels of K - 1
        more networks (donors). With ``pretrained`` or ``weights`` they are copies of those kernels plus small noise.

        Raises:
            UserError: no such network, or it does not take the arguments.
        """
        torch.manual_seed(seed)
        return build_model(
            self.spec(settings),
            len(data.classes),
            pretrained=settings.pretrained,
            image_size=data.image_size,
            weights=None if settings.weights is None else Path(settings.weights),
        )


STATIC = Variant("static")


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
