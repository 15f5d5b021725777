"""Multiply-adds of single operations against counts by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.counting import UncountedOperationError, cost, formulas, register_rule


class Calls(nn.Module):
    """A module that is one function."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


@pytest.mark.parametrize(
    ("layer", "size", "expected"),
    [
        pytest.param(nn.Conv2d(3, 8, 3), (3, 10, 12), 8 * 10 * 8 * 27, id="no padding"),
        pytest.param(nn.Conv2d(3, 8, 3, padding=1, bias=False), (3, 10, 12), 10 * 12 * 8 * 27, id="padding"),
        pytest.param(nn.Conv2d(4, 8, (1, 3), stride=2, padding="valid"), (4, 9, 9), 5 * 4 * 8 * 4 * 3, id="stride"),
        pytest.param(nn.Conv2d(4, 8, 3, dilation=2, groups=2), (4, 9, 9), 5 * 5 * 8 * 2 * 9, id="dilation and groups"),
        pytest.param(nn.Conv2d(6, 6, 5, padding="same", groups=6), (6, 7, 7), 49 * 6 * 25, id="depthwise"),
        pytest.param(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (2, 5, 5), 25 * 36, id="circular"),
        pytest.param(nn.Conv1d(3, 5, 3, padding="same"), (3, 11), 11 * 45, id="1d"),
        pytest.param(nn.Conv3d(2, 3, 3, padding=1), (2, 4, 5, 6), 120 * 3 * 2 * 27, id="3d"),
        pytest.param(nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (4, 5, 7), 35 * 4 * 6 * 16, id="transposed"),
        pytest.param(nn.ConvTranspose1d(4, 6, 3, groups=2), (4, 9), 9 * 4 * 3 * 3, id="transposed 1d, groups"),
        pytest.param(nn.ConvTranspose3d(2, 2, 2, stride=2), (2, 3, 3, 3), 27 * 4 * 8, id="transposed 3d"),
        pytest.param(nn.Linear(12, 5), (12,), 60, id="linear"),
        pytest.param(nn.Linear(12, 5, bias=False), (7, 12), 7 * 60, id="linear over rows"),
        pytest.param(nn.LSTM(8, 16, 2, bidirectional=True), (5, 8), 2 * 5 * 64 * (8 + 16 + 32 + 16), id="LSTM"),
        pytest.param(nn.GRU(8, 16, batch_first=True), (5, 8), 5 * 48 * (8 + 16), id="GRU"),
        pytest.param(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            (5, 8),
            5 * (4 * 64 + 2 * 8 * 16) + 2 * 2 * 5 * 5 * 4,
            id="transformer layer",
        ),
    ],
)
def test_layer(layer: nn.Module, size: tuple[int, ...], expected: int) -> None:
    assert cost(layer, size).total == expected


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        pytest.param(torch.mm, [(3, 4), (4, 5)], 60, id="mm"),
        pytest.param(torch.bmm, [(2, 3, 4), (2, 4, 5)], 120, id="bmm"),
        pytest.param(torch.addmm, [(5,), (3, 4), (4, 5)], 60, id="addmm"),
        pytest.param(torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120, id="baddbmm"),
        pytest.param(torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 120, id="addbmm"),
        pytest.param(lambda c, a, b: c.addmm_(a, b), [(3, 5), (3, 4), (4, 5)], 60, id="addmm in place"),
        pytest.param(torch.mv, [(3, 4), (4,)], 12, id="mv"),
        pytest.param(torch.addmv, [(3,), (3, 4), (4,)], 12, id="addmv"),
        pytest.param(torch.dot, [(7,), (7,)], 7, id="dot"),
        pytest.param(torch.vdot, [(7,), (7,)], 7, id="vdot"),
        pytest.param(torch.matmul, [(2, 6, 3, 4), (4, 5)], 2 * 6 * 60, id="matmul, left broadcast over"),
        pytest.param(torch.matmul, [(3, 4), (2, 6, 4, 5)], 2 * 6 * 60, id="matmul, right broadcast over"),
        pytest.param(lambda a, b: torch.einsum("bik,bkj->bij", a, b), [(2, 3, 4), (2, 4, 5)], 120, id="einsum"),
        pytest.param(lambda a, b: torch.einsum("bk,koi->boi", a, b), [(2, 3), (3, 4, 5)], 120, id="einsum mixing"),
        pytest.param(
            F.scaled_dot_product_attention, [(2, 3, 7, 8), (2, 3, 5, 8), (2, 3, 5, 6)], 6 * 7 * 5 * 14, id="attention"
        ),
        pytest.param(
            F.scaled_dot_product_attention,
            [(1, 2, 7, 8), (1, 2, 5, 8), (1, 2, 5, 8)],
            2 * 7 * 5 * 16,
            id="fused attention",
        ),
    ],
)
def test_operation(function: Callable[..., Tensor], shapes: list[tuple[int, ...]], expected: int) -> None:
    tensors = tuple(torch.empty(shape) for shape in shapes)
    assert cost(Calls(function), inputs=tensors).total == expected


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm([4, 6, 6]), nn.RMSNorm(6)),
        *(
            nn.ReLU(inplace=True),
            nn.ReLU6(),
            nn.Hardswish(inplace=True),
            nn.Hardsigmoid(),
            nn.SiLU(),
            nn.GELU(),
            nn.Mish(),
        ),
        *(
            nn.PReLU(4),
            nn.GLU(1),
            nn.Softmax(1),
            nn.LogSoftmax(1),
            nn.ELU(),
            nn.LeakyReLU(inplace=True),
            nn.Softplus(),
            nn.LogSigmoid(),
            nn.Tanh(),
        ),
        *(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(3), nn.AdaptiveMaxPool2d(2)),
        *(nn.LPPool2d(2, 2), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")),
        *(nn.ReflectionPad2d(1), nn.ZeroPad2d(1), nn.ReplicationPad2d(1), nn.CircularPad2d(1)),
        *(nn.PixelShuffle(2), nn.ChannelShuffle(2), nn.Unfold(3), nn.Flatten(), nn.Identity(), nn.Dropout(0.5)),
    ],
    ids=lambda layer: str(layer).split("(")[0],
)
def test_what_multiplies_no_weights_is_free(layer: nn.Module) -> None:
    assert cost(layer, (4, 6, 6)).total == 0


def test_operations_belong_to_the_innermost_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.ReLU(), Calls(lambda x: x.flatten(2) @ x.flatten(2).mT)))
    report = cost(model, (3, 5, 5))
    assert {row.name: row.kernel for row in report.layers} == {"0": 25 * 12, "1.1": 4 * 25 * 4}


def test_a_module_that_runs_twice_has_one_row() -> None:
    layer = nn.Linear(4, 4)
    report = cost(nn.Sequential(layer, nn.ReLU(), layer), (4,))
    assert [(row.name, row.calls, row.kernel, row.parameters) for row in report.layers] == [("0", 2, 32, 20)]


def test_under_inference_mode_operations_are_seen_in_parts() -> None:
    with torch.inference_mode():
        assert cost(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), (2, 4)).total == 24


@pytest.fixture
def forgotten_rules() -> Iterator[None]:
    yield
    formulas._registered.clear()


@pytest.fixture(scope="module")
def mystery() -> Callable[[Tensor], Tensor]:
    @torch.library.custom_op("dynaconv_tests::mystery", mutates_args=())
    def operation(x: Tensor) -> Tensor:
        return x.clone()

    operation.register_fake(torch.empty_like)
    return lambda x: operation(x)  # the operation itself cannot be copied with the model


def test_an_operation_without_a_rule_is_an_error_with_its_name(mystery: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Calls(mystery)))
    with pytest.raises(UncountedOperationError) as caught:
        cost(model, (4,))
    for part in ("dynaconv_tests::mystery", "(1, 4)", "1.0 (Calls)", "register_rule('dynaconv_tests::mystery'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("spelled", ["text", "packet", "overload"])
@pytest.mark.usefixtures("forgotten_rules")
def test_register_rule(mystery: Callable[[Tensor], Tensor], spelled: str) -> None:
    packet = torch.ops.dynaconv_tests.mystery
    op = {"text": "dynaconv_tests::mystery", "packet": packet, "overload": packet.default}[spelled]
    register_rule(op, lambda args, kwargs, result: 10 * args[0].numel() + result.shape[-1])
    assert cost(Calls(mystery), (4,)).total == 44


@pytest.mark.usefixtures("forgotten_rules")
def test_a_registered_rule_goes_before_ours() -> None:
    register_rule("aten::addmm", lambda args, kwargs, result: 1)
    assert cost(nn.Linear(4, 3), (4,)).total == 1


def test_register_rule_refuses_what_is_no_operation() -> None:
    for op, error in (
        ("aten::no_such_thing", ValueError),
        ("mm", ValueError),
        (torch.mm, TypeError),
        (None, TypeError),
    ):
        with pytest.raises(error, match="op is"):
            register_rule(op, lambda *_: 0)
    with pytest.raises(TypeError, match="formula is 3"):
        register_rule("aten::mm", 3)
