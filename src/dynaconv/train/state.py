"""The state that a resumed run needs to be bit-equal to a run that was never stopped."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynaconv.routing import TemperatureSchedule
from dynaconv.torch_private import copy_each_
from dynaconv.train.records import EpochRecord

LIKE_THE_PARAMETER = {"momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg"}
"""Parts of an optimizer's state that have the shape of the parameter."""


@dataclass
class Position:
    """The position of the run, and the sums of the epoch so far.

    Attributes:
        epoch, step: the epoch, and the steps of it that are done.
        total_steps: steps done since the run began.
        loss_sum, examples: of the steps of this epoch that were not dropped.
        dropped, dropped_in_row: steps dropped in this epoch, and without a good one between.
        seconds: that this epoch has trained.
        lr: learning rate of the last step.
        penalties: sums over this epoch's examples of the regularisation's terms, by name; empty without any.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    loss_sum: float = 0.0
    examples: int = 0
    dropped: int = 0
    dropped_in_row: int = 0
    seconds: float = 0.0
    lr: float = 0.0
    penalties: dict[str, float] = field(default_factory=dict)

    def begin_epoch(self, epoch: int) -> None:
        """Go to the start of ``epoch`` with empty sums."""
        self.epoch, self.step = epoch, 0
        self.loss_sum, self.examples, self.dropped, self.seconds = 0.0, 0, 0, 0.0
        self.penalties = dict.fromkeys(self.penalties, 0.0)


@dataclass
class TrainState:
    """The parts of a run that change as it trains."""

    model: nn.Module
    optimizer: Any  # timm's, unwrapped
    schedule: Any  # timm's
    temperature: TemperatureSchedule
    ema: Any | None = None  # timm's ModelEmaV3
    ema_temperature: TemperatureSchedule | None = None
    scaler: Any | None = None  # of fp16
    position: Position = field(default_factory=Position)
    history: list[EpochRecord] = field(default_factory=list)

    def capture(self) -> dict[str, Any]:
        """As nested dictionaries of tensors and plain types, with the random state of this process."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "temperature": self.temperature.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "position": dict(vars(self.position)),
            "history": [record.plain() for record in self.history],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore what :meth:`capture` returned."""
        self.model.load_state_dict(saved["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(saved["ema"])
        groups = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(saved["optimizer"])
        check_groups(groups, self.optimizer.param_groups)
        check_moments(self.optimizer)
        self.schedule.load_state_dict(saved["schedule"])
        self.temperature.load_state_dict(saved["temperature"])
        if self.ema_temperature is not None:
            self.ema_temperature.load_state_dict(saved["temperature"])
        if self.scaler is not None:
            self.scaler.load_state_dict(saved["scaler"])
        self.position = Position(**saved["position"])
        self.history = [EpochRecord(**record) for record in saved["history"]]


def check_groups(before: list[dict[str, Any]], loaded: list[dict[str, Any]]) -> None:
    """Raise ValueError where a setting of the optimizer is missing or of another kind; torch takes over anything.

    Args:
        before: the settings as the optimizer was built.
        loaded: as they were loaded; what an older version of torch did not write, torch has filled in.
    """
    for number, (now, there) in enumerate(zip(before, loaded, strict=True)):
        for name, value in now.items():
            if name == "params":
                continue
            if name not in there:
                raise ValueError(f"the optimizer's group {number} lacks {name!r}")
            if _kind_of(there[name]) != _kind_of(value):
                raise ValueError(f"the optimizer's {name} is {there[name]!r}; expected {_kind_of(value)}, as {value!r}")


def _kind_of(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return type(value).__name__


def check_moments(optimizer: Any) -> None:
    """Raise ValueError where the state of a parameter is none of its; torch's optimizers take over anything."""
    for parameter, state in optimizer.state.items():
        if not isinstance(state, dict):
            raise ValueError(f"the optimizer's state of a parameter is {type(state).__name__}; expected a dictionary")
        for name in LIKE_THE_PARAMETER & state.keys():
            found = state[name]
            if found is not None and getattr(found, "shape", None) != parameter.shape:
                raise ValueError(
                    f"the optimizer's {name} is {tuple(getattr(found, 'shape', ()))} for a parameter of "
                    f"{tuple(parameter.shape)}"
                )
    if type(optimizer).__module__.startswith("torch.optim"):  # timm's have other moments for vectors than for matrices
        for name in sorted(LIKE_THE_PARAMETER):
            held = [state.get(name) is not None for state in optimizer.state.values()]
            if any(held) and not all(held):
                raise ValueError(f"the optimizer's {name} is missing for {held.count(False)} of {len(held)} parameters")


def weights_are_finite(model: nn.Module) -> bool:
    """Whether no parameter or buffer holds a NaN or an infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values() if tensor.is_floating_point())


def random_state(device: torch.device) -> dict[str, Any]:
    """This process's generators: Python's, numpy's, torch's, the device's."""
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - timm's Mixup draws from it
    return {
        "python": [version, list(numbers), gauss],
        # int64, because torch cannot send unsigned tensors to another process
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(place), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "device": torch.get_device_module(device).get_rng_state(device) if device.type != "cpu" else None,
    }


def restore_random_state(saved: dict[str, Any], device: torch.device) -> None:
    """Restore the generators to a state that :func:`random_state` returned."""
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(saved["torch"].cpu())
    if saved["device"] is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(saved["device"].cpu(), device)


class BufferGuard:
    """Saves a model's buffers before a step and restores them if the step is dropped.

    A forward pass on a bad batch changes batch norm's running statistics, and a dropped step must change nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self._groups: list[tuple[list[Tensor], list[Tensor]]] = []
        for buffers in _same_kind(list(model.buffers())):
            self._groups.append((buffers, [buffer.clone() for buffer in buffers]))

    def remember(self) -> None:
        for buffers, copies in self._groups:
            copy_each_(copies, buffers)

    def restore(self) -> None:
        for buffers, copies in self._groups:
            copy_each_(buffers, copies)


def _same_kind(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Groups of one device and dtype, which is what the foreach operations are quick on."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.device, tensor.dtype].append(tensor)
    return list(groups.values())
