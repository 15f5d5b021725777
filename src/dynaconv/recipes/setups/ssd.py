"""How Yang et al. 2019 train SSD300 on COCO (section 4.2), and how to train it on one small machine.

Stated: batch 1024, 20,000 steps, linear warm-up from 0.3 to 0.9 over 1,000 steps, then cosine decay; the augmentation
of Liu et al. 2016; COCO's training and validation pictures without 8,000 for evaluation (of 2014, so it seems: 115,287
pictures, 112 steps an epoch).
"""

from __future__ import annotations

from typing import Any

from dynaconv.recipes.row import Dictionary

PAPER = "Yang et al. 2019"

# No softmax router anneals.
_TEMPERATURE = {"temperature_start": 1.0, "temperature_end": 1.0, "temperature_epochs": 0}

COCO: Dictionary = {
    "settings": {
        "epochs": 179,  # of 112 steps: 20,048
        "opt": "momentum",
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "lr": 0.9,
        "sched": "cosine",
        "min_lr": 0.0,
        "warmup_epochs": 9,  # 1,008 steps
        "warmup_lr": 0.3,
        "ema": None,
        "accumulate": 8,
        "eval_every": 10,
        **_TEMPERATURE,
    },
    "batch_size": 1024,
    "image_size": 300,
}
COCO_NOTES = (
    "Whole epochs stand for 20,000 and 1,000 steps. Not told, and chosen: plain momentum 0.9, weight decay 4e-5, "
    "weights that begin at random or with an ImageNet backbone (--finetune), evaluation on val2017 if the 8,000 "
    "pictures are not at hand."
)

SMALL: Dictionary = {
    "settings": {
        "epochs": 24,
        "opt": "adamw",
        "weight_decay": 0.01,
        "lr": 2e-3,
        "sched": "cosine",
        "min_lr": 0.0,
        "warmup_epochs": 1,
        "warmup_lr": 1e-5,
        "zoom_out": 0.0,
        "iou_crop": False,
        "distort": False,
        "vflip": 0.5,
        "channels_last": True,
        "eval_every": 10,
        **_TEMPERATURE,
    },
    "batch_size": 8,
    "image_size": 224,
}
# Squares of 0.07 (platelets) and 0.18 (red cells) of the side on the first map, 0.44 and more (white cells) after it.
SMALL_ARGS: Dictionary = {"head": "ssd", "scales": [0.07, 0.44, 0.55, 0.66, 0.77, 0.88, 0.99], "iou_thresh": 0.4}
SMALL_NOTES = (
    "No claim of the paper: for 205 pictures of blood cells (BCCD) on one core. All settings are ours: mirroring "
    "alone, anchors of the cells' sizes. It wants a backbone that was trained on something (--finetune). From one of "
    "Imagenette (4 epochs), 3 seeds (docs/detection-keypoints.md): AP 30.4 % static, 33.5 % with CondConv; mean "
    "boxes have 0.2 %. From scratch, static, seed 0: 20.5 %."
)


def ssd_row(setup: Dictionary, model: str, claim: dict[str, Any], notes: str, **args: Any) -> Dictionary:
    """One recipe of the task detection; ``args`` are the network's."""
    plain = {"paper": PAPER, "reproduced": "no", "notes": notes, **claim}
    return {**setup, "task": "detection", "model": {"name": model, "args": args}, "claim": plain}
