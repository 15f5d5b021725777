"""Every layer class beside its torch twin: arguments, attributes, numbers, initial weights."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import nn

import dynaconv
from dynaconv import SigmoidRouter, SoftmaxRouter
from dynaconv.layers import DynamicLayer
from layers.twins import TWINS, Twin
from tolerances import assert_close

EACH = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
EACH_CALL = pytest.mark.parametrize(
    ("twin", "arguments"),
    [(twin, arguments) for twin in TWINS.values() for arguments in twin.arguments()],
    ids=[f"{name}-{index}" for name, twin in TWINS.items() for index, _ in enumerate(twin.arguments())],
)
ATTRIBUTES = (
    *("in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"),
    *("groups", "padding_mode", "output_padding", "transposed"),
)


def test_no_public_layer_is_missing_here() -> None:
    public = {
        name for name in dynaconv.__all__ if name.startswith(("DynamicConv", "CondConv", "DynamicLin", "CondLin"))
    }
    assert public == set(TWINS)
    kinds = {name: getattr(dynaconv.layers, name) for name in dynaconv.layers.__all__}
    exported = {
        name
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, DynamicLayer) and kind is not DynamicLayer
    }
    # Their twins are timm's and have no arguments of torch's order: tests/conversion/test_standardised.py.
    assert exported == public | {"CondStdConv2d", "DynamicStdConv2d"}


@EACH
def test_takes_the_twins_arguments_in_the_same_order(twin: Twin) -> None:
    ours = list(inspect.signature(twin.ours.__init__).parameters.values())
    theirs = list(inspect.signature(twin.theirs.__init__).parameters.values())
    assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]
    rest = ours[len(theirs) :]
    assert [p.name for p in rest] == ["experts", "router", "strategy"]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in rest)


@EACH_CALL
def test_has_the_twins_attributes(twin: Twin, arguments: dict[str, Any]) -> None:
    ours, theirs = twin.ours(**arguments, experts=3), twin.theirs(**arguments)
    for name in ATTRIBUTES:
        assert hasattr(ours, name) == hasattr(theirs, name), name
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    assert ours.weight.shape == (3, *theirs.weight.shape)
    assert (ours.bias is None) == (theirs.bias is None)
    if ours.bias is not None:
        assert ours.bias.shape == (3, *theirs.bias.shape)
    own = set(ours.state_dict()) - {name for name in ours.state_dict() if name.startswith("router.")}
    assert own == set(theirs.state_dict())


@EACH_CALL
def test_one_hot_routing_is_the_twin(twin: Twin, arguments: dict[str, Any]) -> None:
    ours, theirs = twin.ours(**arguments, experts=3).double(), twin.theirs(**arguments).double()
    x = twin.input(dtype=torch.float64)
    for expert in range(3):
        with torch.no_grad():
            theirs.weight.copy_(ours.weight[expert])
            if ours.bias is not None:
                theirs.bias.copy_(ours.bias[expert])
        one_hot = torch.eye(3, dtype=torch.float64)[expert].expand(3, 3)
        assert_close(ours(x, routing=one_hot), theirs(x))


@EACH_CALL
def test_forward_is_mix_of_bank_and_router(twin: Twin, arguments: dict[str, Any]) -> None:
    layer, x = twin.ours(**arguments).double(), twin.input(dtype=torch.float64)
    routing = layer.router(x)
    assert routing.shape == (3, layer.experts)
    assert_close(layer(x), layer(x, routing=routing))
    reference = dynaconv.mix(x, layer.weight, routing, layer.bias, geometry=layer.geometry, strategy="reference")
    assert_close(layer(x), reference)


@EACH
def test_has_its_papers_defaults(twin: Twin) -> None:
    layer = twin.ours(*(6, 4) if twin.dims == 0 else (6, 4, 3))
    condconv = twin.ours.__name__.startswith("Cond")
    assert layer.experts == (8 if condconv else 4)
    assert type(layer.router) is (SigmoidRouter if condconv else SoftmaxRouter)
    assert layer.strategy == "auto"
    if not condconv:
        assert layer.router.temperature.item() == 30.0


@EACH
def test_every_expert_starts_as_an_ordinary_layer_of_its_own(twin: Twin) -> None:
    """The bounds of torch's own initialisation, met and nearly reached by every expert, with experts that differ."""
    sizes = (96, 64) if twin.dims == 0 else (48, 32, 3)
    ours, theirs = twin.ours(*sizes, experts=5), twin.theirs(*sizes)
    fan_in = theirs.weight[0].numel()
    bound = 1 / math.sqrt(fan_in)
    for expert in range(5):
        kernel, bias = ours.weight[expert], ours.bias[expert]
        for values in (kernel, theirs.weight):
            assert 0.97 * bound < values.abs().max() <= bound
            assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert 0.8 * bound < bias.abs().max() <= bound
        assert bias.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.4)
    assert len({round(value, 6) for value in ours.weight.sum(dim=tuple(range(1, ours.weight.dim()))).tolist()}) == 5
    assert len({round(value, 6) for value in ours.bias.sum(dim=1).tolist()}) == 5


@EACH
def test_reset_parameters_draws_anew_and_leaves_the_router_alone(twin: Twin) -> None:
    layer = twin.ours(**twin.arguments()[0])
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.reset_parameters()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("router."), name
    assert layer.weight.is_leaf
    assert layer.weight.requires_grad


@EACH_CALL
def test_an_example_without_a_batch(twin: Twin, arguments: dict[str, Any]) -> None:
    layer, x = twin.ours(**arguments).double(), twin.input(None, dtype=torch.float64)
    assert_close(layer(x), layer(x[None])[0])


def test_linear_takes_rows_of_one_example_together() -> None:
    layer, x = dynaconv.DynamicLinear(6, 4).double(), torch.randn(3, 2, 5, 6, dtype=torch.float64)
    routing = layer.router(x.movedim(-1, 1))
    kernels = torch.einsum("bk,koi->boi", routing, layer.weight)
    assert_close(layer(x), torch.einsum("boi,bnmi->bnmo", kernels, x) + (routing @ layer.bias)[:, None, None])


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("batch", [None, 2])
def test_output_size_is_that_of_torch(dims: int, stride: int, batch: int | None) -> None:
    twin = TWINS[f"DynamicConvTranspose{dims}d"]
    arguments = {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "stride": stride, "padding": 1}
    ours, theirs = twin.ours(**arguments, experts=1).double(), twin.theirs(**arguments).double()
    with torch.no_grad():
        theirs.weight.copy_(ours.weight[0])
        theirs.bias.copy_(ours.bias[0])
    x = twin.input(batch, dtype=torch.float64)
    one = torch.ones(1 if batch is None else batch, 1, dtype=torch.float64)
    least = theirs(x).shape[-dims:]
    for extra in range(stride):
        size = [length + extra for length in least]
        assert_close(ours(x, size, one), theirs(x, size))
        if batch is not None:
            full = [batch, 4, *size]
            assert_close(ours(x, full, one), theirs(x, full))
    for wrong in ([length + stride for length in least], [length - 1 for length in least], [9] * (dims + 3)):
        with pytest.raises(ValueError, match=r"output_size|requested an output size"):
            theirs(x, wrong)
        with pytest.raises(ValueError, match=r"output_size is \(.*\); expected sizes from"):
            ours(x, wrong, one)


@EACH
def test_prints_like_its_twin_and_says_what_it_adds(twin: Twin) -> None:
    for arguments in twin.arguments():
        ours, theirs = twin.ours(**arguments, experts=3, strategy="branches"), twin.theirs(**arguments)
        shown = ours.extra_repr()
        assert shown.endswith(", experts=3, strategy='branches'")
        wanted = theirs.extra_repr().replace("in_features=", "").replace("out_features=", "")
        wanted = wanted.replace("padding=same", "padding='same'").replace(
            "padding_mode=circular", "padding_mode='circular'"
        )
        assert set(wanted.split(", ")) <= set(shown.split(", ")), (shown, wanted)


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_is_built_on_the_device_and_in_the_dtype_asked_for(twin: Twin, dtype: torch.dtype) -> None:
    arguments = twin.arguments()[0]
    layer = twin.ours(**arguments, dtype=dtype)
    assert {value.dtype for value in layer.parameters()} == {dtype}
    assert layer(twin.input(dtype=dtype)).dtype == dtype
    meta = twin.ours(**arguments, device="meta")
    assert {value.device.type for value in meta.state_dict().values()} == {"meta"}
    assert meta(twin.input().to("meta")).shape == layer(twin.input(dtype=dtype)).shape
    with torch.device("meta"):
        also = twin.ours(**arguments)
    assert {value.device.type for value in also.state_dict().values()} == {"meta"}


def test_a_meta_model_is_filled_by_a_state_dict() -> None:
    whole, x = dynaconv.DynamicConv2d(3, 4, 3), torch.randn(2, 3, 5, 5)
    with torch.device("meta"):
        empty = dynaconv.DynamicConv2d(3, 4, 3)
    empty.load_state_dict(whole.state_dict(), assign=True)
    assert torch.equal(empty(x), whole(x))


@pytest.mark.parametrize(
    ("name", "value"),
    [("stride", (1, 1)), ("padding", (2, 2)), ("dilation", (2, 2)), ("padding_mode", "reflect")],
)
def test_an_attribute_assigned_later_is_obeyed_as_in_torch(name: str, value: Any) -> None:
    ours, theirs = dynaconv.DynamicConv2d(4, 4, 3, 2, 1, experts=1), nn.Conv2d(4, 4, 3, 2, 1)
    for layer in (ours, theirs):
        setattr(layer, name, value)
        assert getattr(layer, name) == value
    # torch pads by amounts that it wrote down at construction; a layer that is made so has the same ones.
    made = nn.Conv2d(4, 4, 3, **{"stride": 2, "padding": 1, name: value})
    with torch.no_grad():
        made.weight.copy_(ours.weight[0])
        made.bias.copy_(ours.bias[0])
    x = torch.randn(2, 4, 9, 9)
    assert_close(ours(x, torch.ones(2, 1)), made(x))
    assert ours(x).shape == theirs(x).shape


def test_an_impossible_value_assigned_later_is_refused() -> None:
    layer = dynaconv.DynamicConv2d(4, 4, 3)
    with pytest.raises(ValueError, match="stride is 0; expected"):
        layer.stride = 0
    layer.groups = 2
    with pytest.raises(ValueError, match="input has shape"):
        layer(torch.randn(2, 4, 9, 9))
