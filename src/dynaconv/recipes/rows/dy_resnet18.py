"""DY-ResNet-18, K = 4: Chen et al. 2020, Table 8.

Published: 72.7 % top-1; static twin 70.4 %.
Setting: batch 256, SGD 0.1 divided by 10 at epochs 30, 60 and 90, momentum 0.9, weight decay 1e-4, 100 epochs;
    dropout 0.1; temperature 30 to 1 in 10 epochs.
Cost: 1.85G multiply-adds, 42.7M parameters; static 1.81G, 11.1M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_RESNET, PAPER

RECIPES = with_static_twin(
    row(
        DY_RESNET,
        "dy_resnet18",
        dropout=0.1,
        paper=PAPER,
        row="Table 8, DY-ResNet-18",
        top1=72.7,
        static_top1=70.4,
    )
)
