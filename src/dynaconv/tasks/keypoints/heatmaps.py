"""Heat maps: the targets of training, and from a heat map to a place."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDE = 4
"""Pixels of the crop to one of the heat map: all networks here end at a quarter of their input."""

SIGMA_AT = (2.0, 64)
"""The papers' Gaussian: 2 pixels of a heat map of 64 rows (64x48, for 256x192)."""


def default_sigma(rows: int) -> float:
    """The paper's share of the height, at least one pixel."""
    sigma, of = SIGMA_AT
    return max(1.0, sigma * rows / of)


def gaussians(points: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """One Gaussian of height 1 for every point: ``exp(-|p - point|^2 / (2 sigma^2))`` at the pixels' centres ``p``.

    The centre is not rounded to a pixel, as it is in the code of Xiao et al. 2018: decoding reads the side on which it
    lies from the neighbours.

    Args:
        points: ``(..., 2)``, x and y in pixels of the heat map, continuous.
        size: rows and columns of the heat map.

    Returns:
        ``(..., rows, columns)``, float32.
    """
    rows, columns = size
    y = torch.arange(rows, device=points.device, dtype=torch.float32) + 0.5
    x = torch.arange(columns, device=points.device, dtype=torch.float32) + 0.5
    across = torch.exp((x - points[..., :1].float()).square() / (-2 * sigma**2))
    down = torch.exp((y - points[..., 1:].float()).square() / (-2 * sigma**2))
    return down[..., :, None] * across[..., None, :]


def peaks(heat: Tensor) -> tuple[Tensor, Tensor]:
    """Where each heat map is highest, a quarter pixel further towards the higher neighbour, and how high it is there.

    Source: Newell et al. 2016; Xiao et al. 2018; Chen et al. 2020, section 6 (testing).

    Args:
        heat: ``(B, K, rows, columns)``.

    Returns:
        points ``(B, K, 2)``, x and y in pixels of the heat map, continuous; heights ``(B, K)``. Both float32. A
        value that is not finite counts as 0.
    """
    heat = torch.nan_to_num(heat.float(), nan=0.0, posinf=0.0, neginf=0.0)
    rows, columns = heat.shape[-2:]
    heights, places = heat.flatten(2).max(dim=2)
    y, x = places // columns, places % columns
    flat = heat.flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return flat.gather(2, (row * columns + column)[..., None])[..., 0]

    # At the border there is one neighbour only, and no offset.
    inside_x, inside_y = (x > 0) & (x < columns - 1), (y > 0) & (y < rows - 1)
    right, left = (at(y, (x + step).clamp(0, columns - 1)) for step in (1, -1))
    below, above = (at((y + step).clamp(0, rows - 1), x) for step in (1, -1))
    offset_x = torch.sign(right - left) * 0.25 * inside_x
    offset_y = torch.sign(below - above) * 0.25 * inside_y
    return torch.stack([x + 0.5 + offset_x, y + 0.5 + offset_y], dim=-1), heights


def mirrored_back(heat: Tensor, swapped: list[int]) -> Tensor:
    """The heat maps of mirrored crops as those of the crops themselves: mirrored, and left and right exchanged.

    Args:
        heat: ``(B, K, rows, columns)``.
        swapped: for every keypoint the place of its partner in a mirror, or its own.
    """
    return heat.flip(-1)[:, swapped]
