"""CondConv-ResNet-50, 8 experts: Yang et al. 2019, Table 1.

Published: 78.6 % top-1; static twin 77.7 %.
Setting: batch 4096, Nesterov SGD 1.6 x 0.975 per epoch after 10 epochs of warm-up, 250 epochs; AutoAugment, mixup
    0.2, dropout 0.2, experts dropped; no averaging of weights, batch norm momentum 0.9 (torch's 0.1). Of these the
    paper states only AutoAugment, mixup, averaging and batch norm; see the claim's notes.
Cost: 4213M multiply-adds; static 4093M (4096M in appendix A).
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.condconv import KORNBLITH, PAPER

RECIPES = with_static_twin(
    row(
        KORNBLITH,
        "condconv_resnet50",
        dropout=0.2,
        args={"expert_dropout": 0.1},
        paper=PAPER,
        row="Table 1, ResNet-50",
        top1=78.6,
        static_top1=77.7,
        notes="Experts are dropped at random in training (section 4.1); the rate is not told, 0.1 is ours.",
    )
)
