"""Warnings before the training for settings that are allowed but probably mistakes, and errors for impossible ones."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynaconv.data.decoding import BadImage
from dynaconv.errors import UserError
from dynaconv.tasks.network import height_and_width
from dynaconv.tasks.task import TaskData

log = logging.getLogger(__name__)

SCALED_UP = 8  # times; a picture has no detail for that
FELL = 0.01  # the loss must fall by this share of the first epoch's loss
FEWEST_EPOCHS = 3


def check_sizes(network: nn.Module, data: TaskData, *, accumulate: int = 1, processes: int = 1) -> None:
    """Warn of images smaller than the network's stride, and of pictures that are scaled up far.

    Args:
        network: as it will be trained.
        data: opened for training.
        accumulate: parts into which a batch is cut.
        processes: that share a batch.

    Raises:
        UserError: a forward pass sees one image, and the network has batch norm, which cannot be trained on one.
    """
    at_once = math.ceil(data.batch_size / (accumulate * processes))
    if at_once < 2 and any(isinstance(module, _BatchNorm) for module in network.modules()):
        raise UserError(
            f"The network has batch norm, and a forward pass would see {at_once} image (--batch-size is "
            f"{data.batch_size}, --accumulate {accumulate}, on {processes} processes); statistics of one image train "
            "nothing. Choose a --batch-size of at least 2 for each part and process."
        )
    reduction, size = stride_of(network), height_and_width(data.image_size)
    if reduction is not None and min(size) < reduction:
        log.warning(
            "images are %d pixels a side and the network's stride is %d: its last maps are one pixel; expected an "
            "--image-size of at least %d",
            *(min(size), reduction, reduction),
        )
    try:
        width, height = data.first_picture().size
    except BadImage:  # the loader will report it
        return
    side = min(width, height)
    if min(size) >= SCALED_UP * side:
        log.warning(
            "pictures of %d pixels a side are scaled up to %d, %.0f times: that costs time and adds no detail; a "
            "smaller --image-size does as well",
            *(side, min(size), min(size) / side),
        )


def stride_of(network: nn.Module) -> int | None:
    """Return the total stride of a network of timm; None if timm does not state it."""
    info = getattr(network, "feature_info", None)
    try:
        return max(int(stage["reduction"]) for stage in info) if info else None
    except (TypeError, KeyError):
        return None


def check_experts(counts: Sequence[int | None]) -> None:
    """Warn of one expert in a layer that is to be dynamic."""
    if 1 in counts:
        log.warning(
            "with one expert a dynamic layer is an ordinary one that costs more; expected 2 or more (the papers use 4 "
            "and 8)"
        )


def check_losses(losses: Sequence[float], label: str = "") -> None:
    """Warn of a training loss that never fell.

    Args:
        losses: of every epoch, the mean.
        label: what was trained, where there are several.
    """
    if len(losses) < FEWEST_EPOCHS:
        return
    first, best = losses[0], min(losses[1:])
    if not best < first - FELL * abs(first):
        log.warning(
            "%sthe training loss never fell: %.4g in the first epoch, %.4g at best in the %d after it; another --lr, "
            "or the labels, may be the reason",
            *(f"{label}: " if label else "", first, best, len(losses) - 1),
        )
