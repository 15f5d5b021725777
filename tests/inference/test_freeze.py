"""A frozen network computes what its network computes; what is folded is gone; what cannot be folded stays."""

from __future__ import annotations

import copy
import io
import threading
import warnings
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

import dynaconv
import dynaconv.models
from dynaconv.inference import FrozenLayer, freeze
from dynaconv.inference.bank import lay_out, reduce_bank
from dynaconv.inference.comparison import compare
from dynaconv.inference.rounding import check_rounding
from dynaconv.inference.router import FrozenRouter
from tolerances import assert_close

SIZE = 64


def trained(network: nn.Module) -> nn.Module:
    """Statistics, scales and shifts that are not all zero and one, as after training."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return network.eval()


def zoo(name: str) -> nn.Module:
    return trained(timm.create_model(name, num_classes=10))


def picture(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, SIZE, SIZE)


def norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if "BatchNorm" in type(module).__name__]


@pytest.fixture(scope="module")
def mobile() -> nn.Module:
    torch.manual_seed(0)
    return zoo("dy_mobilenetv2_035")


@pytest.fixture(scope="module")
def frozen_mobile(mobile: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return freeze(mobile, examples=picture())


@pytest.mark.parametrize("name", ["dy_mobilenetv2_035", "condconv_efficientnet_b0", "dy_resnet10", "mobilenetv2_035"])
def test_outputs_are_equal_and_every_norm_is_folded(name: str) -> None:
    network = zoo(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    frozen = freeze(network, examples=picture())
    for batch in (1, 3):
        x = picture(batch)
        for layout in (torch.contiguous_format, torch.channels_last):
            with torch.no_grad():
                y = network(x)
                # Rounding is relative to the largest value that met in a sum, not to each output.
                scale = max(1.0, y.abs().max().item())
                assert_close(frozen(x.to(memory_format=layout)), y, scale=scale)
    assert norms(frozen) == []
    dynamic = sum(isinstance(module, dynaconv.layers.DynamicLayer) for module in network.modules())
    assert sum(isinstance(module, FrozenLayer) for module in frozen.modules()) == dynamic
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_float64_leaves_no_room_for_a_wrong_fold(mobile: nn.Module) -> None:
    network = copy.deepcopy(mobile).double()
    x = picture().double()
    with torch.no_grad():
        assert_close(freeze(network, examples=x)(x), network(x))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Dynamic", "Cond"])
def test_layers_of_every_dimension_with_groups_biases_and_paddings(dims: int, kind: str) -> None:
    prefix = "Dynamic" if kind == "Dynamic" else "Cond"
    conv, norm = getattr(dynaconv, f"{prefix}Conv{dims}d"), getattr(nn, f"BatchNorm{dims}d")
    network = nn.Sequential(
        conv(4, 6, 3, padding=1, padding_mode="reflect", groups=2),
        norm(6),
        nn.ReLU(),
        conv(6, 6, 3, stride=2, padding="same", groups=6),
        norm(6),
        conv(6, 8, 1),
        norm(8),
        conv(8, 8, 2, bias=False, dilation=2),
    )
    x = torch.randn(3, 4, *(9,) * dims)
    network = trained(network).double()
    dynaconv.set_temperature(network, 3.0)
    frozen = freeze(network, examples=x.double())
    assert norms(frozen) == []
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4, *(9,) * dims, dtype=torch.float64)
        assert_close(frozen(x), network(x))
    assert_close(frozen(x[0]), network[7](network[:7](x[:1]))[0])


def test_temperature_stands_in_the_last_layer() -> None:
    network = nn.Sequential(dynaconv.DynamicConv2d(4, 4, 1), nn.ReLU())
    dynaconv.set_temperature(network, 7.0)
    frozen = freeze(network, input_size=(4, 5, 5))
    router = frozen[0].router
    assert isinstance(router, FrozenRouter)
    assert_close(router.fc_weight * 7.0, network[0].router.fc.weight.detach())
    x = torch.randn(2, 4, 5, 5)
    assert_close(router(x), network[0].router(x))


def test_linear_layers_and_a_norm_that_reads_other_channels() -> None:
    """Over (B, L, C) batch norm normalises L, which is not the linear layer's output: it must stay."""
    network = trained(
        nn.Sequential(dynaconv.DynamicLinear(6, 5), nn.BatchNorm1d(7), nn.Linear(5, 7), nn.BatchNorm1d(7))
    )
    x = torch.randn(3, 7, 6)
    frozen = freeze(network, examples=x)
    assert norms(frozen) == ["1", "3"]
    assert_close(frozen(x), network(x))
    flat = trained(nn.Sequential(dynaconv.CondLinear(6, 5), nn.BatchNorm1d(5)))
    frozen = freeze(flat, examples=x[:, 0])
    assert norms(frozen) == []
    assert_close(frozen(x[:, 0]), flat(x[:, 0]))


class _Tangled(nn.Module):
    """A convolution whose output is also read before its norm, one that runs twice, and one that fits."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.twice, self.fine = (dynaconv.DynamicConv2d(3, 3, 3, padding=1) for _ in range(3))
        self.after_read, self.after_twice, self.after_fine = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.read(x)
        x = self.after_read(y) + y
        x = self.after_twice(self.twice(self.twice(x)))
        return self.after_fine(self.fine(x))


def test_folds_only_where_nothing_else_reads_the_convolution() -> None:
    network = trained(_Tangled())
    x = torch.randn(2, 3, 8, 8)
    frozen = freeze(network, examples=x)
    assert norms(frozen) == ["after_read", "after_twice"]
    assert frozen.freeze_report.norms == {"after_fine": "fine"}
    assert_close(frozen(x), network(x))


def test_an_activation_inside_the_norm_stays() -> None:
    network = trained(nn.Sequential(nn.Conv2d(3, 4, 3), timm.layers.BatchNormAct2d(4, act_layer=nn.SiLU)))
    x = torch.randn(2, 3, 8, 8)
    frozen = freeze(network, examples=x)
    assert frozen.freeze_report.norms == {"1": "0"}
    assert_close(frozen(x), network(x))


class _ReadsItsLayer(nn.Module):
    """Computes with a parameter behind the layer's back: freezing it would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.conv.weight.abs().sum()


def test_raises_instead_of_answering_a_network_that_computes_something_else() -> None:
    with pytest.raises(RuntimeError, match="freezing would change the outputs"):
        freeze(trained(_ReadsItsLayer()), input_size=(3, 8, 8))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (dynaconv.DynamicConv2d(8, 12, 3), (4, 8, 6, 6)),
        (dynaconv.DynamicConv2d(8, 12, 1), (4, 8, 6, 6)),
        (dynaconv.DynamicConv2d(8, 12, 3, groups=2), (4, 8, 6, 6)),
        (dynaconv.DynamicLinear(8, 12), (4, 5, 8)),
    ],
    ids=["3x3", "1x1", "groups", "linear"],
)
def test_a_trained_adapter_is_added_in_place_to_a_frozen_layer(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with torch.no_grad():
        y = freeze(layer, examples=x)(x)
    adapter = torch.ones_like(y, requires_grad=True)
    expected = y + adapter
    y += adapter
    assert torch.equal(y, expected)


class _Amplifies(nn.Module):
    """Turns rounding into differences of a few percent: nothing in it is wrong for freezing."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(3e5 * self.inside(x))


def test_a_network_that_amplifies_rounding_is_frozen_and_the_report_says_so() -> None:
    """As a fresh CondConv MobileNetV2 does: its activations have no statistics yet, and its routers are steep."""
    layers = nn.Sequential(dynaconv.DynamicConv2d(3, 4, 3), nn.BatchNorm2d(4))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        network = trained(_Amplifies(layers))
        exact = copy.deepcopy(network).double()(x.double())
        frozen = freeze(network, examples=x)
        error = (frozen(x) - exact).abs().max()
        own = (network(x) - exact).abs().max()
    assert frozen.freeze_report.layers == ("inside.0",)
    assert frozen.freeze_report.error > 1e-3
    assert frozen.freeze_report.own_error == pytest.approx((own / exact.abs().max()).item(), rel=1e-3)
    assert error <= 4 * own
    assert "the network's own rounding" in str(frozen.freeze_report)
    assert freeze(trained(layers), examples=x).freeze_report.own_error is None


@pytest.mark.parametrize("seed", [7, 18])
def test_fresh_condconv_networks_are_frozen(seed: int) -> None:
    """Their rounding is amplified a million times, in float64 too, and one rounding may be far smaller than another."""
    torch.manual_seed(seed)
    network = timm.create_model("condconv_mobilenetv2_050", num_classes=10)
    report = freeze(network, examples=torch.randn(1, 3, 32, 32)).freeze_report
    assert len(report.layers) == 50
    assert report.own_error is None or report.own_error < 2


def _judge(fold: Callable[[nn.Module], nn.Module], off: float) -> float | None:
    """What is said of a frozen network whose outputs are ``off`` from those of a network that amplifies rounding."""
    network = trained(_Amplifies(nn.Conv2d(3, 4, 1)))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = network(x)
        actual = expected + off
        return check_rounding(compare(expected, actual), expected, actual, network, x, fold)


def test_an_infinite_output_excuses_nothing() -> None:
    network = trained(_Amplifies(nn.Conv2d(3, 4, 1)))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = network(x)
    expected[0, 0, 0, 0] = torch.inf
    actual = torch.full_like(expected, torch.nan)
    with pytest.raises(RuntimeError, match=r"the network's own inf"):
        check_rounding(compare(expected, actual), expected, actual, network, x, lambda network: network)


def _scaled(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        parameter.data.mul_(1 + 1e-7)
    return network


def test_each_of_the_two_conditions_is_needed() -> None:
    """Nothing changed in float64, and about as near to it as the network itself."""
    own = _judge(lambda network: network, 5e-3)
    assert own is not None
    assert 1e-4 < own < 1
    with pytest.raises(RuntimeError, match=r"In float64 it changes nothing, but in torch.float32 .* network's own"):
        _judge(lambda network: network, 1.9)
    with pytest.raises(RuntimeError, match=r"In float64 it would change them by \d"):
        _judge(_scaled, 5e-3)


def test_a_wrong_fold_is_seen_in_a_network_that_amplifies_rounding() -> None:
    with pytest.raises(RuntimeError, match="freezing would change the outputs"):
        freeze(trained(_Amplifies(_ReadsItsLayer())), input_size=(3, 8, 8))


class _OnlySingle(_Amplifies):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ torch.ones(x.shape[-1], 1)


def test_a_network_for_one_precision_only_is_refused_where_it_amplifies_rounding() -> None:
    layers = nn.Sequential(dynaconv.DynamicConv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(RuntimeError, match=r"freezing would change the outputs.*It did not run in float64"):
        freeze(trained(_OnlySingle(layers)), input_size=(3, 8, 8))


def test_errors_say_what_to_do(mobile: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"bank_dtype is 'int'.*Did you mean 'int8'"):
        freeze(mobile, bank_dtype="int")
    with pytest.raises(ValueError, match=r"strategy is 'lop'. Did you mean 'loop'"):
        freeze(mobile, strategy="lop")
    with pytest.raises(ValueError, match=r"give input_size="):
        freeze(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module"):
        freeze("dy_mobilenetv2_035")  # type: ignore[arg-type]


@pytest.mark.parametrize(("bank_dtype", "share", "bound"), [("bfloat16", 0.5, 0.02), ("int8", 0.28, 0.05)])
def test_reduced_banks_are_small_near_and_told(mobile: nn.Module, bank_dtype: str, share: float, bound: float) -> None:
    x = picture(4)
    frozen = freeze(mobile, bank_dtype=bank_dtype, examples=x)
    full = sum(m.bank.numel() * 4 for m in frozen.modules() if isinstance(m, FrozenLayer))
    stored = sum(
        tensor.numel() * tensor.element_size()
        for m in frozen.modules()
        if isinstance(m, FrozenLayer)
        for tensor in (m.bank, m.scale)
        if tensor is not None
    )
    assert stored <= share * full
    with torch.no_grad():
        expected, actual = mobile(x), frozen(x)
    error = ((actual - expected).abs().max() / expected.abs().max()).item()
    report = frozen.freeze_report
    assert 0 < error < bound
    assert error == pytest.approx(report.error, rel=0.05)
    assert report.top1_agreement == (actual.argmax(1) == expected.argmax(1)).double().mean().item()
    assert "top-1 agreement" in str(report)


def test_int8_weights_are_off_by_half_a_scale_at_most() -> None:
    layer = nn.Sequential(dynaconv.DynamicConv2d(6, 5, 3, bias=False))
    with torch.no_grad():
        layer[0].weight[1, 2] = 0.0
    made = freeze(layer, bank_dtype="int8", input_size=(6, 5, 5))[0]
    off = (made.bank * made.scale - lay_out(layer[0].weight, "panels")).abs()
    assert (off <= made.scale * 0.5001).all()


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 5e-4), (torch.bfloat16, 1e-3), (torch.float32, 2e-43)])
def test_int8_weights_keep_their_signs_where_scales_are_subnormal(dtype: torch.dtype, size: float) -> None:
    """A scale that is rounded down by more than 1/254 would make 128 steps of the largest weight, in int8 -128."""
    weights = torch.linspace(size / 2, size, 41).to(dtype).expand(2, 1, 41)
    bank = weights * torch.linspace(0.5, 1, 2 * 60).reshape(2, 60, 1).to(dtype)
    steps, scale = reduce_bank(bank, "int8", along=2)
    assert scale is not None
    assert (steps > 0).all()
    assert (steps * scale.double() - bank).abs().max() <= (size / 100 if size > 1e-30 else size / 2)


def test_saves_loads_copies_and_is_a_plain_module(mobile: nn.Module, frozen_mobile: nn.Module) -> None:
    x = picture(1)
    expected = frozen_mobile(x)
    assert not any(parameter.requires_grad for parameter in frozen_mobile.parameters())
    file = io.BytesIO()
    torch.save(frozen_mobile, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), expected)
    assert torch.equal(copy.deepcopy(frozen_mobile)(x), expected)
    other = freeze(zoo("dy_mobilenetv2_035"), examples=picture())
    assert not torch.equal(other(x), expected)
    other.load_state_dict(frozen_mobile.state_dict())
    assert torch.equal(other(x), expected)


def test_gradients_flow_to_the_input(mobile: nn.Module, frozen_mobile: nn.Module) -> None:
    x = picture().requires_grad_()
    expected = torch.autograd.grad(mobile(x)[:, 3].sum(), x)[0]
    actual = torch.autograd.grad(frozen_mobile(x)[:, 3].sum(), x)[0]
    assert_close(actual, expected, scale=max(1.0, expected.abs().max().item()))


def test_threads_do_not_meet(frozen_mobile: nn.Module) -> None:
    inputs = [picture(1) for _ in range(4)]
    expected = [frozen_mobile(x) for x in inputs]
    outputs: dict[int, list[Tensor]] = {}

    def work(index: int) -> None:
        outputs[index] = [frozen_mobile(inputs[index]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, ys in outputs.items():
        assert all(torch.equal(y, expected[index]) for y in ys)


@pytest.mark.parametrize("strategy", ["loop", "grouped", "unfold", "reference"])
def test_a_fixed_strategy_computes_the_same_in_every_layout(mobile: nn.Module, strategy: str) -> None:
    x = picture(3)
    frozen = freeze(mobile, strategy=strategy, examples=x)
    assert {module.strategy for module in frozen.modules() if isinstance(module, FrozenLayer)} == {strategy}
    with torch.no_grad():
        expected = mobile(x)
        for layout in (torch.contiguous_format, torch.channels_last):
            assert_close(frozen(x.to(memory_format=layout)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dy_mobilenetv2_035", "condconv_efficientnet_b0"])
def test_exports_with_a_free_batch(name: str) -> None:
    network = zoo(name)
    x = picture(3)
    frozen = freeze(network, examples=x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's own deprecations
        program = torch.export.export(frozen, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (1, 2, 5):
        x = picture(batch)
        with torch.no_grad():
            y = network(x)
            assert_close(program.module()(x), y, scale=max(1.0, y.abs().max().item()))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bank_dtype", [None, "int8"])
def test_compiles(bank_dtype: str | None) -> None:
    network = trained(
        nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            dynaconv.DynamicConv2d(8, 16, 1),
            nn.BatchNorm2d(16),
            dynaconv.CondConv2d(16, 16, 3, groups=16),
        )
    )
    x = torch.randn(2, 3, 12, 12)
    eager = freeze(network, bank_dtype=bank_dtype, examples=x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = freeze(network, bank_dtype=bank_dtype, examples=x, compile=True)
        for batch in (1, 2):
            with torch.no_grad():
                assert_close(compiled(x[:batch]), eager(x[:batch]))


def test_a_default_device_does_not_matter() -> None:
    network = nn.Sequential(dynaconv.DynamicConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)).eval()
    with torch.device("meta"):
        frozen = dynaconv.freeze(network, input_size=(8, 6, 6))
    x = torch.randn(2, 8, 6, 6)
    assert_close(frozen(x), network(x))
