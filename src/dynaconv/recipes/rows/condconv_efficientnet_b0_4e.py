"""CondConv-EfficientNet-B0, 4 experts: the README of the authors' code (tensorflow/tpu); no row of the paper.

Published: 77.8 % top-1; static twin 77.3 % there (77.2 % in the paper).
Setting: batch 2048, RMSProp (0.9, 0.9) 0.128 x 0.97 every 2.4 epochs after 5 epochs of warm-up, 350 epochs;
    AutoAugment, mixup 0.2, label smoothing 0.1, dropout 0.25, drop connect 0.2; weights averaged by 0.9999, batch
    norm momentum 0.99 (torch's 0.01).
Cost: 402M multiply-adds, 13.3M parameters; static 391M, 5.3M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row
from dynaconv.recipes.setups.condconv import EFFICIENTNET, PAPER

RECIPES = {
    "": row(
        EFFICIENTNET,
        "condconv_efficientnet_b0",
        dropout=0.25,
        drop_path=0.2,
        args={"experts": 4},
        paper=PAPER,
        row="README of the authors' code, CondConv-B0 with 4 experts",
        top1=77.8,
        static_top1=77.3,
        notes="The static twin is condconv_efficientnet_b0_static.",
    )
}
