"""Order and augmentation follow from seed and epoch alone: not from workers, processes, or where one begins."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynaconv.data.sampling import Draw, EvaluationBatches, TrainBatches
from dynaconv.tasks.classification import Augment, ImageData, open_data
from dynaconv.tasks.classification.source import Subset

NOISY = Augment(crop="pad", auto_augment="rand-m9-mstd0.5", random_erasing=0.5)


def small(**options: object) -> ImageData:
    """400 of the digits at 8x8 in batches of 80."""
    data = open_data("digits", **{"image_size": 8, "batch_size": 80, **options})  # type: ignore[arg-type]
    data._splits = replace(data._splits, train=Subset(data.training_source, range(400)))
    return data


def epoch_of(data: ImageData, epoch: int = 0, first: int = 0) -> list[tuple[Tensor, Tensor]]:
    batches = data.training_batches(NOISY)
    batches.set_epoch(epoch, first_batch=first)
    taken = [(images.clone(), labels.clone()) for images, labels in batches]
    batches.close()
    return taken


def equal(one: list[tuple[Tensor, Tensor]], two: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(chain(*one), chain(*two), strict=True))


def test_same_seed_and_epoch_give_the_same_pictures() -> None:
    one = epoch_of(small(seed=3), epoch=2)
    random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002 - what others draw must not matter
    assert equal(one, epoch_of(small(seed=3), epoch=2))


def test_workers_change_nothing() -> None:
    assert equal(epoch_of(small()), epoch_of(small(workers=2)))


def test_other_epoch_or_seed_gives_others() -> None:
    one = epoch_of(small())
    assert not equal(one, epoch_of(small(), epoch=1))
    assert not equal(one, epoch_of(small(seed=1)))


def test_the_same_picture_is_augmented_anew_every_epoch() -> None:
    data = small(batch_size=400)
    (one, _), (two, _) = epoch_of(data, 0)[0], epoch_of(data, 1)[0]
    alike = sum(bool((two == image).all(dim=(1, 2, 3)).any()) for image in one[:50])
    assert alike < 10


@pytest.mark.parametrize("workers", [0, 2])
def test_beginning_in_the_middle_gives_the_rest(workers: int) -> None:
    data = small(workers=workers)
    assert equal(epoch_of(data, 1)[2:], epoch_of(data, 1, first=2))


def test_loading_draws_nothing_from_the_processs_own_generators() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    epoch_of(small())
    list(small().eval_loader)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@given(
    size=st.integers(1, 200),
    batch=st.integers(1, 40),
    processes=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_processes_share_each_batch(size: int, batch: int, processes: int, epoch: int) -> None:
    batch *= processes
    if size < processes:
        with pytest.raises(ValueError, match="too few"):
            TrainBatches(size, batch, seed=1, processes=processes)
        return
    shares = []
    for process in range(processes):
        batches = TrainBatches(size, batch, seed=1, processes=processes, process=process)
        batches.epoch = epoch
        shares.append(list(batches))
        assert len(batches) == len(shares[-1])
    together = [list(chain(*step)) for step in zip(*shares, strict=True)]
    drawn = [draw.row for step in together for draw in step]
    assert len(set(drawn)) == len(drawn)
    assert all(draw.epoch == epoch for step in together for draw in step)
    if size >= batch:
        alone = TrainBatches(size, batch, seed=1)
        alone.epoch = epoch
        assert [set(step) for step in together] == [set(step) for step in alone]
        assert size - len(drawn) < batch


@given(size=st.integers(0, 100), batch=st.integers(1, 30), processes=st.integers(1, 5))
def test_evaluation_sees_every_example_once(size: int, batch: int, processes: int) -> None:
    shares = [EvaluationBatches(size, batch, processes=processes, process=process) for process in range(processes)]
    seen = [draw for share in shares for step in share for draw in step]
    assert sorted(seen) == [Draw(0, row) for row in range(size)]
    assert all(len(share) == len(list(share)) for share in shares)
    assert shares[0].rounds == max(len(share) for share in shares)


def test_batch_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r"batch_size 10 does not divide over 4 processes; .* e\.g\. 8"):
        TrainBatches(100, 10, seed=0, processes=4)


def test_evaluation_has_one_order() -> None:
    with pytest.raises(TypeError, match="set_epoch is for training"):
        small().eval_loader.set_epoch(1)
