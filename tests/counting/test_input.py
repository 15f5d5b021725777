"""What may be given as input, and what is said when it does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynaconv.counting import cost, parse_input_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("3x224x224", (3, 224, 224)),
        ("3X32x32", (3, 32, 32)),
        (" 3 x 32 x 32 ", (3, 32, 32)),
        ("(3, 32, 32)", (3, 32, 32)),
        ("1x8", (1, 8)),
        ("3x8x16x16", (3, 8, 16, 16)),
        ("3\u00d78\u00d78", (3, 8, 8)),
    ],
)
def test_parse_input_size(text: str, size: tuple[int, ...]) -> None:
    assert parse_input_size(text) == size


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "whole numbers joined by x"),
        ("3xx224", "whole numbers joined by x"),
        ("3x-2x5", "whole numbers joined by x"),
        ("3x2.5x5", "whole numbers joined by x"),
        ("3x224x224px", "whole numbers joined by x"),
        ("224", "the channels are missing.*3x224x224"),
        ("3x0x5", "every number must be at least 1"),
        ("0", "every number must be at least 1"),
    ],
)
def test_parse_input_size_refuses(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_input_size(text)


@pytest.mark.parametrize(
    ("size", "error", "said"),
    [
        ("3x8x8", TypeError, r"is the text '3x8x8'.*parse_input_size\('3x8x8'\)"),
        (8, TypeError, "input_size is 8: expected the size of one example"),
        ((3, 8.0, 8), TypeError, r"input_size is \(3, 8.0, 8\)"),
        ((3, True, 8), TypeError, r"input_size is \(3, True, 8\)"),
        ((), ValueError, "every entry must be at least 1"),
        ((3, 0, 8), ValueError, "every entry must be at least 1"),
        ((3, -1, 8), ValueError, "every entry must be at least 1"),
    ],
)
def test_bad_input_size(size: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        cost(nn.Conv2d(3, 4, 1), size)


def test_lists_and_torch_sizes_do() -> None:
    model = nn.Conv2d(3, 4, 1)
    assert cost(model, [3, 8, 8]) == cost(model, torch.Size((3, 8, 8))) == cost(model, (3, 8, 8))


@pytest.mark.parametrize("size", [(4, 8, 8), (1, 3, 8, 8), (3,)])
def test_a_size_that_the_model_does_not_take_names_the_layer(size: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(3, 4, 1)))
    with pytest.raises(
        ValueError, match=r"does not run on input of shape \(1, .*in 1\.0 \(Conv2d\).*\n.*without the batch"
    ):
        cost(model, size)


def test_other_inputs() -> None:
    class Two(nn.Module):
        def forward(self, left: Tensor, right: Tensor, *, swap: bool = False) -> Tensor:
            return right.mT @ left.mT if swap else left @ right

    left, right = torch.empty(1, 3, 4, device="meta"), torch.zeros(1, 4, 5)
    assert cost(Two(), inputs=(left, right)).total == 60
    report = cost(Two(), inputs={"left": left, "right": right, "swap": True})
    assert report.total == 60
    assert report.input_shapes == ((1, 3, 4), (1, 4, 5))
    assert cost(nn.Embedding(10, 4), inputs=torch.zeros(1, 5, dtype=torch.long)).total == 0


def test_the_input_has_the_models_type() -> None:
    assert cost(nn.Conv2d(3, 4, 1).bfloat16(), (3, 8, 8)).total == 64 * 12


def test_shapes_that_depend_on_values_are_an_error_and_not_a_guess() -> None:
    class Picks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x.sum(-1) > 0]

    with pytest.raises(ValueError, match=r"(?s)in 0 \(Picks\).*depend on the values"):
        cost(nn.Sequential(Picks()), (3, 4))


def test_a_detector_with_its_post_processing_is_an_error() -> None:
    detection = pytest.importorskip("torchvision.models.detection")
    with torch.device("meta"):
        model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    with pytest.raises(ValueError, match=r"(?s)the model itself \(SSD\).*count the part before"):
        cost(model, (3, 320, 320))
