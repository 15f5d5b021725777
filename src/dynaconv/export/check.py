"""The file that was written runs, at several batch sizes and image sizes, and is held against the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.export.prepared import example
from dynaconv.export.runtimes import Exported
from dynaconv.export.source import Source

BATCHES = (1, 2, 5)
LARGEST_ERROR = 1e-4
"""Relative to the largest value of each output, in float32."""


def outputs_of(network: nn.Module, images: Tensor) -> list[Tensor]:
    """The tensors that a network returns."""
    with torch.no_grad():
        made: Any = network(images)
    return [made] if isinstance(made, Tensor) else list(made.values() if isinstance(made, dict) else made)


def error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest value of the output; infinite for another shape or NaN."""
    worst = 0.0
    for ours, theirs in zip(actual, expected, strict=True):
        if ours.shape != theirs.shape or not (ours.isfinite().all() and theirs.isfinite().all()):
            return float("inf")
        if theirs.numel():
            scale = max(theirs.abs().max().item(), 1e-12)
            worst = max(worst, (ours.double() - theirs.double()).abs().max().item() / scale)
    return worst


def check(loaded: Exported, networks: Sequence[nn.Module], source: Source) -> list[dict[str, float]]:
    """For each network the error of the file, by batch size and image size: ``{"batch 2, 224x224": 1e-6}``.

    Where the image size is free, two other sizes are tried, one of them odd: an exported graph may have kept a fact of
    the size that it was traced with, such as that it is even. A size that the network itself does not take is left out.
    """
    _, height, width = source.input_size
    own = (height, width)
    batches = BATCHES if loaded.batch is None else (loaded.batch,)
    cases = [(batch, own) for batch in batches]
    if loaded.free_size:
        cases += [(batches[-1], (height + 32, width + 32)), (batches[0], (height + 33, width + 7))]
    errors: list[dict[str, float]] = [{} for _ in networks]
    for number, (batch, size) in enumerate(cases):
        images = example(source, loaded.input, batch, size, seed=number)
        try:
            expected = [outputs_of(network, images) for network in networks]
        except Exception:
            if size == own:
                raise
            continue  # the network does not take this size either
        for own_errors, wanted in zip(errors, expected, strict=True):
            own_errors[f"batch {batch}, {size[0]}x{size[1]}"] = _error_of(loaded, images, wanted)
    return errors


def _error_of(loaded: Exported, images: Tensor, expected: list[Tensor]) -> float:
    try:
        made = loaded.run(images)
    except Exception:  # a runtime's own kinds: the file does not run at this size
        return float("inf")
    return error([made[name] for name in loaded.outputs[: len(expected)]], expected)
