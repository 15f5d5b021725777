"""DY-MobileNetV2 x0.5, K = 4: Chen et al. 2020, Table 8.

Published: 69.9 % top-1; static twin 65.4 %.
Setting: batch 256, SGD 0.05 to 0 in one cosine, momentum 0.9, weight decay 4e-5, 300 epochs; no dropout, no label
    smoothing; temperature 30 to 1 in 10 epochs.
Cost: 101.4M multiply-adds, 4.0M parameters; static 97.0M, 2.0M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV2, PAPER

RECIPES = with_static_twin(
    row(
        DY_MOBILENETV2,
        "dy_mobilenetv2_050",
        dropout=0.0,
        paper=PAPER,
        row="Table 8, DY-MobileNetV2 x0.5",
        top1=69.9,
        static_top1=65.4,
    )
)
