"""What can hardly be meant is said, or refused where it cannot work."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from torch import nn

from dynaconv.errors import UserError
from dynaconv.train.sanity import check_experts, check_losses, check_sizes, stride_of


def images(size: int | tuple[int, int] = 64, batch: int = 8, picture: int = 64) -> Any:
    first = Image.new("RGB", (picture, 2 * picture))
    return SimpleNamespace(image_size=size, batch_size=batch, first_picture=lambda: first)


def network(stride: int = 32) -> nn.Module:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    made.feature_info = [{"reduction": 2}, {"reduction": stride}]  # type: ignore[assignment]
    return made


def test_what_is_usual_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    check_sizes(network(), images())
    check_experts([None, 4])
    check_losses([2.3, 2.0, 1.9])
    check_losses([2.3, 2.3])
    check_sizes(nn.Conv2d(3, 4, 3), images(batch=1))
    assert caplog.records == []
    assert stride_of(nn.Conv2d(3, 4, 3)) is None


@pytest.mark.parametrize(("batch", "accumulate", "processes"), [(1, 1, 1), (4, 4, 1), (2, 1, 2)])
def test_a_batch_of_one_under_batch_norm_is_refused(batch: int, accumulate: int, processes: int) -> None:
    with pytest.raises(UserError, match=r"batch norm.*at least 2"):
        check_sizes(network(), images(batch=batch), accumulate=accumulate, processes=processes)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (images(size=16), "stride is 32"),
        (images(size=(64, 16)), "stride is 32"),
        (images(size=512), "scaled up to 512, 8 times"),
    ],
)
def test_sizes(data: Any, text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_sizes(network(), data)
    assert text in caplog.text


def test_experts_and_losses(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_experts([None, 1])
        check_losses([2.3, 2.3, 2.299], "dynamic K=4, seed 0")
    assert "one expert" in caplog.text
    assert "dynamic K=4, seed 0: the training loss never fell: 2.3 in" in caplog.text
