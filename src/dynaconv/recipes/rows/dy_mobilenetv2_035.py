"""DY-MobileNetV2 x0.35, K = 4: Chen et al. 2020, Table 8.

Published: 65.9 % top-1; static twin 60.3 %.
Setting: batch 256, SGD 0.05 to 0 in one cosine, momentum 0.9, weight decay 4e-5, 300 epochs; no dropout, no label
    smoothing; temperature 30 to 1 in 10 epochs.
Cost: 62.0M multiply-adds, 2.8M parameters; static 59.2M, 1.7M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV2, PAPER

RECIPES = with_static_twin(
    row(
        DY_MOBILENETV2,
        "dy_mobilenetv2_035",
        dropout=0.0,
        paper=PAPER,
        row="Table 8, DY-MobileNetV2 x0.35",
        top1=65.9,
        static_top1=60.3,
    )
)
