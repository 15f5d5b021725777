"""From a network's name to the network, for every command: how it is built is a :class:`ModelSpec`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import nn
from typing_extensions import Self

from dynaconv.data.frozen import Frozen
from dynaconv.errors import UserError, blame_input
from dynaconv.tasks.sources import digest_of, make_network, number_of_outputs, source_of

if TYPE_CHECKING:
    from dynaconv.conversion.method import RouterFactory

log = logging.getLogger(__name__)

MOST_EXPERTS = 1024


class ModelSpec(Frozen):
    """How to build a model; saved with its weights.

    Attributes:
        name: timm's name of a network (dynaconv.models registers the papers' networks with timm), torchvision's
            (``torchvision/resnet18``), a function of your own (``path/to/file.py:function`` or
            ``package.module:function``), or a saved network: a file of ``dynaconv.save`` or a run's folder.
        method: ``dynamic`` or ``condconv`` to make its convolutions dynamic; ``None`` leaves it as it is.
        experts: K of the layers that the method makes; its own (4 and 8) if ``None``.
        share: ``layer`` or ``block``: the layers that share one router's weights; the method's own if ``None``.
        router: ``softmax`` or ``sigmoid``: what computes the routing weights; the method's own if ``None``.
        hidden: width of the routers' hidden layer, 0 for none; the router's own if ``None`` (softmax: a quarter of the
            channels, which is 2 units in a layer of 8).
        dropout: before the classifier.
        drop_path: timm's stochastic depth.
        args: passed on to ``timm.create_model``, or to the function.
    """

    name: str
    method: Literal["dynamic", "condconv"] | None = None
    experts: int | None = Field(default=None, ge=1, le=MOST_EXPERTS)
    share: Literal["layer", "block"] | None = None
    router: Literal["softmax", "sigmoid"] | None = None
    hidden: int | None = Field(default=None, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.method is None and (self.experts or self.share or self.router or self.hidden is not None):
            raise ValueError(
                f"experts, share, router and hidden are for dynamic layers, and {self.name} is built as it is: choose "
                "a method, 'dynamic' or 'condconv'. The papers' networks take experts as an argument (args)"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_later_fields(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``router`` and ``hidden`` out where they were not chosen, as specs saved before there were these."""
        values: dict[str, Any] = plain(self)
        return {name: value for name, value in values.items() if value is not None or name not in ("router", "hidden")}

    def router_factory(self) -> RouterFactory | str | None:
        """What :func:`~dynaconv.conversion.dynamize` takes as ``router``."""
        if self.hidden is None or self.method is None:
            return self.router
        from dynaconv.conversion import METHODS
        from dynaconv.routing import SigmoidRouter, find_router

        made: Callable[..., nn.Module] = find_router(self.router) if self.router else METHODS[self.method].router
        if made is SigmoidRouter and self.hidden == 0:
            return made  # it has no hidden layer as it is
        return partial(made, hidden=self.hidden)


def build_model(
    spec: ModelSpec,
    classes: int | None,
    *,
    pretrained: bool = False,
    image_size: int | tuple[int, int] | None = None,
    blank: bool = False,
    argument: str = "num_classes",
    weights: Path | None = None,
    whole: bool = False,
) -> nn.Module:
    """Build the network for RGB images and ``classes`` classes (or keypoints).

    The experts of a dynamic twin begin as the network's own initialiser draws them, each anew (as both papers train);
    from pretrained weights, of a saved network too, they begin as copies of those kernels plus small noise.

    Args:
        classes: None leaves the network's own number.
        pretrained: begin from timm's or torchvision's pretrained weights.
        image_size: that the network will see, its side or height and width; helps to find the blocks of networks of an
            unusual size.
        blank: the weights will be overwritten, so the initialisation of the experts is skipped.
        argument: the name of the network's argument for ``classes``.
        weights: a local file to begin from instead, see :func:`~dynaconv.tasks.weights.load_weights_into`.
        whole: the head of those weights must fit too.

    Raises:
        UserError: no such network; options that it does not take; no pretrained weights or no network to fetch them;
            another number of outputs than ``classes``; another network's weights.
    """
    if weights is not None:
        if pretrained:
            raise UserError(f"--pretrained and --weights {weights} are two beginnings; choose one")
        saved = _saved_by_function(spec, weights)
        if saved is not None:
            _check_outputs(saved, classes, image_size, spec.name)
            return saved
    outputs = {} if classes is None else {argument: classes}
    model = _static(spec, outputs, pretrained, blank)
    if argument == "num_classes" and source_of(spec.name) != "timm":
        _check_outputs(model, classes, image_size, spec.name)
    if spec.method is not None:
        model = _dynamic(model, spec, outputs, image_size, copied=pretrained or blank or weights is not None)
    if weights is not None:
        from dynaconv.tasks.weights import load_weights_into

        load_weights_into(model, weights, whole=whole)
    return model


def _dynamic(
    model: nn.Module, spec: ModelSpec, outputs: dict[str, Any], image_size: int | tuple[int, int] | None, copied: bool
) -> nn.Module:
    """The twin; its experts are copies plus noise, or newly drawn."""
    assert spec.method is not None
    from dynaconv.conversion import METHODS, dynamize

    experts = spec.experts or METHODS[spec.method].experts
    donors = [] if copied else _donors(model, spec, outputs, experts - 1)
    with blame_input():
        return dynamize(
            model,
            method=spec.method,
            experts=experts,
            share=spec.share,
            router=spec.router_factory(),
            donors=donors,
            input_size=None if image_size is None else (3, *height_and_width(image_size)),
            inplace=True,
        )


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """``(height, width)`` from the side of a square, or from that pair.

    Raises:
        UserError: neither of them.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(sides, (list, tuple)) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise UserError(f"image_size is {image_size!r}; expected a whole number, or height and width")
    return sides[0], sides[1]


def trusted(spec: ModelSpec, named: str | None, path: Path) -> ModelSpec:
    """The specification that a file holds, if it runs no code; a function must be named by the user too.

    Args:
        named: what the user gave, ``--model``; None if nothing.
        path: of the file, for the message.

    Raises:
        UserError: it would run code that the user did not name.
    """
    if source_of(spec.name) != "function":
        return spec
    if named is None:
        raise UserError(
            f"{path} belongs to a network that the function {spec.name} builds, and a file does not decide what code "
            f"runs: name the function too, as MODEL or by --model {spec.name}"
        )
    return spec.model_copy(update={"name": named})


def file_of(spec: ModelSpec) -> dict[str, str] | None:
    """What to keep about the file behind a network's name: the name and a digest; None if there is no file."""
    digest = digest_of(spec.name)
    return None if digest is None else {"name": spec.name, "sha256": digest}


def changed_file(spec: ModelSpec, before: dict[str, str] | None, when: str) -> None:
    """Warn if the file behind a network's name is not what it was; ``before`` is what :func:`file_of` returned."""
    now = file_of(spec)
    if before is not None and now is not None and before.get("sha256") != now["sha256"]:
        log.warning(
            "the file behind %s is not the one %s (SHA-256 %s then, %s now)",
            *(spec.name, when, before.get("sha256"), now["sha256"]),
        )


def _static(spec: ModelSpec, outputs: dict[str, Any], pretrained: bool, blank: bool) -> nn.Module:
    return make_network(
        spec.name,
        outputs,
        spec.args,
        pretrained=pretrained,
        dropout=spec.dropout,
        drop_path=spec.drop_path,
        blank=blank,
    )


def _donors(model: nn.Module, spec: ModelSpec, outputs: dict[str, Any], count: int) -> list[nn.Module]:
    """Newly built networks for experts 2 to K; none where building gives the same weights, which were trained then."""
    if source_of(spec.name) == "saved" or not count:
        return []
    first = _static(spec, outputs, False, False)
    if _same_kernels(model, first):
        return []
    return [first, *(_static(spec, outputs, False, False) for _ in range(count - 1))]


def _same_kernels(model: nn.Module, other: nn.Module) -> bool:
    ours, theirs = ([each for each in network.parameters() if each.dim() > 1] for network in (model, other))
    return len(ours) == len(theirs) > 0 and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)
    )


def _saved_by_function(spec: ModelSpec, weights: Path) -> nn.Module | None:
    """The network of a file of ``dynaconv.save``, where the function that was named built it; None for other files."""
    from dynaconv.inference import archive_file
    from dynaconv.inference.archive import load

    if source_of(spec.name) != "function" or not weights.is_file() or not archive_file.is_archive(weights):
        return None
    if archive_file.read(weights)[0]["origin"].get("kind") != "factory" or spec.method is not None:
        return None
    return load(weights, factory=spec.name).train()


def _check_outputs(model: nn.Module, classes: int | None, image_size: int | tuple[int, int] | None, name: str) -> None:
    """Run the network once, without numbers, and raise UserError unless it returns as many logits."""
    if classes is None:
        return
    outputs = number_of_outputs(model, height_and_width(image_size or 224), name)
    if outputs != classes:
        how = (
            "give the function an argument num_classes, which is filled in"
            if source_of(name) == "function"
            else "another head cannot be put on it here"
        )
        raise UserError(f"{name} has {outputs} outputs, and there are {classes} classes; {how}")
