"""No figure without equal outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dynaconv.bench.contenders import Contender
from dynaconv.errors import RunError

# Relative to the largest output, by mode; a wrong kernel is off by about 1. In training, batch norm over a small batch
# amplifies roundings, and low precision cannot be told from noise: such steps are compared in float32.
_BOUNDS = {
    "infer": {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.1},
    "train": {"float32": 2e-2},
}


def check_equal(
    entries: Sequence[tuple[Contender, Callable[[], Tensor]]], mode: str, dtype: str, bank_dtype: str | None
) -> float:
    """Run each once from one seed; answer the largest difference, relative to the largest output.

    The static forms are held against each other, and ours and timm's against the usual form.

    Raises:
        RunError: outputs differ by more than rounding. (A reduced bank is allowed to: its error is reported.)
    """
    bound = _BOUNDS[mode][dtype]
    outputs: dict[str, Tensor] = {}
    worst = 0.0
    for contender, step in sorted(entries, key=lambda entry: entry[0].role != "usual"):
        torch.manual_seed(1)  # dropout draws the same masks
        y = step().double()
        kind = "static" if contender.role == "static" else "dynamic"
        expected = outputs.setdefault(kind, y)
        error = ((y - expected).abs().max() / expected.abs().max()).item()
        reduced = bank_dtype is not None and contender.role == "ours"
        if not reduced and not error <= bound:
            raise RunError(
                f"{contender.role} ({contender.form}) answers something else: it differs by {error:.1e} of the largest "
                f"output, more than rounding in {dtype} ({bound:.0e}). Nothing was timed."
            )
        worst = max(worst, error)
    return worst
