"""Small checkpoints and pictures for the tests of the service."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from dynaconv.tasks import task_class
from dynaconv.train.run_folder.weights import save_weights

CLASSES = ["cat", "dog", "<b>owl</b>", 'Müller\'s "fox"']
SIDE = 32
PREPROCESS = {"image_size": SIDE, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
ABOUTS: dict[str, dict[str, Any]] = {
    "classification": {
        "model": {"name": "test_resnet", "method": "dynamic", "args": {"channels": [8, 8, 16, 16]}},
        "classes": CLASSES,
        "preprocess": PREPROCESS,
    },
    "detection": {
        "model": {"name": "ssd300_condconv_mobilenetv1_050", "args": {"experts": 2}},
        "classes": ["cat", "dog"],
        "category_ids": [3, 5],
        "preprocess": {"image_size": 64},
    },
    "keypoints": {
        "model": {"name": "keypoints_b_dy_mobilenetv2_050", "args": {"experts": 2}},
        "pose": {
            "category": "puppet",
            "names": ["nose", "left_hand", "right_hand"],
            "limbs": [[0, 1], [0, 2]],
            "flip_pairs": [[1, 2]],
            "sigmas": [0.05, 0.1, 0.1],
            "image_size": [64, 64],
        },
    },
}


def spread(network: nn.Module) -> nn.Module:
    """The network with outputs and routing weights that depend on the picture clearly, as those of a trained one do."""
    torch.manual_seed(3)
    for name, parameter in network.named_parameters():
        if ".router." in name or name.endswith(("fc.weight", "classifier.weight")):
            nn.init.normal_(parameter, std=0.5)
    for module in network.modules():
        if hasattr(module, "temperature"):
            module.temperature.fill_(0.3)
    return network


def write_checkpoint(path: Path, task: str = "classification", **changes: Any) -> Path:
    """A weights file as training writes it, of a network that was never trained."""
    about = {"task": task, **ABOUTS[task], **changes}
    torch.manual_seed(0)
    _, network = task_class(task).of_weights(about)
    save_weights(path, spread(network), about)
    return path


def picture(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth picture of its own colours."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
