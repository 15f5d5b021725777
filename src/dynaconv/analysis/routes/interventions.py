"""Tables 3 and 4 of Chen et al. 2020: accuracy when layers get other routing weights than their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from dynaconv.inspection import RecordedRouter, intervene

if TYPE_CHECKING:
    from numpy.typing import NDArray

Runs = Callable[[Sequence[int], int, str], Iterator[tuple[Tensor, "NDArray[Any]"]]]

KERNELS = (
    ("none", "attention: own weights"),
    ("average", "average: sum W_k / K"),
    ("max", "max: W_argmax"),
    ("shuffle_experts", "shuffle per image"),
    ("shuffle_images", "shuffle across images"),
)


@dataclass(frozen=True)
class KernelRow:
    """A row of Table 3; accuracies are None where the intervention cannot be done, and ``note`` says why."""

    how: str
    label: str
    top1: float | None
    top5: float | None
    note: str = ""


@dataclass(frozen=True)
class ResolutionRow:
    """A row of Table 4: at which input sizes the layers use their own weights (elsewhere the average kernel)."""

    enabled: tuple[bool, ...]
    top1: float
    top5: float


@dataclass(frozen=True)
class InterventionTables:
    """Both tables.

    Attributes:
        images: measured.
        resolutions: input sizes of the routers, largest first: the columns of Table 4.
    """

    images: int
    kernels: list[KernelRow]
    resolutions: list[tuple[int, ...]]
    by_resolution: list[ResolutionRow]

    def plain(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "images": self.images,
            "kernels": [vars(row) for row in self.kernels],
            "resolutions": [list(size) for size in self.resolutions],
            "by_resolution": [{**vars(row), "enabled": list(row.enabled)} for row in self.by_resolution],
        }


def measure_interventions(
    model: nn.Module,
    routers: Sequence[RecordedRouter],
    runs: Runs,
    labels: NDArray[Any],
    rows: Sequence[int],
    own: tuple[float, float],
    *,
    batch_size: int,
    seed: int,
) -> InterventionTables:
    """Measure both tables; the images come in random order, for "another image" is another one of the batch.

    Args:
        runs: from the order of the images, the batch size and what is done, the outputs and numbers batch by batch.
        labels: of the images by number.
        rows: numbers of the images that can be read.
        own: top-1 and top-5 of the network as it is.
    """
    order = np.random.default_rng(seed).permutation(np.asarray(rows)).tolist()
    size = _batch_size(len(order), batch_size)

    def accuracy(what: str, how: str, resolutions: Sequence[tuple[int, ...]] | None = None) -> tuple[float, float]:
        right1 = right5 = 0
        with intervene(model, how, resolutions=resolutions, seed=seed):
            for logits, numbers in runs(order, size, what):
                one, five = right_of(logits, labels[numbers])
                right1, right5 = right1 + one, right5 + five
        return right1 / len(order), right5 / len(order)

    kernels = [KernelRow("none", KERNELS[0][1], *own)]
    for how, label in KERNELS[1:]:
        if how == "shuffle_images" and len(order) < 2:
            kernels.append(KernelRow(how, label, None, None, "one image: there is no other one"))
        else:
            kernels.append(KernelRow(how, label, *accuracy(label, how)))
    average = kernels[1].top1, kernels[1].top5
    sizes = sorted({router.resolution for router in routers}, key=lambda size: (-int(np.prod(size)), size))
    by_resolution = []
    for enabled in patterns(len(sizes)):
        off = [size for size, on in zip(sizes, enabled, strict=True) if not on]
        known: Any = own if not off else average if all(not on for on in enabled) else None
        what = "attention off at " + ", ".join(map(size_name, off))
        by_resolution.append(ResolutionRow(enabled, *(known or accuracy(what, "average", off))))
    return InterventionTables(len(order), kernels, sizes, by_resolution)


def right_of(logits: Tensor, labels: NDArray[Any]) -> tuple[int, int]:
    """How many images have their label as the most probable class, and among the five most probable."""
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices.cpu().numpy() == labels[:, None]
    return int(top[:, 0].sum()), int(top.any(axis=1).sum())


def size_name(size: Sequence[int]) -> str:
    """A router's input size for people.

    >>> size_name((14, 14)), size_name((8, 6)), size_name(())
    ('14²', '8x6', 'pooled')
    """
    if len(size) == 2 and size[0] == size[1]:
        return f"{size[0]}²"
    return "x".join(map(str, size)) or "pooled"


def patterns(sizes: int) -> list[tuple[bool, ...]]:
    """The rows of Table 4: on at the last size, the last two ... all; then at all but the last, but the last two ...

    >>> patterns(2)
    [(False, True), (True, True), (True, False), (False, False)]
    """
    rising = [tuple(place >= sizes - on for place in range(sizes)) for on in range(1, sizes + 1)]
    falling = [tuple(place < on for place in range(sizes)) for on in range(sizes - 1, -1, -1)]
    return rising + falling


def _batch_size(images: int, wanted: int) -> int:
    """About ``wanted``, and such that the last batch is not a single image, which has no other to swap with.

    >>> _batch_size(100, 64), _batch_size(129, 64), _batch_size(11, 2), _batch_size(1, 64)
    (64, 63, 3, 64)
    """
    near = sorted(range(2, 2 * wanted + 2), key=lambda size: abs(size - wanted))
    return next((size for size in near if images % size != 1), wanted)
