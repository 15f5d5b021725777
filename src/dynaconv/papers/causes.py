"""Why a count of ours is not the published one: as far as it is known, in a few words."""

from __future__ import annotations

import re
from decimal import Decimal

UNEXPLAINED = "unexplained"

# The first pattern that is found in "paper | table | row | quantity" tells.
_CAUSES: tuple[tuple[str, str], ...] = (
    (r"App. A \| CondConv-MnasNet-A1", "the paper contradicts itself: 325 in Table 1 (reproduced), 329 here"),
    (r"MobileNetV2 1.4x|EfficientNet-B1", "the printed figure is that of the network's own paper, not of this rule"),
    (
        r"Table 2 \| CondConv x.* params",
        "the text leaves open which blocks are dynamic; beginning at block 7 instead of 2 comes nearer",
    ),
    (r"(DY-|K=).* madds", "the paper's formula taken literally; no reading of it gives the printed figure"),
    (r"ResNet.* params", "the paper's M seems to be 2^20, and its DY figures to leave out the shortcut convolutions"),
    (
        r"Table 8 \| MobileNetV3-Small \| params",
        "2.9 is without squeeze-and-excitation on the last convolution; the paper's other rows of this network have it",
    ),
    (
        r"Table 8 \| MobileNetV3-Small \| madds",
        "66 is the figure of Howard et al., quoted; this is their network counted",
    ),
    (r"backbone .* madds", "printed: Table 8's figure without the classifier, times 48/49; ours is counted at 256x192"),
)


def cause_of(words: tuple[str, ...], published: str, ours: float) -> str:
    """The cause of a difference.

    Args:
        words: paper, table, row, quantity.
        published: the figure as printed; its last digit tells how far it was rounded.
        ours: the count, in the same unit.
    """
    text = " | ".join(words)
    known = next((cause for pattern, cause in _CAUSES if re.search(pattern, text)), None)
    if known is not None:
        return known
    last_digit = 10.0 ** int(Decimal(published).as_tuple().exponent)
    excess = ours - float(published)
    if abs(excess) <= last_digit / 2:
        return "the printed figure is rounded"
    if 0 < excess < last_digit:
        return "the printed figure is truncated"
    return UNEXPLAINED
