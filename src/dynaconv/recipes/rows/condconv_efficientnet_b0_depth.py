"""CondConv-EfficientNet-B0-depth (1.1x deeper), 8 experts: Yang et al. 2019, appendix A.

Published: 79.5 % top-1; the paper compares it with EfficientNet-B1 (79.2 %, 240x240), and gives no static twin.
Setting: batch 2048, RMSProp (0.9, 0.9) 0.128 x 0.97 every 2.4 epochs after 5 epochs of warm-up, 350 epochs;
    AutoAugment, mixup 0.2, label smoothing 0.1, dropout 0.25, drop connect 0.2; weights averaged by 0.9999, batch
    norm momentum 0.99 (torch's 0.01).
Cost: 614M multiply-adds, 39.7M parameters; EfficientNet-B1 700M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.condconv import EFFICIENTNET, PAPER

RECIPES = with_static_twin(
    row(
        EFFICIENTNET,
        "condconv_efficientnet_b0_depth",
        dropout=0.25,
        drop_path=0.2,
        paper=PAPER,
        row="Appendix A, CondConv-EfficientNet-B0-depth",
        top1=79.5,
    )
)
