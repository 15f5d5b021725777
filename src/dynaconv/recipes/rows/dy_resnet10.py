"""DY-ResNet-10, K = 4: Chen et al. 2020, Table 8.

Published: 67.7 % top-1; static twin 63.5 %.
Setting: batch 256, SGD 0.1 divided by 10 at epochs 30, 60 and 90, momentum 0.9, weight decay 1e-4, 100 epochs; no
    dropout; temperature 30 to 1 in 10 epochs.
Cost: 0.91G multiply-adds, 18.6M parameters; static 0.89G, 5.2M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_RESNET, PAPER

RECIPES = with_static_twin(
    row(
        DY_RESNET,
        "dy_resnet10",
        dropout=0.0,
        paper=PAPER,
        row="Table 8, DY-ResNet-10",
        top1=67.7,
        static_top1=63.5,
    )
)
