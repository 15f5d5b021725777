"""DY-MobileNetV2 x0.75, K = 4: Chen et al. 2020, Table 8.

Published: 73.7 % top-1; static twin 69.8 %.
Setting: batch 256, SGD 0.05 to 0 in one cosine, momentum 0.9, weight decay 4e-5, 300 epochs; label smoothing,
    dropout 0.1; temperature 30 to 1 in 10 epochs.
Cost: 217.5M multiply-adds, 7.0M parameters; static 209.0M, 2.6M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV2_SMOOTHED, PAPER

RECIPES = with_static_twin(
    row(
        DY_MOBILENETV2_SMOOTHED,
        "dy_mobilenetv2_075",
        dropout=0.1,
        paper=PAPER,
        row="Table 8, DY-MobileNetV2 x0.75",
        top1=73.7,
        static_top1=69.8,
    )
)
