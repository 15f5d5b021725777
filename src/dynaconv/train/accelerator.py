"""Hugging Face accelerate: device, precision, processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from os import environ
from typing import Any

import torch
from torch import nn

from dynaconv.errors import RunError, UserError, blame_input
from dynaconv.timing import find_device
from dynaconv.train.settings import LoopSettings


def make_accelerator(settings: LoopSettings) -> Any:
    """An accelerator for these settings; under ``torchrun`` it joins the other processes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import InitProcessGroupKwargs

    if PartialState._shared_state and PartialState().num_processes == 1:
        # accelerate keeps device and precision for the whole process; another run may need others
        AcceleratorState._reset_state(reset_partial_state=True)
    with blame_input():
        device = _device(settings.device)
        accelerator = Accelerator(
            mixed_precision=settings.amp,
            # accelerate joins a launcher's processes on a machine without a GPU only if it is told that it has none
            cpu=device.type == "cpu",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=settings.timeout))],
        )
    started = int(environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise RunError(
            f"{started} processes were launched, and accelerate has joined {accelerator.num_processes} of them."
        )
    if settings.amp == "fp16" and accelerator.scaler is None:
        raise UserError(
            f"fp16 on {accelerator.device} would train without a gradient scaler, and small gradients would vanish. "
            "Use --amp bf16, or a GPU."
        )
    return accelerator


def _device(word: str) -> torch.device:
    """The device of that name. A GPU with a number becomes the current one, so that "cuda" means it in this process."""
    device = find_device(word)
    if device.type == "cuda" and ":" in word:
        if int(environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                f"device is {word!r} and several processes were launched, each with a GPU of its own: say cuda"
            )
        torch.cuda.set_device(device)
    return device


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo what accelerate's ``prepare`` (a patched ``forward``) and ``compile`` do to the model itself."""
    names = ("forward", "_original_forward", "_is_accelerate_prepared", "_compiled_call_impl")
    before = {name: model.__dict__[name] for name in names if name in model.__dict__}
    try:
        yield
    finally:
        for name in names:
            model.__dict__.pop(name, None)
        model.__dict__.update(before)


@contextmanager
def torch_switches(settings: LoopSettings) -> Iterator[None]:
    """Switch deterministic algorithms on if requested, and restore the previous state afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if settings.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def copy_buffers_from_first_process(accelerator: Any, model: nn.Module) -> None:
    """Copy the buffers of the first process to all: batch norm's running statistics differ between processes, and a
    checkpoint holds those of the first."""
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast

        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.clone()))


def is_first_process() -> bool:
    """Whether this is the process that writes and prints, before an accelerator is made."""
    return int(environ.get("RANK", "0")) == 0
