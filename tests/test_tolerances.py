"""The tolerance helper fails when it should."""

from __future__ import annotations

import pytest
import torch

from tolerances import TOLERANCES, assert_close


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_accepts_within_and_refuses_beyond_the_table(dtype: torch.dtype) -> None:
    expected = torch.zeros(3, dtype=torch.float64)
    width = TOLERANCES[dtype].absolute
    assert_close(expected + 0.9 * width, expected, dtype=dtype)
    assert_close(expected + 1.9 * width, expected, dtype=dtype, scale=2)
    with pytest.raises(AssertionError, match="output, compared as"):
        assert_close(expected + 1.1 * width, expected, dtype=dtype, what="output")


def test_takes_the_coarser_dtype_of_the_two() -> None:
    expected = torch.ones(3)
    assert_close(expected.bfloat16() * 1.01, expected)
    with pytest.raises(AssertionError):
        assert_close(expected * 1.01, expected)


def test_refuses_other_shapes_not_numbers_and_unknown_dtypes() -> None:
    with pytest.raises(AssertionError, match="shape"):
        assert_close(torch.ones(1, 3), torch.ones(3))
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([float("nan")]), torch.tensor([0.0]))
    with pytest.raises(KeyError, match="no tolerance for"):
        assert_close(torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))


def test_equal_infinities_agree() -> None:
    assert_close(torch.tensor([float("inf")]), torch.tensor([float("inf")]))
