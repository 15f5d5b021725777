"""Shapes that do not fit: the message names the tensor, its shape and what was expected, for every strategy alike."""

from __future__ import annotations

import pytest
import torch

from dynaconv.ops import CHOICES, Geometry, mix


@pytest.mark.parametrize("strategy", CHOICES)
@pytest.mark.parametrize(
    ("x", "bank", "routing", "bias", "options", "said"),
    [
        ((2, 4, 5, 5), (3, 6, 4, 3), (2, 3), None, {}, r"bank has shape \(3, 6, 4, 3\); expected 5 dimensions"),
        ((2, 5, 5, 5), (3, 6, 4, 3, 3), (2, 3), None, {}, r"input has shape \(2, 5, 5, 5\); expected \(batch, 4, hei"),
        ((2, 4, 5), (3, 6, 4, 3, 3), (2, 3), None, {}, r"input has shape \(2, 4, 5\); expected \(batch, 4, height"),
        ((2, 4, 5, 5), (3, 6, 4, 3, 3), (2, 4), None, {}, r"routing weights have shape \(2, 4\); expected \(2, 3\)"),
        ((2, 4, 5, 5), (3, 6, 4, 3, 3), (1, 3), None, {}, r"routing weights have shape \(1, 3\); expected \(2, 3\)"),
        ((2, 4, 5, 5), (3, 6, 4, 3, 3), (3,), None, {}, r"routing weights have shape \(3,\); expected \(2, 3\)"),
        ((2, 4, 5, 5), (3, 6, 4, 3, 3), (2, 3), (6,), {}, r"bias has shape \(6,\); expected \(3, 6\)"),
        ((2, 4, 5, 5), (3, 6, 4, 3, 3), (2, 3), (3, 4), {}, r"bias has shape \(3, 4\); expected \(3, 6\)"),
        ((2, 4, 5, 5), (3, 4, 6, 3, 3), (2, 3), (3, 4), {"transposed": True}, r"bias has .*expected \(3, 6\)"),
        ((2, 6, 5, 5), (3, 4, 6, 3, 3), (2, 3), None, {"transposed": True}, r"input has .*expected \(batch, 4, height"),
        ((2, 4, 5, 5), (3, 5, 2, 3, 3), (2, 3), None, {"groups": 2}, r"groups=2 does not divide 5"),
        ((2, 3, 5), (3, 6, 4), (2, 3), None, {"dims": 0}, r"input has shape \(2, 3, 5\); expected \(batch, \*, 4\)"),
        ((4,), (3, 6, 4), (2, 3), None, {"dims": 0}, r"input has shape \(4,\); expected \(batch, \*, 4\)"),
    ],
)
def test_is_named(strategy, x, bank, routing, bias, options, said) -> None:  # type: ignore[no-untyped-def]
    geometry = Geometry(**{"dims": 2, **options})
    tensors = [torch.zeros(shape) for shape in (x, bank, routing)]
    with pytest.raises(ValueError, match=said):
        mix(*tensors, None if bias is None else torch.zeros(bias), geometry=geometry, strategy=strategy)
