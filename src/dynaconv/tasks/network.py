"""Builds a model from its name, for training, evaluation and prediction."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn
from typing_extensions import Self

from dynaconv.data.frozen import Frozen
from dynaconv.errors import UserError, blame_input, suggest


class ModelSpec(Frozen):
    """How to build a model; saved with its weights.

    Attributes:
        name: timm's name of a network (dynaconv.models registers the papers' networks with timm).
        method: ``dynamic`` or ``condconv`` to make its convolutions dynamic; ``None`` leaves it as it is.
        experts: K of the layers that the method makes; its own (4 and 8) if ``None``.
        share: ``layer`` or ``block``: the layers that share one router's weights; the method's own if ``None``.
        dropout: before the classifier.
        drop_path: timm's stochastic depth.
        args: passed on to ``timm.create_model``.
    """

    name: str
    method: Literal["dynamic", "condconv"] | None = None
    experts: int | None = Field(default=None, ge=1)
    share: Literal["layer", "block"] | None = None
    dropout: float | None = Field(default=None, ge=0, lt=1)
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.method is None and (self.experts or self.share):
            raise ValueError(
                f"experts and share are for dynamic layers, and {self.name} is built as it is: choose a method, "
                "'dynamic' or 'condconv'. The papers' networks take experts as an argument (args)"
            )
        return self


def build_model(
    spec: ModelSpec,
    classes: int,
    *,
    pretrained: bool = False,
    image_size: int | tuple[int, int] | None = None,
    blank: bool = False,
    argument: str = "num_classes",
) -> nn.Module:
    """Build the network for RGB images and ``classes`` classes (or keypoints).

    The experts of a dynamic twin begin as the network's own initialiser draws them, each anew (as both papers train);
    from pretrained weights they begin as copies of the pretrained kernels plus small noise.

    Args:
        pretrained: begin from timm's pretrained weights.
        image_size: that the network will see, its side or height and width; helps to find the blocks of networks of an
            unusual size.
        blank: the weights will be overwritten, so the initialisation of the experts is skipped.
        argument: the name of the network's argument for ``classes``.

    Raises:
        UserError: no such network; options that it does not take; no pretrained weights or no network to fetch them.
    """
    outputs: dict[str, Any] = {argument: classes}
    model = _static(spec, outputs, pretrained)
    if spec.method is None:
        return model
    from dynaconv.conversion import METHODS, dynamize

    experts = spec.experts or METHODS[spec.method].experts
    donors = [] if pretrained or blank else [_static(spec, outputs, False) for _ in range(experts - 1)]
    with blame_input():
        return dynamize(
            model,
            method=spec.method,
            experts=experts,
            share=spec.share,
            donors=donors,
            input_size=None if image_size is None else (3, *height_and_width(image_size)),
            inplace=True,
        )


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """``(height, width)`` from the side of a square, or from that pair."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def _static(spec: ModelSpec, outputs: dict[str, Any], pretrained: bool) -> nn.Module:
    import timm

    import dynaconv.models  # noqa: F401 - makes the papers' networks known to timm

    if not timm.is_model(spec.name):
        raise UserError(f"There is no model {spec.name!r}. {suggest(spec.name, timm.list_models())}")
    options = {"drop_rate": spec.dropout, "drop_path_rate": spec.drop_path}
    chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    try:
        return timm.create_model(spec.name, pretrained=pretrained, **outputs, **chosen, **spec.args)
    except Exception as error:  # a wrong option, no weights, no network: each library raises its own
        what = "pretrained weights of" if pretrained else "model"
        raise UserError(f"The {what} {spec.name} cannot be had: {type(error).__name__}: {error}") from error
