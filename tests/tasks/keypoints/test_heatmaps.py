"""Heat maps: the target's formula; a peak is found to a quarter of a pixel; borders, and values that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynaconv.tasks.keypoints.heatmaps import default_sigma, gaussians, mirrored_back, peaks


def test_the_target_is_the_formula() -> None:
    heat = gaussians(torch.tensor([[[3.5, 2.0]]]), (6, 8), 2.0)
    assert heat.shape == (1, 1, 6, 8)
    for row in range(6):
        for column in range(8):
            distance = (column + 0.5 - 3.5) ** 2 + (row + 0.5 - 2.0) ** 2
            assert heat[0, 0, row, column].item() == pytest.approx(math.exp(-distance / 8), abs=1e-6)


def test_the_papers_width() -> None:
    assert (default_sigma(64), default_sigma(96), default_sigma(8)) == (2.0, 3.0, 1.0)


@given(x=st.floats(1.01, 10.99), y=st.floats(1.01, 14.99))
def test_a_peak_is_found_to_a_quarter_of_a_pixel(x: float, y: float) -> None:
    heat = 0.8 * gaussians(torch.tensor([[[x, y]]], dtype=torch.float64), (16, 12), 2.0)
    points, heights = peaks(heat)
    assert abs(points[0, 0, 0].item() - x) <= 0.2501
    assert abs(points[0, 0, 1].item() - y) <= 0.2501
    assert heights.item() == heat.max().item()


def test_a_peak_at_the_border_has_no_offset() -> None:
    heat = torch.zeros(1, 2, 4, 5)
    heat[0, 0, 0, 4], heat[0, 0, 0, 3], heat[0, 0, 1, 4] = 1, 0.9, 0.8
    heat[0, 1, 2, 0], heat[0, 1, 1, 0] = 1, 0.5
    points, _ = peaks(heat)
    assert points.tolist() == [[[4.5, 0.5], [0.5, 2.25]]]


def test_what_is_not_finite_counts_as_nothing() -> None:
    heat = torch.full((1, 2, 4, 5), math.nan)
    heat[0, 1] = 0
    heat[0, 1, 2, 2], heat[0, 1, 0, 0], heat[0, 1, 3, 3] = 0.5, math.inf, -math.inf
    points, heights = peaks(heat)
    assert torch.isfinite(points).all()
    assert heights.tolist() == [[0.0, 0.5]]
    assert points[0, 1].tolist() == [2.5, 2.5]


def test_mirroring_back_exchanges_places_and_sides() -> None:
    heat = torch.arange(24.0).view(1, 3, 2, 4)
    back = mirrored_back(heat, [0, 2, 1])
    assert torch.equal(back[0, 1], heat[0, 2].flip(-1))
    assert torch.equal(mirrored_back(back, [0, 2, 1]), heat)
