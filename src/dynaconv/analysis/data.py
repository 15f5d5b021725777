"""The data of a comparison: the same pictures for every network, in the order of the seed."""

from __future__ import annotations

import numpy as np

from dynaconv.analysis.settings import CompareSettings
from dynaconv.data import Augment, ImageData, open_data
from dynaconv.data.source import Source, Splits, Subset
from dynaconv.errors import UserError


def open_for(settings: CompareSettings, seed: int) -> ImageData:
    """Open the comparison's data for one seed.

    Raises:
        UserError: as :func:`~dynaconv.data.open_data`; or ``train_images`` is out of range.
    """
    data = open_data(
        settings.data,
        image_size=settings.image_size,
        crop_pct=settings.crop_pct,
        interpolation=settings.interpolation,
        batch_size=settings.batch_size,
        workers=settings.workers,
        bad_images=settings.bad_images,
        root=settings.data_root,
        train_split=settings.train_split,
        eval_split=settings.eval_split,
        download=settings.download,
        seed=seed,
    )
    return data if settings.train_images is None else _smaller(data, settings.train_images)


def _smaller(data: ImageData, size: int) -> ImageData:
    """The same data with fewer training images."""
    if not len(data.classes) <= size <= data.train_size:
        raise UserError(
            f"--train-images is {size}; expected {len(data.classes)} (one for every class) to {data.train_size}, which "
            f"is all of {data.name}."
        )
    natural = data.resolve(Augment())
    assert natural.crop is not None
    assert natural.hflip is not None
    splits = Splits(
        Subset(data.training_source, stratified_rows(data.training_source, size)),
        data.evaluation_source,
        data.classes,
        description=f"{size:,} of the {data.train_size:,} training images of {data.name}",
        crop=natural.crop,
        hflip=natural.hflip,
    )
    return ImageData(
        splits,
        data.preprocess,
        name=data.name,
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
        workers=data.workers,
        seed=data.seed,
        bad_images=data.bad_images.policy,
        max_bad_images=data.bad_images.cap,
        loader_timeout=data.loader_timeout,
    )


def stratified_rows(source: Source, size: int, seed: int = 0) -> list[int]:
    """``size`` rows, the classes in the same shares as in the whole; always the same ones.

    Each class's rows are shuffled and spread evenly over [0, 1); the rows with the smallest positions are taken.
    """
    labels = np.asarray(source.labels)
    random = np.random.default_rng(seed)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        position[rows] = np.arange(len(rows)) / len(rows)
    return sorted(int(row) for row in np.argsort(position, kind="stable")[:size])
