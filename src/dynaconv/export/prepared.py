"""The network as it goes into the file: frozen, preprocessing in front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError, suggest
from dynaconv.export.source import Source
from dynaconv.inference import freeze
from dynaconv.torch_private import EXPORT_LOGGERS

INPUTS = ("normalised", "float", "uint8")
"""What the file takes: images that are normalised already; floats from 0 to 1; bytes."""


class Prepared(nn.Module):
    """``(x / 255 - mean) / std`` in the file, if its input is not normalised already; then the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, kind: str, mean: Any, std: Any) -> None:
        super().__init__()
        self.network, self.kind = network, kind
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Any:
        images = images.float() / 255 if self.kind == "uint8" else images
        return self.network((images - self.mean) / self.std)


def check_input(kind: str, source: Source) -> None:
    """Raise UserError unless the file can take images of this kind."""
    if kind not in INPUTS:
        raise UserError(f"input is {kind!r}. {suggest(str(kind), INPUTS)}")
    if kind != "normalised" and not source.preprocessing.get("mean"):
        raise UserError(
            f"input {kind!r} is normalised in the file, and the mean and std of {source.name} are not known."
        )


def frozen(source: Source) -> nn.Module:
    """The network frozen: batch norm and temperature folded; equal up to rounding, or an error."""
    examples = torch.randn(2, *source.input_size, generator=torch.Generator().manual_seed(0))
    try:
        return freeze(source.network, examples=examples)
    except RuntimeError as error:
        raise UserError(f"{source.name} cannot be exported: {error}") from error


def with_preprocessing(network: nn.Module, source: Source, kind: str) -> nn.Module:
    """The network behind the normalisation of its input."""
    if kind == "normalised":
        return network.eval()
    known = source.preprocessing
    return Prepared(network, kind, known["mean"], known["std"]).eval()


def example(source: Source, kind: str, batch: int, size: tuple[int, int] | None = None, seed: int = 0) -> Tensor:
    """Random images of the kind that the file takes."""
    channels, *own = source.input_size
    shape = (batch, channels, *(size or own))
    generator = torch.Generator().manual_seed(seed)
    if kind == "uint8":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.rand(shape, generator=generator) if kind == "float" else torch.randn(shape, generator=generator)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, torch's exporters do not print, log or warn about their own parts."""
    import logging
    import warnings

    loggers = [logging.getLogger(name) for name in (*EXPORT_LOGGERS, "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
