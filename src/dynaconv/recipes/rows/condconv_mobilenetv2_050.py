"""CondConv-MobileNetV2 x0.5, 8 experts, as Chen et al. 2020 trained it: their Table 2.

Published: 68.4 % top-1; beside it DY-MobileNetV2 x0.5 with 69.9 %, and a static twin with 65.4 % (Table 8).
Setting: not told. Taken is that of the row beside it, DY-MobileNetV2 x0.5: batch 256, SGD 0.05 to 0 in one cosine,
    momentum 0.9, weight decay 4e-5, 300 epochs; no dropout.
Cost: 113M multiply-adds, 15.5M parameters.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row, with_static_twin
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV2, PAPER

RECIPES = with_static_twin(
    row(
        DY_MOBILENETV2,
        "condconv_mobilenetv2_050",
        dropout=0.0,
        paper=PAPER,
        row="Table 2, CondConv x0.5",
        top1=68.4,
        static_top1=65.4,
        notes="How Chen et al. trained CondConv is not told; this is the setup of the row beside it.",
    )
)
