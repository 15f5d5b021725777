"""The strategies in the laws: what each accepts, how it refuses, and in which precision it is compared.

What a strategy accepts is stated twice, in its file and here, and the two are held against each other over drawn calls:
a call that a strategy should run cannot turn into a refusal without a red test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import torch
from hypothesis import strategies as st

from dynaconv.kernels import cpu
from dynaconv.ops import CHOICES
from dynaconv.ops.strategies.triton import interpreted
from laws.cases import Case, cases


def _always(case: Case) -> bool:
    return True


def _keeps_positions(case: Case) -> bool:
    geometry = case.geometry
    numbers = (*geometry.stride, *(size + 1 for size in geometry.output_padding))
    return not geometry.transposed or (all(size == 1 for size in numbers) and not any(geometry.padding))


def _plain(case: Case, *dims: int) -> bool:
    return case.geometry.dims in dims and not case.geometry.transposed


def _depthwise(case: Case) -> bool:
    return 1 < case.geometry.groups == case.inputs == case.outputs


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One choice of strategy under the laws.

    Attributes:
        accepts: the documented refusals, turned round. An empty batch is computed by the reference, whatever was
            chosen.
        refusal: what it says otherwise.
        fitting: arguments of :func:`cases` for calls that it accepts.
        dtype: the widest dtype that it computes in.
        each: whether it runs ``convolve_each``.
        transformed: whether it runs under forward-mode derivatives and ``vmap``; else it refuses them.
    """

    accepts: Callable[[Case], bool] = _always
    refusal: str = "accepts every call"
    fitting: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    each: bool = True
    transformed: bool = True

    def cases(self, **more: Any) -> st.SearchStrategy[Case]:
        return cases(**{**self.fitting, **more})


OWN = {"dtype": torch.float32, "each": False, "transformed": False}

EVERY: dict[str, Subject] = {
    "auto": Subject(),
    "reference": Subject(),
    "single": Subject(
        accepts=lambda case: case.batch <= 1,
        refusal="the batch holds . examples",
        fitting={"batches": (0, 1, 1, 1)},
    ),
    "matmul": Subject(
        accepts=lambda case: all(size == 1 for size in case.kernel) and _keeps_positions(case),
        refusal="this form is for 1x1 and linear|does not keep its positions",
        fitting={"pointwise": True, "moved": False},
    ),
    "loop": Subject(),
    "grouped": Subject(
        accepts=lambda case: case.geometry.dims > 0,
        refusal="a linear layer has no channels-first input",
        fitting={"dims": (1, 2, 3)},
    ),
    "branches": Subject(each=False),
    "unfold": Subject(
        accepts=lambda case: case.geometry.dims > 0,
        refusal="a linear layer has no patches",
        fitting={"dims": (1, 2, 3)},
    ),
    "stencil": Subject(
        accepts=lambda case: _plain(case, 2) and _depthwise(case),
        refusal="it is for depthwise convolutions over images",
        fitting={"dims": (2,), "kind": "depthwise"},
        **{**OWN, "each": True},
    ),
    "tiled": Subject(
        accepts=lambda case: _plain(case, 2) and case.geometry.groups == 1,
        refusal="it is for convolutions over images, in one group",
        fitting={"dims": (2,), "kind": "dense"},
        **OWN,
    ),
    "experts": Subject(
        accepts=lambda case: _plain(case, 0, 2) and case.geometry.groups == 1,
        refusal="it is for linear layers and convolutions over images, in one group",
        fitting={"dims": (0, 2), "kind": "dense"},
        **OWN,
    ),
    "triton": Subject(
        accepts=lambda case: _plain(case, 0, 1, 2) and (case.geometry.groups == 1 or _depthwise(case)),
        refusal="its kernels are for|its kernels know one group",
        fitting={"dims": (0, 1, 2), "kind": "small"},
        **OWN,
    ),
    "operator": Subject(
        accepts=lambda case: False,
        refusal="it is for graphs that an exporter writes",
        transformed=False,
    ),
}

INTERPRETED = interpreted()
"""Whether this process runs Triton's interpreter (tests/kernels/cuda/test_triton.py starts one): then triton alone."""

C_KERNELS = ("stencil", "tiled", "experts")


def _here(name: str) -> bool:
    if name == "operator":  # runs for exporters alone: tests/ops/test_operator.py
        return False
    return name == "triton" if INTERPRETED else name != "triton" and (name not in C_KERNELS or cpu.why_not() is None)


HERE = [name for name in EVERY if _here(name)]
"""The choices that run in this process. Without a C compiler its three are left out: tests/kernels/cpu says so."""


def examples(number: int) -> hypothesis.settings:
    """How many calls are drawn; the interpreter takes a second for each."""
    return hypothesis.settings(max_examples=max(2, number // 20) if INTERPRETED else number)


assert set(EVERY) == set(CHOICES), "every strategy has its line"
