"""How large a tile a program takes, and the launch of a kernel. Plain arithmetic; nothing here imports triton.

No size here was measured on a GPU. They follow from three limits (numbers of an H100 or H200):

- Mixing a weight costs K multiply-adds on the ordinary units, using it for a row of positions one on the tensor cores,
  which are about 15 times as fast in half precision. A tile mixes each weight once for all its rows, so it costs no
  more than the product from 15 * K rows on (60 for 4 experts): 128 rows where there are that many.
- A program's accumulators must stay in registers: 16,384 numbers are 64 registers of each of 256 threads. What the
  compiler makes of it can be read without a GPU (tests/kernels/cuda/test_triton.py): at these sizes, next to nothing
  is spilled.
- The GPU has 132 multiprocessors; with fewer programs than twice that, some of them idle. Then tiles get smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

PROGRAMS = 264  # two for each of 132 multiprocessors
ACCUMULATORS = 16_384  # float32 numbers that one program may hold for all experts together
LEAST = 16  # sides of a matrix product on tensor cores


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
        """What the compiler is told. Fused multiply-adds are asked for by name, as Triton's default is to change."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}

    def run(self) -> None:
        if self.programs:
            self.kernel[(self.programs,)](**self.arguments, **self.options)


class ProductTiles(NamedTuple):
    """Sides of a tile of a matrix product: rows (positions), columns (output channels), depth (input channels)."""

    rows: int
    columns: int
    depth: int


def power(number: int) -> int:
    """The smallest power of two that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()


def within(number: int, least: int, most: int) -> int:
    """:func:`power`, at least ``least`` and at most ``most`` (powers of two themselves)."""
    return min(max(power(number), least), most)


def blocks(number: int, block: int) -> int:
    """How many blocks cover ``number``."""
    return -(-number // block)


def product(batch: int, rows: int, columns: int, depth: int, half: bool) -> ProductTiles:
    """Tile of ``y[b] = x[b] @ W[b]`` with ``(rows, depth) @ (depth, columns)`` an example.

    128 x 64 x 32 where there is enough to do (64 x 64 x 16 in float32, which feeds no tensor cores and needs more
    registers); fewer columns, then fewer rows, while multiprocessors would be idle.
    """
    tile = ProductTiles(
        within(rows, LEAST, 128 if half else 64), within(columns, LEAST, 64), within(depth, LEAST, 32 if half else 16)
    )
    while batch * blocks(rows, tile.rows) * blocks(columns, tile.columns) < PROGRAMS:
        if tile.columns > LEAST:
            tile = tile._replace(columns=tile.columns // 2)
        elif tile.rows > 64:
            tile = tile._replace(rows=tile.rows // 2)
        else:
            break
    return tile


def product_gradient(experts: int, rows: int, columns: int, depth: int, half: bool) -> ProductTiles:
    """Tile of the bank's gradient: ``columns x depth`` of the kernel, K times in registers; ``rows`` at a time.

    Less of both in float32, where experts and products take twice the registers.
    """
    most, most_rows = (ACCUMULATORS, 32) if half else (ACCUMULATORS // 4, 16)
    sides = [within(columns, LEAST, 64), within(depth, LEAST, 64)]
    while power(experts) * sides[0] * sides[1] > most and max(sides) > LEAST:
        sides[sides.index(max(sides))] //= 2
    return ProductTiles(within(rows, LEAST, most_rows), sides[0], sides[1])


def depthwise(rows: int, channels: int, channels_last: bool) -> tuple[int, int]:
    """Positions and channels of a depthwise tile: long along what lies together in memory, 1024 numbers in all."""
    if channels_last:
        wide = within(channels, 1, 64)
        return within(rows, 1, 1024 // wide), wide
    long = within(rows, 1, 512)
    return long, within(channels, 1, max(1, 1024 // long))


def depthwise_gradient(experts: int, taps: int, rows: int, channels: int, channels_last: bool) -> tuple[int, int]:
    """As :func:`depthwise`, with K times the taps of every channel in registers."""
    long, wide = depthwise(rows, channels, channels_last)
    while power(experts) * power(taps) * wide > ACCUMULATORS and wide > 1:
        wide //= 2
    return long, wide


def splits(batch: int, tiles: int) -> int:
    """Into how many parts the batch is split, so that tiles times parts fill the GPU; no part is empty."""
    parts = min(batch, blocks(PROGRAMS, max(1, tiles)))
    return blocks(batch, blocks(batch, parts))
