"""A network that trains in milliseconds and has all that a resumed run could lose: batch norm, dropout, a router."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.routing import SoftmaxRouter
from dynaconv.tasks.classification import ImageData, Preprocess, open_splits
from dynaconv.tasks.classification.source import Subset
from dynaconv.train import TrainSettings


class Tiny(nn.Module):
    """Convolution, batch norm, and a linear layer of K experts mixed by a softmax router."""

    def __init__(self, classes: int = 10, experts: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.router = SoftmaxRouter(8, experts)
        self.drop = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.randn(experts, classes, 8 * 16) / 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        mixed = torch.einsum("bk,koi->boi", self.router(x).to(x.dtype), self.weight.to(x.dtype))
        return torch.einsum("boi,bi->bo", mixed, self.drop(x.flatten(1)))


def tiny(seed: int = 0, **options: Any) -> Tiny:
    torch.manual_seed(seed)
    return Tiny(**options)


def digits(train: int = 192, evaluation: int = 80, batch_size: int = 32, seed: int = 0, **options: Any) -> ImageData:
    """Some of the digits at 8x8: 6 steps an epoch, 3 evaluation batches of which the last is short."""
    whole = open_splits("digits")
    splits = replace(
        whole, train=Subset(whole.train, range(train)), evaluation=Subset(whole.evaluation, range(evaluation))
    )
    preprocess = Preprocess(image_size=8, mean=splits.mean, std=splits.std, crop_pct=1.0)
    chosen = {
        "name": "digits",
        "batch_size": batch_size,
        "eval_batch_size": batch_size,
        "workers": 0,
        "seed": seed,
        "bad_images": "error",
        "max_bad_images": None,
        "loader_timeout": 60.0,
        **options,
    }
    return ImageData(splits, preprocess, **chosen)


def settings(**options: Any) -> TrainSettings:
    """Everything on that has a state."""
    return TrainSettings(
        **{
            "epochs": 3,
            "lr": 0.1,
            "ema": 0.9,
            "mixup": 0.2,
            "clip_grad": 5.0,
            "temperature_epochs": 2,
            "temperature_per": "step",
            "curves": False,  # drawing takes longer than such a run
            "tensorboard": False,
            "device": "cpu",
            **options,
        }
    )


def same(one: Any, two: Any, without: tuple[str, ...] = (), where: str = "") -> list[str]:
    """The places where two nested states differ; empty if they are bit-equal."""
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return [f"{where}: {sorted(map(str, one.keys() ^ two.keys()))}"]
        return [
            place for key in one if key not in without for place in same(one[key], two[key], without, f"{where}.{key}")
        ]
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        if len(one) != len(two):
            return [f"{where}: {len(one)} and {len(two)} entries"]
        return [
            place
            for i, (a, b) in enumerate(zip(one, two, strict=True))
            for place in same(a, b, without, f"{where}[{i}]")
        ]
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        equal = one.dtype == two.dtype and torch.equal(one, two)
        return [] if equal else [f"{where}: tensors differ"]
    return [] if one == two else [f"{where}: {one!r} and {two!r}"]


MEASURED = ("seconds", "images_per_second", "train_seconds", "eval_seconds")
"""What a clock says, and no two runs have in common."""


def newest(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((folder / "checkpoints").glob("*.pt"))
