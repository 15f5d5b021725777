"""CondConv-MnasNet-A1, 8 experts: Yang et al. 2019, Table 1.

Published: 76.2 % top-1; static twin 74.9 %.
Setting: batch 1024, RMSProp (0.9, 0.9) 0.064 x 0.97 every 2.4 epochs after 5 epochs of warm-up, 350 epochs;
    AutoAugment, mixup 0.2, label smoothing 0.1, dropout 0.2; weights averaged by 0.9999, batch norm momentum 0.99
    (torch's 0.01).
Cost: 325M multiply-adds (329M in appendix A); static 312M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.condconv import MNASNET, PAPER

RECIPES = with_static_twin(
    row(
        MNASNET,
        "condconv_mnasnet_a1",
        dropout=0.2,
        paper=PAPER,
        row="Table 1, MnasNet-A1",
        top1=76.2,
        static_top1=74.9,
    )
)
