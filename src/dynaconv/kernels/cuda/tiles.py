"""Tile sizes, and the launch of a kernel. Plain arithmetic; does not import triton.

The sizes were not measured on a GPU. They follow from three limits (of an H100 or H200):

- To mix one weight costs K multiply-adds on the ordinary units. To use it for one row costs one multiply-add on the
  tensor cores, which are about 15 times as fast in half precision. A tile mixes each weight once for all its rows. So
  mixing costs no more than the product if a tile has 15 * K rows or more (60 for 4 experts). A tile has 128 rows if
  there are so many.
- The accumulators of a program must stay in registers: 16,384 numbers are 64 registers of each of 256 threads. The
  compiler's output can be read without a GPU (tests/kernels/cuda/test_triton.py): at these sizes almost nothing is
  spilled.
- The GPU has 132 multiprocessors. With fewer than twice as many programs some of them idle, so tiles get smaller then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

PROGRAMS = 264  # two for each of 132 multiprocessors
ACCUMULATORS = 16_384  # float32 numbers that one program may hold for all experts together
MIN_SIDE = 16  # sides of a matrix product on tensor cores


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel, how many programs, its arguments by name, warps and pipeline stages."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, Any]:
        """Compiler options. Fused multiply-adds are set explicitly, because Triton's default is going to change."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}

    def run(self) -> None:
        if self.programs:
            self.kernel[(self.programs,)](**self.arguments, **self.options)


class ProductTiles(NamedTuple):
    """Sides of a tile of a matrix product: rows (positions), columns (output channels), depth (input channels)."""

    rows: int
    columns: int
    depth: int


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()


def clamped_power(number: int, least: int, most: int) -> int:
    """:func:`power_of_two`, at least ``least`` and at most ``most`` (powers of two themselves)."""
    return min(max(power_of_two(number), least), most)


def ceil_div(number: int, block: int) -> int:
    """How many blocks cover ``number``."""
    return -(-number // block)


def product(batch: int, rows: int, columns: int, depth: int, half: bool) -> ProductTiles:
    """Tile of ``y[b] = x[b] @ W[b]`` with ``(rows, depth) @ (depth, columns)`` an example.

    128 x 64 x 32 if that gives enough programs. In float32, which does not use the tensor cores and needs more
    registers, 64 x 64 x 16. While multiprocessors would idle, first the columns and then the rows are halved.
    """
    tile = ProductTiles(
        clamped_power(rows, MIN_SIDE, 128 if half else 64),
        clamped_power(columns, MIN_SIDE, 64),
        clamped_power(depth, MIN_SIDE, 32 if half else 16),
    )
    while batch * ceil_div(rows, tile.rows) * ceil_div(columns, tile.columns) < PROGRAMS:
        if tile.columns > MIN_SIDE:
            tile = tile._replace(columns=tile.columns // 2)
        elif tile.rows > 64:
            tile = tile._replace(rows=tile.rows // 2)
        else:
            break
    return tile


def product_gradient(experts: int, rows: int, columns: int, depth: int, half: bool) -> ProductTiles:
    """Tile of the bank's gradient: ``columns x depth`` of the kernel, K times in registers; ``rows`` per step.

    Smaller in float32, where experts and products need twice as many registers.
    """
    most, most_rows = (ACCUMULATORS, 32) if half else (ACCUMULATORS // 4, 16)
    sides = [clamped_power(columns, MIN_SIDE, 64), clamped_power(depth, MIN_SIDE, 64)]
    while power_of_two(experts) * sides[0] * sides[1] > most and max(sides) > MIN_SIDE:
        sides[sides.index(max(sides))] //= 2
    return ProductTiles(clamped_power(rows, MIN_SIDE, most_rows), sides[0], sides[1])


def depthwise(rows: int, channels: int, channels_last: bool) -> tuple[int, int]:
    """Positions and channels of a depthwise tile: 1024 numbers, long in the dimension that is contiguous."""
    if channels_last:
        wide = clamped_power(channels, 1, 64)
        return clamped_power(rows, 1, 1024 // wide), wide
    long = clamped_power(rows, 1, 512)
    return long, clamped_power(channels, 1, max(1, 1024 // long))


def depthwise_gradient(experts: int, taps: int, rows: int, channels: int, channels_last: bool) -> tuple[int, int]:
    """As :func:`depthwise`, with K times the taps of every channel in registers."""
    long, wide = depthwise(rows, channels, channels_last)
    while power_of_two(experts) * power_of_two(taps) * wide > ACCUMULATORS and wide > 1:
        wide //= 2
    return long, wide


def splits(batch: int, tiles: int) -> int:
    """Into how many parts the batch is split, so that tiles times parts fill the GPU; no part is empty."""
    parts = min(batch, ceil_div(PROGRAMS, max(1, tiles)))
    return ceil_div(batch, ceil_div(batch, parts))
