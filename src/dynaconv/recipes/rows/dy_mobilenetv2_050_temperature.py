"""DY-MobileNetV2 x0.5 at a fixed softmax temperature: Chen et al. 2020, Table 6, one recipe per row.

Published: 1: 64.8 % top-1; 5: 65.7 %; 10: 67.5 %; 20: 69.4 %; 30: 69.4 %; 40: 69.2 %. The annealed row, 69.9 %, is
    the recipe dy_mobilenetv2_050, and the static one, 65.4 %, dy_mobilenetv2_050_static.
Setting: as dy_mobilenetv2_050 (batch 256, SGD 0.05 to 0 in one cosine, momentum 0.9, weight decay 4e-5, 300 epochs),
    but for the temperature, which stays what it is.
Cost: 101.4M multiply-adds, 4.0M parameters; static 97.0M, 2.0M.
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from dynaconv.recipes.row import row
from dynaconv.recipes.setups.dynamic import DY_MOBILENETV2, PAPER, fixed_temperature

TOP1 = {1: 64.8, 5: 65.7, 10: 67.5, 20: 69.4, 30: 69.4, 40: 69.2}

RECIPES = {
    str(temperature): row(
        fixed_temperature(DY_MOBILENETV2, temperature),
        "dy_mobilenetv2_050",
        dropout=0.0,
        paper=PAPER,
        row=f"Table 6, temperature {temperature}",
        top1=top1,
        static_top1=65.4,
    )
    for temperature, top1 in TOP1.items()
}
