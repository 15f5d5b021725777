"""CondConv-MobileNetV1 1.0x, 8 experts: Yang et al. 2019, Table 1.

Published: 73.7 % top-1; static twin 71.9 %.
Setting: batch 4096, Nesterov SGD 1.6 x 0.975 per epoch after 10 epochs of warm-up, 250 epochs; AutoAugment, mixup
    0.2, dropout 0.2; no averaging of weights, batch norm momentum 0.9 (torch's 0.1). Of these the paper states only
    AutoAugment, mixup, averaging and batch norm; see the claim's notes.
Cost: 600M multiply-adds; static 567M (571M in appendix A).
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.condconv import KORNBLITH, PAPER

RECIPES = with_static_twin(
    row(
        KORNBLITH,
        "condconv_mobilenetv1_100",
        dropout=0.2,
        paper=PAPER,
        row="Table 1, MobileNetV1 (1.0x)",
        top1=73.7,
        static_top1=71.9,
    )
)
