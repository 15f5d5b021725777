"""DY-MobileNetV2 x0.5 with some convolutions of every block dynamic: Chen et al. 2020, Table 5, one recipe per row.

C1 is the 1x1 convolution that expands, C2 the depthwise one, C3 the 1x1 convolution that shrinks.

Published: c1 67.4 % top-1; c2 67.4 %; c3 68.2 %; c1_c3 68.7 %; c2_c3 68.4 %; c1_c2 68.6 %; c1_c2_c3 69.4 %. The
    static row, 65.4 %, is dy_mobilenetv2_050_static.
Setting: as dy_mobilenetv2_050 (batch 256, SGD 0.05 to 0 in one cosine, momentum 0.9, weight decay 4e-5, 300 epochs),
    but the temperature stays at 30, the default of the paper's ablations (section 5.3).
Cost: not printed in the paper, but for all three: 101.4M multiply-adds, 4.0M parameters; static 97.0M, 2.0M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV2, PAPER, fixed_temperature

TOP1 = {"C1": 67.4, "C2": 67.4, "C3": 68.2, "C1 C3": 68.7, "C2 C3": 68.4, "C1 C2": 68.6, "C1 C2 C3": 69.4}

RECIPES = {
    convolutions.lower().replace(" ", "_"): row(
        fixed_temperature(DY_MOBILENETV2, 30),
        "dy_mobilenetv2_050",
        dropout=0.0,
        args={"convs": convolutions},
        paper=PAPER,
        row=f"Table 5, {convolutions}",
        top1=top1,
        static_top1=65.4,
    )
    for convolutions, top1 in TOP1.items()
}
