"""DY-MobileNetV3-Small without squeeze-and-excitation, K = 4: Chen et al. 2020, Table 7.

Published: 69.6 % top-1; static twin (without it, too) 65.4 %.
Setting: batch 256, SGD 0.1 to 0 in one cosine, momentum 0.9, weight decay 3e-5, 300 epochs; dropout 0.2; temperature
    30 to 1 in 10 epochs.
Cost: not printed in the paper.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV3, PAPER

RECIPES = with_static_twin(
    row(
        DY_MOBILENETV3,
        "dy_mobilenetv3_small_nose",
        dropout=0.2,
        paper=PAPER,
        row="Table 7, DY-MobileNetV3-Small w/o SE",
        top1=69.6,
        static_top1=65.4,
    )
)
