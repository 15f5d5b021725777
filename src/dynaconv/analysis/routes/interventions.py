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

Run = Callable[[Tensor], Tensor]
Read = Callable[[Sequence[int], int, str], Iterator[tuple[Tensor, "NDArray[Any]"]]]
Change = tuple[str, tuple[tuple[int, ...], ...] | None]  # an intervention, and the input sizes of its layers (all)

KERNELS = (
    ("none", "attention: own weights"),
    ("average", "average: sum W_k / K"),
    ("max", "max: W_argmax"),
    ("shuffle_experts", "shuffle per image"),
    ("shuffle_images", "shuffle across images"),
)
PUBLISHED_KERNELS = {
    "none": (69.4, 88.6),
    "average": (36.0, 61.5),
    "max": (0.1, 0.5),
    "shuffle_experts": (14.8, 30.5),
    "shuffle_images": (27.3, 48.4),
}
"""Chen et al. 2020, Table 3: top-1 and top-5 of DY-MobileNetV2 0.5x on ImageNet, in percent."""
PUBLISHED_RESOLUTIONS = (
    ("----x", 57.3, 79.9),
    ("---xx", 67.0, 87.2),
    ("--xxx", 67.5, 87.4),
    ("-xxxx", 69.1, 88.4),
    ("xxxxx", 69.4, 88.6),
    ("xxxx-", 50.9, 76.2),
    ("xxx--", 42.5, 68.4),
    ("xx---", 41.2, 67.0),
    ("x----", 37.9, 63.5),
    ("-----", 36.0, 61.5),
)
"""Table 4: attention on (x) at inputs of 112, 56, 28, 14 and 7 pixels; top-1 and top-5 of the same network."""


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
    run: Run,
    read: Read,
    labels: NDArray[Any],
    rows: Sequence[int],
    own: tuple[float, float],
    *,
    batch_size: int,
    seed: int,
) -> InterventionTables:
    """Measure both tables; the images come in random order, for "another image" is another one of the batch.

    Every image is read once: a batch goes through the network with every intervention.

    Args:
        run: the network's outputs of a batch.
        read: from the order of the images, the batch size and what is done, the images and numbers batch by batch.
        labels: of the images by number.
        rows: numbers of the images that can be read.
        own: top-1 and top-5 of the network as it is.
    """
    order = np.random.default_rng(seed).permutation(np.asarray(rows)).tolist()
    sizes = sorted({router.resolution for router in routers}, key=lambda size: (-int(np.prod(size)), size))
    rows_of_table_4: dict[tuple[bool, ...], Change | None] = {}
    for enabled in patterns(len(sizes)):
        off = tuple(size for size, on in zip(sizes, enabled, strict=True) if not on)
        rows_of_table_4[enabled] = None if not off else ("average", None if len(off) == len(sizes) else off)
    alone = len(order) < 2
    changes: list[Change] = [(how, None) for how, _ in KERNELS[1:] if not (alone and how == "shuffle_images")]
    changes += [change for change in rows_of_table_4.values() if change is not None and change not in changes]
    right = {change: np.zeros(2, np.int64) for change in changes}
    for place, (images, numbers) in enumerate(read(order, _batch_size(len(order), batch_size), "interventions")):
        for change in changes:
            with intervene(model, change[0], resolutions=change[1], seed=seed + place):
                right[change] += right_of(run(images), labels[numbers])
    found = {change: (float(many[0]) / len(order), float(many[1]) / len(order)) for change, many in right.items()}

    kernels = [KernelRow("none", KERNELS[0][1], *own)]
    for how, label in KERNELS[1:]:
        if (how, None) in found:
            kernels.append(KernelRow(how, label, *found[how, None]))
        else:
            kernels.append(KernelRow(how, label, None, None, "one image: there is no other one"))
    by_resolution = [
        ResolutionRow(enabled, *(own if change is None else found[change]))
        for enabled, change in rows_of_table_4.items()
    ]
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
