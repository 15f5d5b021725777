"""SSD300 on CondConv-MobileNetV1 0.50x, 0.75x and 1.0x, 8 experts: Yang et al. 2019, Table 2; and small trainings.

Published: COCO AP (minival) 18.0 %, 21.0 % and 22.4 %; static twins 14.4 %, 18.2 % and 20.3 %.
Setting: batch 1024, 20,000 steps, learning rate 0.3 to 0.9 in 1,000 steps, then cosine; the SSD paper's augmentation.
    The rows *_small are for blood cells (BCCD, 205 pictures) on one core: AdamW, batch 8, 24 epochs, 224x224.
Cost: 363M, 755M and 1280M multiply-adds; static 352M, 730M and 1230M.
Duration: *_small 6 to 10 minutes on one shared core; the others unknown, nobody has run them to the end here.
Reproduced: no.
"""

from __future__ import annotations

from typing import Any

from dynaconv.recipes.setups.ssd import COCO, COCO_NOTES, SMALL, SMALL_ARGS, SMALL_NOTES, ssd_row

# name of the width: width, AP in percent, that of the static twin
TABLE_2 = {"050": ("0.5x", 18.0, 14.4), "075": ("0.75x", 21.0, 18.2), "100": ("1.0x", 22.4, 20.3)}

RECIPES: dict[str, Any] = {}
for _name, (_width, _ap, _static) in TABLE_2.items():
    _row = f"Table 2, SSD300-MobileNetV1 ({_width})"
    _dynamic_name, _static_name = f"ssd300_condconv_mobilenetv1_{_name}", f"ssd300_mobilenetv1_{_name}"
    RECIPES[_name] = ssd_row(
        COCO,
        _dynamic_name,
        {"row": f"{_row} CondConv", "published": {"ap": _ap}},
        COCO_NOTES,
    )
    RECIPES[f"{_name}_static"] = ssd_row(
        COCO, _static_name, {"row": f"{_row} CondConv, static twin", "published": {"ap": _static}}, COCO_NOTES
    )
RECIPES["050_small"] = ssd_row(
    SMALL, "ssd300_condconv_mobilenetv1_050", {"row": "section 4.2, on a small machine"}, SMALL_NOTES, **SMALL_ARGS
)
RECIPES["050_small_static"] = ssd_row(
    SMALL, "ssd300_mobilenetv1_050", {"row": "section 4.2, on a small machine, static twin"}, SMALL_NOTES, **SMALL_ARGS
)
