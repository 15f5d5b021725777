"""A frozen layer at its edges: wrong routing, empty batches, casts, its twin's attributes, an explicit strategy."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
from torch import Tensor, nn

import dynaconv
from dynaconv import DynamicConv2d, freeze
from dynaconv.inference import FrozenLayer, one_call
from dynaconv.kernels import cpu as native
from dynaconv.ops import STRATEGIES
from tolerances import assert_close

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def frozen_of(layer: nn.Module, *size: int) -> FrozenLayer:
    made = freeze(layer, input_size=size)
    assert isinstance(made, FrozenLayer)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 4), (8, 2), (2, 4), (8, 8), (8,), (8, 4, 1)])
def test_routing_of_another_shape_is_refused(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    frozen = frozen_of(DynamicConv2d(32, 32, 3, padding=1, experts=4), 32, 16, 16)
    x = torch.randn(8, 32, 16, 16).to(memory_format=layout)
    with pytest.raises(ValueError, match=r"routing weights have shape .*; expected \(8, 4\)"):
        frozen(x, torch.rand(shape))


class _WrongRouter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape[0], 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_router_of_ones_own_is_checked(layout: torch.memory_format) -> None:
    frozen = frozen_of(DynamicConv2d(8, 8, 3, experts=4), 8, 6, 6)
    frozen.router = _WrongRouter()
    with pytest.raises(ValueError, match=r"routing weights have shape \(2, 3\); expected \(2, 4\)"):
        frozen(torch.randn(2, 8, 6, 6).to(memory_format=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_of_other_channels_is_refused(layout: torch.memory_format) -> None:
    frozen = frozen_of(DynamicConv2d(8, 8, 3), 8, 6, 6)
    with pytest.raises(ValueError, match=r"expected \(batch, 8"):
        frozen(torch.randn(2, 7, 6, 6).to(memory_format=layout))
    with pytest.raises(ValueError, match=r"expected \(batch, 8"):
        frozen.router(torch.randn(2, 7, 6, 6).to(memory_format=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gradient_reaches_the_routing(layout: torch.memory_format) -> None:
    layer = DynamicConv2d(8, 8, 3, experts=4)
    x, routing = torch.randn(2, 8, 6, 6).to(memory_format=layout), torch.rand(2, 4).requires_grad_()
    expected = torch.autograd.grad(layer(x, routing).sum(), routing)[0]
    frozen = frozen_of(layer, 8, 6, 6)
    assert_close(torch.autograd.grad(frozen(x, routing).sum(), routing)[0], expected, scale=20)


class _Block(nn.Module):
    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(16, 16, kernel, padding=kernel // 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


class _Shared(nn.Module):
    """A network whose block shares one router; ``kernel`` 1 runs it on maps of one pixel."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.stem, self.block, self.kernel = nn.Conv2d(3, 16, 3), _Block(kernel), kernel

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.block(nn.functional.adaptive_avg_pool2d(y, 1) if self.kernel == 1 else y)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bank_dtype", [None, "int8"])
def test_an_empty_batch_gives_an_empty_output(kernel: int, layout: torch.memory_format, bank_dtype: str | None) -> None:
    twin = dynaconv.dynamize(_Shared(kernel), method="condconv", experts=4, input_size=(3, 12, 12)).eval()
    frozen = freeze(twin, input_size=(3, 12, 12), bank_dtype=bank_dtype)
    x = torch.empty(0, 3, 12, 12).to(memory_format=layout)
    assert frozen(x).shape == twin(x).shape
    with torch.no_grad():
        assert frozen(x).shape == twin(x).shape


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_an_empty_batch_of_every_dimension(dims: int) -> None:
    layer = dynaconv.DynamicLinear(4, 6) if dims == 0 else getattr(dynaconv, f"DynamicConv{dims}d")(4, 6, 3, stride=2)
    x = torch.randn(2, *(5,) * dims, 4).movedim(-1, 1) if dims else torch.randn(2, 4)
    frozen = freeze(layer, examples=x)
    empty = x[:0].requires_grad_()
    y = frozen(empty)
    assert y.shape == layer(empty).shape
    assert torch.autograd.grad(y.sum(), empty)[0].shape == empty.shape


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        DynamicConv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        DynamicConv2d(32, 32, 3, groups=32),
        nn.BatchNorm2d(32),
        DynamicConv2d(32, 8, 1),
    ).eval()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bank_dtype", [None, "bfloat16", "int8"])
def test_a_frozen_network_is_cast(bank_dtype: str | None, dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = torch.randn(4, 3, 12, 12).to(memory_format=layout)
    frozen = freeze(network(), bank_dtype=bank_dtype, examples=x)
    stored = [(layer.bank.clone(), layer.scale) for layer in frozen if isinstance(layer, FrozenLayer)]
    with torch.no_grad():
        expected = frozen(x)
        scale = max(1.0, expected.abs().max().item())
        frozen.to(dtype)
        y = frozen(x.to(dtype))
        assert y.dtype == dtype
        assert_close(y, expected, scale=scale)
        back = frozen.float()(x)
        assert back.dtype == torch.float32
        # What is not reduced was rounded on the way: the bank, or a bias.
        exact = dtype == torch.float64
        assert_close(back, expected, scale=scale, dtype=torch.float32 if exact else dtype)
    if bank_dtype is not None:
        layers = [layer for layer in frozen if isinstance(layer, FrozenLayer)]
        for layer, (bank, per_channel) in zip(layers, stored, strict=True):
            assert layer.bank.dtype == bank.dtype
            assert torch.equal(layer.bank, bank)
            assert per_channel is None or (layer.scale is not None and torch.equal(layer.scale, per_channel))


@pytest.mark.parametrize("change", [lambda n: n.half(), lambda n: n.double(), lambda n: n.to(torch.bfloat16)])
@pytest.mark.parametrize("bank_dtype", [None, "bfloat16", "int8"])
def test_a_network_of_another_dtype_is_frozen(change: object, bank_dtype: str | None) -> None:
    twin = change(network())  # type: ignore[operator]
    x = torch.randn(2, 3, 12, 12).to(next(twin.parameters()).dtype)
    with torch.no_grad():
        y = freeze(twin, examples=x, bank_dtype=bank_dtype)(x.to(memory_format=torch.channels_last))
        assert_close(y, twin(x), dtype=torch.bfloat16, scale=2)


@pytest.mark.parametrize("strategy", [None, "loop", "grouped", "unfold"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bank_dtype", [None, "bfloat16", "int8"])
def test_autocast_over_a_frozen_network(
    bank_dtype: str | None, layout: torch.memory_format, strategy: str | None
) -> None:
    x = torch.randn(4, 3, 12, 12).to(memory_format=layout)
    frozen = freeze(network(), bank_dtype=bank_dtype, examples=x, strategy=strategy)
    with torch.no_grad():
        expected = frozen(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = frozen(x)
    assert_close(y, expected, dtype=torch.bfloat16, scale=max(1.0, expected.abs().max().item()))


def test_a_change_of_memory_format_leaves_banks_as_they_are_read() -> None:
    x = torch.randn(2, 3, 12, 12).to(memory_format=torch.channels_last)
    frozen = freeze(network(), examples=x)
    with torch.no_grad():
        expected = frozen(x)
        frozen.to(memory_format=torch.channels_last)
        assert all(layer.bank.is_contiguous() for layer in frozen if isinstance(layer, FrozenLayer))
        assert_close(frozen(x), expected)


def test_tensors_that_the_kernel_cannot_read_are_refused() -> None:
    frozen = frozen_of(DynamicConv2d(8, 8, 3, experts=4), 8, 6, 6)
    x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)
    frozen.biases = frozen.biases.double()
    if one_call_runs(frozen, x):
        with pytest.raises(ValueError, match=r"biases is torch\.float64 on cpu"), torch.no_grad():
            frozen(x)


def one_call_runs(frozen: FrozenLayer, x: Tensor) -> bool:
    return frozen.plan(x).strategy == "frozen"


@pytest.mark.parametrize(
    "layer",
    [
        dynaconv.DynamicConv1d(4, 6, 3, stride=2, padding="same"),
        DynamicConv2d(4, 8, (3, 1), padding=(1, 0), dilation=2, groups=2, padding_mode="circular"),
        dynaconv.CondConv3d(4, 6, 3, padding=1),
        dynaconv.DynamicLinear(4, 6),
    ],
)
def test_a_frozen_layer_has_its_twins_attributes(layer: nn.Module) -> None:
    dims = layer.geometry.dims
    frozen = freeze(layer, examples=torch.randn(2, 4, *(9,) * dims))
    names = ("stride", "padding", "dilation", "groups", "kernel_size", "in_channels", "out_channels", "transposed")
    names += ("output_padding", "padding_mode", "experts", "in_features", "out_features")
    compared = 0
    for name in names:
        assert hasattr(frozen, name) == hasattr(layer, name), name
        if hasattr(layer, name):
            assert getattr(frozen, name) == getattr(layer, name), name
            compared += 1
    assert compared >= 3
    for made in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert made.experts == layer.experts


def test_a_frozen_layers_geometry_cannot_be_changed() -> None:
    frozen = frozen_of(DynamicConv2d(4, 8, 3), 4, 6, 6)
    with pytest.raises(AttributeError, match="the stride of a frozen layer cannot be changed"):
        frozen.stride = (2, 2)


@pytest.mark.parametrize("strategy", ["loop", "grouped", "unfold"])
def test_an_explicit_strategy_is_obeyed_in_every_layout(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    found = STRATEGIES[strategy]
    assert found.convolve_each is not None
    run = found.convolve_each
    watched = dataclasses.replace(found, convolve_each=lambda *args: (seen.append(strategy), run(*args))[1])
    monkeypatch.setitem(STRATEGIES, strategy, watched)
    monkeypatch.setattr(one_call, "run", lambda *args: pytest.fail("the kernel of our own ran"))
    frozen = freeze(nn.Sequential(DynamicConv2d(4, 4, 3)), strategy=strategy, input_size=(4, 6, 6))
    for layout in LAYOUTS:
        seen.clear()
        x = torch.randn(3, 4, 6, 6).to(memory_format=layout)
        with torch.no_grad():
            frozen(x)
        assert seen
        assert frozen[0].plan(x).strategy == strategy
        assert frozen[0].plan(x).others["frozen"] == f"you asked for {strategy!r}"


def test_an_explicit_strategy_that_cannot_run_is_refused() -> None:
    layer = DynamicConv2d(4, 4, 3)
    with pytest.raises(ValueError, match=r"strategy 'matmul' cannot run this call: the kernel is 3x3"):
        freeze(layer, strategy="matmul", input_size=(4, 6, 6))
    with pytest.raises(ValueError, match=r"strategy is 'froze'. Did you mean 'frozen'"):
        freeze(layer, strategy="froze", input_size=(4, 6, 6))
    with pytest.raises(ValueError, match=r"strategy 'frozen' cannot run this call: it computes in float32"):
        freeze(layer.double(), strategy="frozen", examples=torch.randn(1, 4, 6, 6).double())


def test_the_plan_says_why_and_why_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = frozen_of(DynamicConv2d(4, 4, 3), 4, 6, 6)
    x = torch.randn(3, 4, 6, 6)
    runs: list[str] = []
    run = one_call.run
    monkeypatch.setattr(one_call, "run", lambda *args: (runs.append("frozen"), run(*args))[1])
    last = x.to(memory_format=torch.channels_last)
    grad = last.detach().requires_grad_()
    expected = {x: "the input is no map in channels_last", grad: "the input needs a gradient"}
    for tensor, reason in expected.items():
        plan = frozen.plan(tensor)
        assert plan.strategy in STRATEGIES
        assert reason in plan.others["frozen"]
        assert set(plan.others) | {plan.strategy} == {"frozen", *STRATEGIES}
        frozen(tensor)
    assert runs == []
    assert frozen.plan(x[:0]).why == "the batch is empty"
    assert frozen_of(dynaconv.DynamicConv1d(4, 4, 3), 4, 6).plan(x[0, :, 0]).strategy in STRATEGIES
    plan = frozen.plan(last)
    with torch.no_grad():
        frozen(last)
    assert runs == ["frozen"] * (plan.strategy == "frozen")
    assert (plan.strategy == "frozen") == (native.why_not() is None)
    with monkeypatch.context() as patch:
        patch.setattr("dynaconv.inference.channel_sums.why_not", lambda: "there is no compiler")
        assert frozen.plan(last).others["frozen"] == "the kernels are not available: there is no compiler"


@pytest.mark.parametrize("bank_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (DynamicConv2d(4, 40, 3), (4, 6, 6)),  # in panels
        (DynamicConv2d(8, 8, 3, groups=8), (8, 6, 6)),  # by taps
        (DynamicConv2d(8, 4, 3, groups=2), (8, 6, 6)),  # in rows
        (dynaconv.DynamicConv1d(4, 6, 3), (4, 9)),
        (dynaconv.DynamicLinear(5, 7), (5,)),
    ],
)
def test_the_experts_can_be_read_as_the_twin_s(layer: nn.Module, size: tuple[int, ...], bank_dtype: str | None) -> None:
    """Networks read ``conv.weight.dtype`` and ``.device``; what they get is the bank, not a likeness of it."""
    frozen = freeze(layer, input_size=size, bank_dtype=bank_dtype)
    weight, largest = layer.weight.detach(), layer.weight.abs().max()
    assert frozen.weight.dtype == torch.float32
    assert frozen.weight.device == weight.device
    if bank_dtype is None:
        assert torch.equal(frozen.weight, weight)
    else:
        assert (frozen.weight - weight).abs().max() <= largest / 127  # a step of int8, two of bfloat16
    assert frozen.half().weight.dtype == torch.float16
    assert "weight" not in dict(frozen.named_parameters())
    assert "weight" not in frozen.state_dict()


def test_the_experts_of_a_frozen_layer_hold_its_norm() -> None:
    layer, norm = DynamicConv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)
    norm.running_var.uniform_(0.5, 2)
    frozen = freeze(nn.Sequential(layer, norm), input_size=(4, 6, 6))[0]
    scale = (norm.running_var + norm.eps).rsqrt().view(-1, 1, 1, 1)
    assert_close(frozen.weight, layer.weight.detach() * scale)


def test_a_kernel_that_does_not_pay_is_not_chosen_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = frozen_of(DynamicConv2d(4, 8, 3, padding=1), 4, 6, 6)
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
    expected, asked = frozen(x), []

    def slow_at_one(operation: str, *, batch: int) -> str | None:
        asked.append(operation)
        return "it is slow here" if batch == 2 else None

    monkeypatch.setattr("dynaconv.inference.layer.pays", slow_at_one)
    plan = frozen.plan(x)
    assert plan.strategy in STRATEGIES
    assert plan.others["frozen"] == "it is slow here"
    assert_close(frozen(x), expected)
    assert set(asked) == {"frozen"}
    if native.why_not() is None:
        assert frozen.plan(x[:1]).strategy == "frozen"
        frozen.strategy = "frozen"
        assert frozen.plan(x).strategy == "frozen"


@pytest.mark.skipif(native.why_not() is not None, reason=f"no kernels of our own here: {native.why_not()}")
@pytest.mark.parametrize("instructions", ["avx512", "avx2", "baseline", "neon"])
def test_every_instruction_set_has_the_plan_that_was_measured(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynaconv.kernels.cpu.worth.instruction_set", lambda: instructions)
    x = torch.randn(1, 4, 6, 6).to(memory_format=torch.channels_last)
    found = frozen_of(DynamicConv2d(4, 8, 3), 4, 6, 6).plan(x)
    reason = native.pays("frozen", batch=1)
    assert (found.strategy == "frozen") == (reason is None)
    assert reason is None or found.others["frozen"] == reason


@pytest.mark.parametrize("bank_dtype", [None, "int8"])
@pytest.mark.parametrize("batch", [2, 12])  # with the router in the layer's own call, and without
@pytest.mark.parametrize("groups", [1, 8])
def test_lazily_negated_views(groups: int, batch: int, bank_dtype: str | None) -> None:
    """The imaginary part of a conjugate is one; its memory holds the other sign."""
    frozen = freeze(DynamicConv2d(8, 8, 3, padding=1, groups=groups), input_size=(8, 9, 9), bank_dtype=bank_dtype)
    x = torch.randn(batch, 8, 9, 9).to(memory_format=torch.channels_last)
    routing = torch.rand(batch, 4)
    for layout in LAYOUTS:
        plain = x.contiguous(memory_format=layout)
        assert_close(frozen(torch._neg_view(plain)), frozen(-plain))
        assert_close(frozen(plain, torch._neg_view(routing)), frozen(plain, -routing))
