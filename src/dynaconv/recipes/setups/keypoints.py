"""How Chen et al. 2020 train keypoint networks (section 6): Adam, 210 epochs from scratch, crops of 256x192.

Adam begins with 1e-3; 1e-4 from epoch 170, 1e-5 from epoch 200. Rotation within 45 degrees, scale 0.65 to 1.35,
mirroring and half-body augmentation; the temperature of dynamic convolution is 30. Not told: the batch (128: four
GPUs with 32, as in the code of Sun et al. 2019, whose set-up they follow), weight decay (none, as that code's Adam),
the probability of half-body augmentation (0.3, that code's), and whether the temperature is annealed as for
classification (it is not: the text of this section gives one value).
"""

from __future__ import annotations

from typing import Any

from dynaconv.recipes.row import Dictionary

PAPER = "Chen et al. 2020"
NOTES = (
    "Not told, and chosen: batch 128, no weight decay, half-body augmentation with probability 0.3, scale and rotation "
    "drawn evenly, the target's centre not rounded to a pixel. The temperature stays at 30, as the section says. The "
    "paper evaluates with a person detector's boxes (--data-arg boxes=FILE)."
)

SETTINGS: Dictionary = {
    "opt": "adam",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "epochs": 210,
    "sched": "multistep",
    "milestones": (170, 200),
    "decay_rate": 0.1,
    "rotation": 45.0,
    "scale": (0.65, 1.35),
    "hflip": 0.5,
    "half_body": 0.3,
    "temperature_start": 30.0,
    "temperature_end": 30.0,
    "temperature_epochs": 0,
}


def keypoint_row(model: str, row: str, published: dict[str, float], **args: Any) -> Dictionary:
    """One row of Table 10 or 11.

    Args:
        published: COCO's figures in percent, by the names of the task's metrics.
        args: of the network.
    """
    return {
        "task": "keypoints",
        "model": {"name": model, "args": args},
        "settings": dict(SETTINGS),
        "batch_size": 128,
        "image_size": (256, 192),
        "claim": {"paper": PAPER, "row": row, "published": published, "reproduced": "no", "notes": NOTES},
    }
