"""The layout of maps in memory: chosen by rule where the settings leave it open, and kept with the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from dynaconv.files import read_json
from dynaconv.layers import DynamicLayer
from dynaconv.train.run_folder.folder import RECIPE
from dynaconv.train.settings import LoopSettings

Settings = TypeVar("Settings", bound=LoopSettings)

_log = logging.getLogger("dynaconv")


def with_layout(
    settings: Settings, device: torch.device, model: nn.Module | None = None, folder: Path | None = None
) -> Settings:
    """The settings with ``channels_last`` decided, by the first of these that says something: the settings; the run in
    ``folder``, which must go on as it began; :func:`faster_in_channels_last`, for the convolutions of ``model``."""
    if settings.channels_last is not None:
        return settings
    kept = None if folder is None else _kept(folder)
    chosen = _by_rule(settings, device, model) if kept is None else kept
    why = f"faster on {device.type}" if kept is None else "as the run began"
    _log.info(f"chosen: {layout_name(chosen)} maps ({why}; --{'no-' if chosen else ''}channels-last for the other)")
    return settings.model_copy(update={"channels_last": chosen})


def layout_name(channels_last: bool) -> str:
    """The name of a layout in messages."""
    return "channels_last" if channels_last else "contiguous"


def _by_rule(settings: LoopSettings, device: torch.device, model: nn.Module | None) -> bool:
    """As the device wants it, but contiguous for a network over volumes, which cannot be converted."""
    if model is not None and any(_has_volumes(module) for module in model.modules()):
        return False
    return faster_in_channels_last(device, settings.amp)


def faster_in_channels_last(device: torch.device, amp: str = "no") -> bool:
    """Whether networks over images are run in channels_last by default.

    On a CPU it is faster, for static and dynamic networks alike (docs/performance.md, step 24). On CUDA it is what the
    tensor cores read in half precision; in float32 it was not measured, and stays contiguous.
    """
    return device.type == "cpu" or (device.type == "cuda" and amp != "no")


def _has_volumes(module: nn.Module) -> bool:
    """Whether it is a layer over volumes. Their weights have five dimensions, as a bank of kernels over images has."""
    if isinstance(module, DynamicLayer):
        return module.geometry.dims == 3
    return any(weight.dim() == 5 for weight in module.parameters(recurse=False))


def _kept(folder: Path) -> bool | None:
    """What the run in ``folder`` was begun with; None where there is none, or it cannot be read."""
    try:
        kept = read_json(folder / RECIPE)["recipe"]["settings"]["channels_last"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if isinstance(kept, bool) else None
