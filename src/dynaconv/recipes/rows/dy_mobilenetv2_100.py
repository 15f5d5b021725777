"""DY-MobileNetV2 x1.0, K = 4: Chen et al. 2020, Table 8.

Published: 75.2 % top-1; static twin 72.0 %.
Setting: batch 256, SGD 0.05 to 0 in one cosine, momentum 0.9, weight decay 4e-5, 300 epochs; label smoothing,
    dropout 0.2, mixup; temperature 30 to 1 in 10 epochs.
Cost: 312.9M multiply-adds, 11.1M parameters; static 300.0M, 3.5M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV2_MIXED, PAPER

RECIPES = with_static_twin(
    row(
        DY_MOBILENETV2_MIXED,
        "dy_mobilenetv2_100",
        dropout=0.2,
        paper=PAPER,
        row="Table 8, DY-MobileNetV2 x1.0",
        top1=75.2,
        static_top1=72.0,
    )
)
