"""DY-MobileNetV3-Small, K = 4: Chen et al. 2020, Table 8.

Published: 70.3 % top-1; static twin 67.4 %.
Setting: batch 256, SGD 0.1 to 0 in one cosine, momentum 0.9, weight decay 3e-5, 300 epochs; dropout 0.2; temperature
    30 to 1 in 10 epochs.
Cost: 68.5M multiply-adds, 4.8M parameters; static 66.0M, 2.9M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV3, PAPER

RECIPES = with_static_twin(
    row(
        DY_MOBILENETV3,
        "dy_mobilenetv3_small",
        dropout=0.2,
        paper=PAPER,
        row="Table 8, DY-MobileNetV3-Small",
        top1=70.3,
        static_top1=67.4,
    )
)
