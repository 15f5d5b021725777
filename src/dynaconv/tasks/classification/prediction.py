"""Data to measure or classify with a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynaconv.data import BadImages, Batches, EvaluationBatches, default_cap
from dynaconv.errors import UserError
from dynaconv.tasks.classification.batches import labelled_batches
from dynaconv.tasks.classification.datasets import open_splits
from dynaconv.tasks.classification.folder import EXTENSIONS, images_below, read_classes
from dynaconv.tasks.classification.source import Source
from dynaconv.tasks.classification.transforms import Preprocess, evaluation_transform


def evaluation_source(name: str, classes: list[str], *, everything: bool = False, **opening: Any) -> Source:
    """The evaluation split that training would have used, with labels for ``classes``.

    Args:
        name: of the data set, see ``open_data``.
        classes: of the network.
        everything: take all images below a folder of classes instead; some of the classes may be absent.

    Raises:
        UserError: the data's classes are not the network's.
    """
    if everything:
        folder = Path(name)
        if not folder.is_dir():
            raise UserError(f"--all is for a folder with one folder per class, and {name} is none.")
        return read_classes(folder, classes)
    splits = open_splits(name, **opening)
    if splits.classes != classes:
        raise UserError(
            f"{name} has {len(splits.classes)} classes ({', '.join(splits.classes[:4])} ...) and the network was "
            f"trained for {len(classes)} ({', '.join(classes[:4])} ...). Expected the same names in the same order."
        )
    return splits.evaluation


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as they are named, and every image below folders; in order.

    Raises:
        UserError: a path does not exist; a folder holds no images, or cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(Path(file) for file, _ in images_below(path))
            if not below:
                raise UserError(f"{path} holds no images ({', '.join(EXTENSIONS)}).")
            found += below
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"There is no file or folder {path}.")
    return found


def plain_batches(
    source: Source,
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int = 0,
    bad_images: BadImages | None = None,
    processes: int = 1,
    process: int = 0,
    device: Any = "cpu",
    timeout: float = 120.0,
) -> Batches:
    """Batches of ``source`` as evaluation sees them: every example once, in order."""
    policy = bad_images or BadImages("error", default_cap(len(source)))
    batches = EvaluationBatches(len(source), batch_size, processes=processes, process=process)
    transform = evaluation_transform(preprocess)
    return labelled_batches(
        source, transform, preprocess, batches, policy, seed=None, workers=workers, timeout=timeout, device=device
    )
