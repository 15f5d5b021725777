"""What people do with modules: copy, save, compile, checkpoint, export, cast, thread, and train on odd batches."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dynaconv import DynamicConv2d, set_temperature
from dynaconv.ops import STRATEGIES
from layers.networks import SharedBlock, Small
from layers.twins import TWINS, Twin
from tolerances import assert_close

EACH = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
EACH_NETWORK = pytest.mark.parametrize("make", [Small, SharedBlock])


def image(make: Callable[[], nn.Module], batch: int = 3, size: int = 8) -> Tensor:
    return torch.randn(batch, 3 if make is Small else 8, size, size)


def gradients(model: nn.Module, y: Tensor) -> dict[str, Tensor]:
    names, values = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(y.square().sum(), values), strict=True))


def assert_same_gradients(actual: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert actual.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(actual[name], value, scale=max(1.0, value.abs().max().item()), what=name)


@EACH
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_trains_at_every_batch_size(twin: Twin, batch: int) -> None:
    for arguments in twin.arguments():
        layer, x = twin.ours(**arguments).train(), twin.input(batch).requires_grad_()
        y = layer(x)
        assert y.shape == twin.theirs(**arguments)(x).shape
        y.square().sum().backward()
        for name, value in (("x", x), *layer.named_parameters()):
            assert value.grad is not None, name
            assert torch.isfinite(value.grad).all(), name
            assert value.grad.any() or batch == 0 or name.startswith("router."), name


@EACH
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_compute_the_same_and_are_apart(twin: Twin, duplicate: Callable[[nn.Module], nn.Module]) -> None:
    layer, x = twin.ours(**twin.arguments()[0]), twin.input()
    twin_layer = duplicate(layer)
    before = layer(x)
    assert torch.equal(twin_layer(x), before)
    with torch.no_grad():
        twin_layer.weight.add_(1.0)
    assert torch.equal(layer(x), before)


@EACH_NETWORK
def test_a_state_dict_goes_round(make: Callable[[], nn.Module]) -> None:
    model, x = make(), image(make)
    set_temperature(model, 2.0)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    restored = make()
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored(x), model(x))


@EACH_NETWORK
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_gives_the_same_gradients(make: Callable[[], nn.Module], reentrant: bool) -> None:
    model, x = make(), image(make).requires_grad_()
    wanted = gradients(model, model(x))
    checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
    assert_same_gradients({name: value.grad for name, value in model.named_parameters()}, wanted)


def test_two_threads_run_one_network_each_with_its_own_routing() -> None:
    model = Small().eval()
    inputs = [image(Small, batch) * scale for batch, scale in ((2, 1.0), (3, 4.0))]
    wanted = [model(x).detach() for x in inputs]
    barrier, wrong = threading.Barrier(2, timeout=400), []
    # Both threads stand inside the shared block at once, in every round.
    handle = model.block.depthwise.register_forward_pre_hook(lambda *_: (barrier.wait(), None)[1])

    def work(index: int) -> None:
        same = [torch.allclose(model(inputs[index]), wanted[index], atol=1e-6) for _ in range(20)]
        wrong.extend([index] * same.count(False))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handle.remove()
    assert not barrier.broken
    assert not wrong


# Dynamo looks at the gradient of a block's routing weights, which are no leaf, and hides torch's warning about it from
# everybody but those who made warnings errors.
LOOKS_AT_GRADIENTS = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@LOOKS_AT_GRADIENTS
@EACH_NETWORK
def test_compiles_without_a_graph_break(make: Callable[[], nn.Module]) -> None:
    torch.compiler.reset()
    model, x = make(), image(make)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for batch in (x, x[:1], torch.cat([x, x])):
        y = compiled(batch)
        assert_close(y, model(batch))
        assert_same_gradients(gradients(model, y), gradients(model, model(batch)))
    set_temperature(model, 0.5)  # a compiled model must see the annealing
    assert_close(compiled(x), model(x))


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_every_strategy_compiles(strategy: str) -> None:
    torch.compiler.reset()
    layer, x = DynamicConv2d(4, 6, 1, groups=2, padding=1, strategy=strategy), torch.randn(1, 4, 5, 5)
    others = ("stencil", "tiled", "experts", "triton", "operator")  # for other devices, layouts, exporters
    if strategy in others:
        pytest.skip(f"{strategy} refuses this call")
    assert_close(torch.compile(layer, fullgraph=True, backend="eager")(x), layer(x))


@LOOKS_AT_GRADIENTS
@pytest.mark.slow
@EACH_NETWORK
def test_compiles_with_inductor(make: Callable[[], nn.Module]) -> None:
    torch.compiler.reset()
    model, x = make(), image(make)
    y = torch.compile(model, fullgraph=True)(x)
    assert_close(y, model(x))
    assert_same_gradients(gradients(model, y), gradients(model, model(x)))


@EACH_NETWORK
def test_autocast_runs_in_bfloat16_with_a_router_in_float32(make: Callable[[], nn.Module]) -> None:
    model, x = make(), image(make)
    routed: list[Tensor] = []
    for module in model.modules():
        if getattr(module, "is_router", False):
            module.register_forward_hook(lambda module, args, output: routed.append(output))
    wanted = model(x)
    routed.clear()
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert routed
    assert all(routing.dtype == torch.float32 for routing in routed)
    # Errors add up over the layers of the network.
    assert_close(y, wanted, dtype=torch.bfloat16, scale=max(1.0, wanted.abs().max().item()))
    values = gradients(model, y)
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in values.values())


@EACH_NETWORK
@pytest.mark.parametrize("batch", [1, 3])
def test_channels_last_input_and_model(make: Callable[[], nn.Module], batch: int) -> None:
    model, x = make(), image(make, batch)
    wanted = model(x)
    grads = gradients(model, wanted)
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    y = twin(x.to(memory_format=torch.channels_last))
    assert_close(y, wanted)
    assert_same_gradients(gradients(twin, y), grads)


@pytest.mark.parametrize("kernel", [1, 3, "depthwise"])
@pytest.mark.parametrize("shared", [False, True])
def test_exports_with_a_free_batch(kernel: int | str, shared: bool) -> None:
    if shared:
        model: nn.Module = SharedBlock()
    elif kernel == "depthwise":
        model = DynamicConv2d(8, 8, 3, padding=1, groups=8)
    else:
        model = DynamicConv2d(8, 6, kernel, stride=2)  # type: ignore[arg-type]
    model.eval()
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(model, (torch.randn(3, 8, 7, 7),), dynamic_shapes=({0: batch},)).module()
    for size in (1, 2, 5):
        x = torch.randn(size, 8, 7, 7)
        assert_close(exported(x), model(x))


@EACH
def test_exports_every_layer_with_a_free_batch(twin: Twin) -> None:
    layer = twin.ours(**twin.arguments()[2 if twin.dims else 0]).eval()
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(layer, (twin.input(3),), dynamic_shapes=({0: batch},)).module()
    for size in (1, 2, 5):
        x = twin.input(size)
        assert_close(exported(x), layer(x))


def test_checkpointing_inside_a_shared_block() -> None:
    """Recomputation of a part happens when the block is not running: it gets the weights that the block had."""

    class Inside(SharedBlock):
        recomputed = True

        def forward(self, x: Tensor) -> Tensor:
            wide = self.expand(x)
            part = checkpoint(self.depthwise, wide, use_reentrant=False) if self.recomputed else self.depthwise(wide)
            return x + self.project(part)

    block, x = Inside(), torch.randn(2, 8, 5, 5)
    plain = Inside()
    plain.load_state_dict(block.state_dict())
    plain.recomputed = False
    for network in (block, plain):
        network(x).sum().backward()
    for one, two in zip(block.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert_close(one.grad, two.grad)
