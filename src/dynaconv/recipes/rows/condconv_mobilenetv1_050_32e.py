"""CondConv-MobileNetV1 0.5x, 32 experts: Yang et al. 2019, appendix A (and section 5, which looks inside it).

Published: 71.6 % top-1; the paper gives no static twin of this width.
Setting: batch 4096, Nesterov SGD 1.6 x 0.975 per epoch after 10 epochs of warm-up, 250 epochs; AutoAugment, mixup
    0.2, dropout 0.2; no averaging of weights, batch norm momentum 0.9 (torch's 0.1). Of these the paper states only
    AutoAugment, mixup, averaging and batch norm; see the claim's notes.
Cost: 190M multiply-adds.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.condconv import KORNBLITH, PAPER

RECIPES = with_static_twin(
    row(
        KORNBLITH,
        "condconv_mobilenetv1_050",
        dropout=0.2,
        args={"experts": 32},
        paper=PAPER,
        row="Appendix A, CondConv-MobileNetV1 (0.5x), 32 experts",
        top1=71.6,
    )
)
