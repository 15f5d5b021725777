"""Geometry: sizes as torch computes them, and every impossible value refused by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given

from dynaconv.ops import Geometry, output_space
from dynaconv.ops.reference import reference
from laws.cases import Case, cases


@given(case=cases(dims=(1, 2, 3), batches=(1,)))
def test_the_output_is_as_long_as_predicted(case: Case) -> None:
    leaves = case.tensors(torch.float32)
    y = reference(leaves["x"], leaves["bank"], leaves["routing"], None, case.geometry)
    assert tuple(y.shape[2:]) == output_space(case.space, case.kernel, case.geometry)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dims": 4}, "dims is 4; expected 1, 2 or 3"),
        ({"stride": 0}, "stride is 0; expected a whole number of at least 1"),
        ({"stride": (1, 2, 3)}, r"stride is \(1, 2, 3\).*or 2 of them"),
        ({"stride": 1.5}, "stride is 1.5; expected a whole number"),
        ({"stride": True}, "stride is True; expected a whole number"),
        ({"stride": "2"}, "stride is '2'; expected a whole number"),
        ({"dilation": (1, 0)}, r"dilation is \(1, 0\).*at least 1"),
        ({"padding": -1}, "padding is -1; expected a whole number of at least 0"),
        ({"padding": None}, "padding is None; expected"),
        ({"padding": "smae"}, "padding is 'smae'; expected numbers, 'same' or 'valid'"),
        ({"padding": "same", "transposed": True}, "padding is 'same'; a transposed convolution takes numbers"),
        ({"groups": 0}, "groups is 0; expected a whole number of at least 1"),
        ({"groups": 2.0}, "groups is 2.0; expected a whole number"),
        ({"padding_mode": "reflct"}, "padding_mode is 'reflct'. Did you mean 'reflect'"),
        ({"padding_mode": "reflect", "transposed": True}, "padding_mode is 'reflect'; a transposed .* 'zeros' only"),
        ({"output_padding": 1}, r"output_padding is \(1, 1\); only a transposed convolution"),
        ({"output_padding": -1, "transposed": True}, "output_padding is -1; expected .* at least 0"),
    ],
)
def test_names_the_value_that_no_convolution_can_have(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Geometry(**{"dims": 2, **arguments})


def test_takes_a_number_for_all_axes_and_cannot_be_changed() -> None:
    geometry = Geometry(dims=3, stride=2, padding=[0, 1, 2])
    assert geometry.stride == (2, 2, 2)
    assert geometry.padding == (0, 1, 2)
    assert hash(geometry) == hash(Geometry(dims=3, stride=(2, 2, 2), padding=(0, 1, 2)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        geometry.stride = (1, 1, 1)  # type: ignore[misc]
