"""Hugging Face accelerate: device, precision, processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from dynaconv.errors import blame_input
from dynaconv.train.settings import TrainSettings


def make_accelerator(settings: TrainSettings) -> Any:
    """An accelerator for these settings; under ``torchrun`` it joins the other processes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import InitProcessGroupKwargs

    if PartialState._shared_state and PartialState().num_processes == 1:
        # accelerate remembers device and precision for the whole process; another run may want others
        AcceleratorState._reset_state(reset_partial_state=True)
    with blame_input():
        return Accelerator(
            mixed_precision=settings.amp,
            cpu=settings.device == "cpu",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=settings.timeout))],
        )


def release(accelerator: Any, model: nn.Module) -> None:
    """Undo what ``prepare`` and ``compile`` did to the model itself."""
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    model.__dict__.pop("_is_accelerate_prepared", None)
    model._compiled_call_impl = None


@contextmanager
def torch_switches(settings: TrainSettings) -> Iterator[None]:
    """Deterministic algorithms on request, and back as they were afterwards."""
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
    """Batch norm's running statistics differ between processes; the first one's are what a checkpoint holds."""
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast

        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.clone()))


def is_first_process() -> bool:
    """Whether this is the process that writes and prints, before an accelerator is made."""
    from os import environ

    return int(environ.get("RANK", "0")) == 0
