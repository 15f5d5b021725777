"""A network that is evaluated or used by its name, without a run: classes and preprocessing come from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynaconv.errors import UserError
from dynaconv.inference.archive_file import is_archive
from dynaconv.tasks.classification import Classification, ClassificationOptions, Preprocess
from dynaconv.tasks.network import ModelSpec, build_model
from dynaconv.tasks.sources import number_of_outputs, source_of
from dynaconv.tasks.task import TaskOptions
from dynaconv.train.run_folder.weights import Trained

IMAGENET = Preprocess(image_size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def is_named(word: str) -> bool:
    """Whether a word names a network, and not a run's folder or its weights."""
    source = source_of(word)
    if source == "timm":
        import timm

        import dynaconv.models  # noqa: F401 - makes the papers' networks known to timm

        return ":" in word or timm.is_model(word.partition(".")[0])
    return source != "saved" or (Path(word).is_file() and is_archive(Path(word)))


def load_named(
    name: str,
    *,
    classes: Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    image_size: int | None = None,
    preprocess: Preprocess | None = None,
    options: TaskOptions | None = None,
) -> Trained:
    """Build a classifier with its weights, for evaluation and prediction.

    Args:
        name: of the network, which the user gave (see :mod:`dynaconv.tasks.sources`).
        classes: their names; numbers if ``None``, as many as the network has.
        arguments: of the network.
        weights: a local file; the head must fit.
        pretrained: the published weights instead.
        image_size: side of the square that it sees; the network's own if ``None``.
        preprocess: for a network that does not say its own; ImageNet's if ``None``.
        options: for the memory format.

    Raises:
        UserError: no such network, another network's weights, another number of classes, or no weights at all.
    """
    source = source_of(name)
    if weights is None and not pretrained and source in ("timm", "torchvision"):
        raise UserError(
            f"{name} is a network without weights: give --weights FILE, --pretrained, or a run's folder instead"
        )
    counted = None if classes is None or pretrained or source == "saved" else len(classes)
    spec = ModelSpec(name=name, args=dict(arguments or {}))
    network = build_model(spec, counted, pretrained=pretrained, image_size=image_size, weights=weights, whole=True)
    size = _preprocess(network, preprocess or IMAGENET, image_size)
    outputs = number_of_outputs(network, (size.image_size, size.image_size), name)
    if classes is not None and len(classes) != outputs:
        raise UserError(
            f"{name} has {outputs} outputs, and there are {len(classes)} classes ({', '.join(list(classes)[:4])} ...); "
            "expected as many"
        )
    memory = None if options is None else ClassificationOptions(channels_last=options.channels_last)
    task = Classification(list(classes) if classes is not None else outputs, memory, preprocess=size)
    if options is not None and options.channels_last:
        network.to(memory_format=torch.channels_last)
    about = {"model": spec.model_dump(mode="json"), "classes": task.classes, "preprocess": size.model_dump(mode="json")}
    return Trained(network.eval(), task, about, weights or Path(name))


def _preprocess(network: nn.Module, other: Preprocess, image_size: int | None) -> Preprocess:
    """What the network says of its pictures, as timm's do; else the other one."""
    config = getattr(network, "pretrained_cfg", None)
    config = config if isinstance(config, dict) else vars(config) if config is not None else {}
    chosen = other.model_dump()
    if config.get("mean") and config.get("std") and config.get("input_size"):
        chosen |= {"mean": tuple(config["mean"]), "std": tuple(config["std"]), "image_size": config["input_size"][-1]}
        chosen["crop_pct"] = config.get("crop_pct") or chosen["crop_pct"]
        if config.get("interpolation") in INTERPOLATIONS:
            chosen["interpolation"] = config["interpolation"]
    return Preprocess(**{**chosen, **({} if image_size is None else {"image_size": image_size})})
