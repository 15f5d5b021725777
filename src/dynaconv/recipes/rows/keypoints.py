"""Keypoint networks on COCO, types A and B: Chen et al. 2020, Tables 10 and 11; and one for mice and one core.

Published: average precision on val2017 with a person detector's boxes, dynamic (static):
    type A: ResNet-18 68.6 (67.0), MobileNetV2 x1.0 67.6 (64.7), x0.5 61.9 (57.0), MobileNetV3-Small 59.3 (57.1);
    type B: MobileNetV2 x1.0 68.2 (64.6), x0.5 62.8 (59.2), MobileNetV3-Small 60.0 (57.1);
    Table 11, type B on MobileNetV2 x0.5: dynamic head alone 60.3, dynamic backbone alone 62.3.
Setting: Adam 1e-3, 1e-4 from epoch 170, 1e-5 from epoch 200, 210 epochs from scratch, temperature 30; see
    setups/keypoints.py for what is not told.
Cost: `dynaconv tables` prints Table 10 beside ours.
Duration: mice 3 to 4 minutes on one core; the others unknown, nobody has run them to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import Dictionary
from dynaconv.recipes.setups.keypoints import SETTINGS, keypoint_row

FIGURES = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar")
TABLE_10 = {
    "a_resnet18": (67.0, 87.9, 74.8, 63.6, 73.5, 73.1),
    "a_dy_resnet18": (68.6, 88.4, 76.1, 65.3, 75.1, 74.6),
    "a_mobilenetv2_100": (64.7, 87.2, 72.6, 61.3, 71.0, 71.0),
    "a_dy_mobilenetv2_100": (67.6, 88.1, 75.5, 64.4, 74.1, 73.8),
    "a_mobilenetv2_050": (57.0, 83.7, 63.1, 53.9, 63.1, 63.7),
    "a_dy_mobilenetv2_050": (61.9, 85.8, 69.7, 58.9, 67.9, 68.4),
    "a_mobilenetv3_small": (57.1, 83.7, 63.8, 54.9, 62.3, 64.1),
    "a_dy_mobilenetv3_small": (59.3, 84.7, 66.7, 56.9, 64.7, 66.1),
    "b_mobilenetv2_100": (64.6, 87.0, 72.4, 61.3, 71.0, 71.0),
    "b_dy_mobilenetv2_100": (68.2, 88.4, 76.0, 65.0, 74.7, 74.2),
    "b_mobilenetv2_050": (59.2, 84.3, 66.4, 56.2, 65.0, 65.6),
    "b_dy_mobilenetv2_050": (62.8, 86.1, 70.4, 59.9, 68.6, 69.1),
    "b_mobilenetv3_small": (57.1, 83.8, 63.7, 55.0, 62.2, 64.1),
    "b_dy_mobilenetv3_small": (60.0, 85.0, 67.8, 57.6, 65.4, 66.7),
}
TABLE_11 = {
    "b_dy_mobilenetv2_050_head": ((60.3, 84.9, 67.3), {"dynamic_backbone": False}),
    "b_dy_mobilenetv2_050_backbone": ((62.3, 85.6, 70.0), {"dynamic_head": False}),
}


def _mice(model: str) -> Dictionary:
    """For 92 pictures and one core: small square crops, any orientation, 50 epochs."""
    return {
        "task": "keypoints",
        "model": {"name": model, "args": {}},
        "settings": {
            **SETTINGS,
            "epochs": 50,
            "lr": 2e-3,
            "milestones": (40, 47),
            "rotation": 180.0,
            "sigma": 1.5,
            "eval_every": 10,
        },
        "batch_size": 8,
        "image_size": (96, 96),
        "data_args": {"sigmas": 0.05},
        "claim": {
            "paper": "none",
            "row": "mouse keypoints (DeepLabCut's openfield), 92 training pictures",
            "notes": (
                "No paper's: a recipe for one small machine. Three seeds (docs/detection-keypoints.md): AP 55.0 % "
                "static, 62.9 % dynamic; a mean pose has 5.2 %. With the temperature annealed to 1 over 10 epochs the "
                "dynamic network had 40.5 %, and one seed hardly learned."
            ),
        },
    }


RECIPES = {
    **{
        name: keypoint_row(f"keypoints_{name}", f"Table 10, {name}", dict(zip(FIGURES, figures, strict=True)))
        for name, figures in TABLE_10.items()
    },
    **{
        name: keypoint_row(
            "keypoints_b_dy_mobilenetv2_050", f"Table 11, {name}", dict(zip(FIGURES, figures, strict=False)), **args
        )
        for name, (figures, args) in TABLE_11.items()
    },
    "mouse": _mice("keypoints_b_dy_mobilenetv2_050"),
    "mouse_static": _mice("keypoints_b_mobilenetv2_050"),
}
