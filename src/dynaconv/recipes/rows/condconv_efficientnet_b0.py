"""CondConv-EfficientNet-B0, 8 experts: Yang et al. 2019, Table 1.

Published: 78.3 % top-1; static twin 77.2 % (77.3 % in the authors' code).
Setting: batch 2048, RMSProp (0.9, 0.9) 0.128 x 0.97 every 2.4 epochs after 5 epochs of warm-up, 350 epochs;
    AutoAugment, mixup 0.2, label smoothing 0.1, dropout 0.25, drop connect 0.2; weights averaged by 0.9999, batch
    norm momentum 0.99 (torch's 0.01).
Cost: 413M multiply-adds, 24.0M parameters; static 391M, 5.3M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.condconv import EFFICIENTNET, PAPER

RECIPES = with_static_twin(
    row(
        EFFICIENTNET,
        "condconv_efficientnet_b0",
        dropout=0.25,
        drop_path=0.2,
        paper=PAPER,
        row="Table 1, EfficientNet-B0",
        top1=78.3,
        static_top1=77.2,
    )
)
