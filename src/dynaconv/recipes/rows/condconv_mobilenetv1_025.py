"""CondConv-MobileNetV1 0.25x, 32 experts, and its ablations: Yang et al. 2019, Tables 3 and 4, one recipe per row.

Published: 62.0 % top-1 (61.98 % in the text); static twin 50.4 % (the text; Table 4 prints 50.0 %, Howard et al.'s).
    Routing (Table 3): single 56.5 %, partially_shared 62.5 %, hidden_small 57.7 %, hidden_medium 62.2 %,
        hidden_large 54.1 %, hierarchical 60.3 %, softmax 60.5 %.
    First dynamic layer (Table 4; the baseline's is 7): begin_1 62.5 %, begin_5 62.0 %, begin_13 59.5 %,
        fc_only 54.2 %, no_fc 60.2 %.
Setting: batch 4096, Nesterov SGD 1.6 x 0.975 per epoch after 10 epochs of warm-up, 250 epochs; no dropout and no
    augmentation beyond random crop and mirroring; no averaging of weights, batch norm momentum 0.9 (torch's 0.1). Of
    these the paper states only what there is not, and batch norm; see the claim's notes.
Cost: 55.7M multiply-adds; static 41.2M; the other rows 47.6M (no_fc) to 57.8M (hidden_large).
Duration: unknown; it has not been run to the end here.
Reproduced: no.
"""

from __future__ import annotations

from typing import Any

from dynaconv.recipes.row import row, static_twin
from dynaconv.recipes.setups.condconv import PAPER, PLAIN_KORNBLITH

ROUTING = {
    "single": 56.5,
    "partially_shared": 62.5,
    "hidden_small": 57.7,
    "hidden_medium": 62.2,
    "hidden_large": 54.1,
    "hierarchical": 60.3,
    "softmax": 60.5,
}
BEGIN = {1: 62.5, 5: 62.0, 13: 59.5}


def _row(where: str, top1: float, **args: Any) -> dict[str, Any]:
    return row(
        PLAIN_KORNBLITH,
        "condconv_mobilenetv1_025",
        dropout=0.0,
        args={"experts": 32, **args},
        paper=PAPER,
        row=where,
        top1=top1,
        static_top1=50.4,
    )


_BASELINE = _row("Tables 3 and 4, CC-MobileNetV1 (0.25x)", 62.0)

RECIPES = {
    "": _BASELINE,
    "static": static_twin(_BASELINE),
    **{name: _row(f"Table 3, routing {name}", top1, routing=name) for name, top1 in ROUTING.items()},
    **{f"begin_{layer}": _row(f"Table 4, begin layer {layer}", top1, begin=layer) for layer, top1 in BEGIN.items()},
    "fc_only": _row("Table 4, begin layer 15 (FC only)", 54.2, begin=15),
    "no_fc": _row("Table 4, begin layer 7 (no FC)", 60.2, dynamic_classifier=False),
}
