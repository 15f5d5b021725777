"""A trained network to inspect that costs nothing to train, and data of which the routing is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dynaconv.analysis.routes import InspectSettings
from dynaconv.tasks.network import ModelSpec, build_model
from dynaconv.tasks.weights import save_weights

CLASSES = ("black", "grey & <b>", "white")
LEVELS = {"black": 0, "grey & <b>": 128, "white": 255}


def flat_images(root: Path, per_class: int = 4, classes: tuple[str, ...] = CLASSES) -> Path:
    """``root/train`` and ``root/val`` with pictures of one colour: all images of a class are equal."""
    for split in ("train", "val"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(per_class):
                level = LEVELS.get(name, 60)
                Image.new("RGB", (16, 16), (level, level, level)).save(root / split / name / f"{number}.png")
    return root


def weights(path: Path, method: str | None = "condconv", classes: tuple[str, ...] = CLASSES, **changes: Any) -> Path:
    """The weights of a network that nobody trained; ``changes`` fill the named tensors with a number."""
    torch.manual_seed(0)
    spec = ModelSpec(name="test_resnet", method=method, experts=3 if method else None, args={"channels": [4, 4, 8, 8]})
    model = build_model(spec, len(classes), image_size=32)
    with torch.no_grad():
        for name, module in model.named_modules():
            if getattr(module, "is_router", False) and "router" in changes:
                for parameter in module.parameters():
                    parameter.fill_(changes["router"])
                assert name
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
    preprocess = {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    about = {
        "task": "classification",
        "model": spec.model_dump(mode="json"),
        "classes": list(classes),
        "preprocess": preprocess,
    }
    save_weights(path, model, about)
    return path


def settings(data: Path, **options: Any) -> InspectSettings:
    return InspectSettings(**{"data": str(data), "device": "cpu", "shown": 6, **options})
