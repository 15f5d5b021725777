"""Scopes: one routing per pass for all layers of a block, seen by nobody else, and gone afterwards."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import Tensor, nn

from dynaconv import DynamicConv2d, SigmoidRouter, SoftmaxRouter, share_router
from dynaconv.routing import Scope, ScopedRouter
from dynaconv.routing import scope as scope_file
from tolerances import assert_close

EXPERTS = 3


class Counting(SigmoidRouter):
    """Counts its calls."""

    calls = 0

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().forward(x, previous)


class Block(nn.Module):
    """Convolutions that share one router."""

    def __init__(self, previous: int = 0, name: str = "block", after: Scope | None = None, until: bool = True) -> None:
        super().__init__()
        self.scope = Scope("not shared yet")
        if until:
            self.scope = share_router(self, Counting(4, EXPERTS, previous_experts=previous), name=name, after=after)
        self.build()

    def build(self) -> None:
        self.layers = nn.Sequential(
            *(DynamicConv2d(4, 4, 3, padding=1, experts=EXPERTS, router=self.view()) for _ in range(3))
        )

    def view(self) -> ScopedRouter:
        return ScopedRouter(self.scope, 4, EXPERTS)

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        y = self.layers(x)
        if fail:
            raise ArithmeticError("on purpose")
        return y


def by_hand(block: Block, x: Tensor, routing: Tensor) -> Tensor:
    for layer in block.layers:
        x = layer(x, routing)
    return x


@pytest.fixture(autouse=True)
def nothing_is_left() -> object:
    """After every test here, whatever went wrong in it, no routing weights are left behind.

    A test elsewhere may leave some: a network that is run in part, and whose last reader therefore never runs, keeps
    its routing until it is run again.
    """
    scope_file._TABLE.routing.clear()
    yield
    assert not scope_file._TABLE.routing


def test_the_router_runs_once_on_the_blocks_input() -> None:
    block, x = Block(), torch.randn(2, 4, 6, 6)
    y = block(x)
    assert block.router.calls == 1
    assert_close(y, by_hand(block, x, block.router(x)))


def test_gradients_of_all_layers_reach_the_one_router() -> None:
    block, x = Block(), torch.randn(2, 4, 6, 6)
    ours = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    theirs = torch.autograd.grad(by_hand(block, x, block.router(x)).square().sum(), list(block.parameters()))
    for actual, wanted in zip(ours, theirs, strict=True):
        assert_close(actual, wanted, scale=max(1.0, wanted.abs().max().item()))
    assert all(gradient.any() for gradient in ours)


def test_the_input_may_come_by_name() -> None:
    block, x = Block(), torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x=x), block(x))


def test_outside_its_block_a_layer_says_what_to_do() -> None:
    block, x = Block(name="layer3.0"), torch.randn(2, 4, 6, 6)
    said = "shares the router of 'layer3.0', which is not running; call that block, or pass routing weights"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=said):
            block.layers[0](x)
        block(x)  # a pass leaves nothing that the layer could use
    block.layers[0](x, torch.rand(2, EXPERTS))


def test_an_exception_inside_leaves_nothing_behind() -> None:
    block, x = Block(), torch.randn(2, 4, 6, 6)
    with pytest.raises(ArithmeticError):
        block(x, fail=True)
    assert not scope_file._TABLE.routing
    with pytest.raises(RuntimeError, match="is not running"):
        block.layers[0](x)
    with pytest.raises(ValueError, match="router got input of shape"):
        block(torch.randn(2, 5, 6, 6))
    assert not scope_file._TABLE.routing
    assert_close(block(x), by_hand(block, x, block.router(x)))


def test_other_inputs_than_one_tensor_are_named() -> None:
    block = Block(name="layer3.0")
    with pytest.raises(TypeError, match=r"'layer3.0' shares one router and got list as its input; expected one tensor"):
        block([torch.randn(2, 4, 6, 6)])
    with pytest.raises(TypeError, match="got NoneType"):
        block()


def test_the_name_router_must_be_free() -> None:
    block = Block(name="stem")
    with pytest.raises(ValueError, match="'stem' has an attribute 'router' already"):
        share_router(block, SigmoidRouter(4, 2), name="stem")


def test_a_router_of_another_number_of_experts_is_refused_by_the_layer() -> None:
    with pytest.raises(ValueError, match="router returns 3 routing weights and the layer has 5 experts"):
        DynamicConv2d(4, 4, 3, experts=5, router=ScopedRouter(Scope("s"), 4, 3))


class Hierarchical(nn.Module):
    """Two blocks; the second one's router reads the first one's routing, which the whole network keeps."""

    def __init__(self, until: bool = True) -> None:
        super().__init__()
        self.first = Block(until=False)
        whole = self if until else None
        self.first.scope = share_router(self.first, Counting(4, EXPERTS), name="first", until=whole)
        self.first.build()
        self.second = Block(previous=EXPERTS, name="second", after=self.first.scope)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_hierarchical_routing_reads_the_scope_before() -> None:
    model, x = Hierarchical(), torch.randn(2, 4, 6, 6)
    first = model.first.router(x)
    between = by_hand(model.first, x, first)
    expected = by_hand(model.second, between, model.second.router(between, first))
    assert_close(model(x), expected)
    with pytest.raises(RuntimeError, match="'second' needs the routing weights of 'first', which is not running"):
        model.second(x)


def test_hierarchical_routing_needs_until() -> None:
    with pytest.raises(RuntimeError, match="'second' needs the routing weights of 'first'"):
        Hierarchical(until=False)(torch.randn(2, 4, 6, 6))


def test_an_exception_between_hierarchical_scopes_leaves_nothing_behind() -> None:
    model = Hierarchical()
    model.second.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(torch.randn(2, 4, 6, 6))
    assert not scope_file._TABLE.routing


def test_one_router_for_several_blocks() -> None:
    first, second = Block(until=False), Block(until=False)
    whole = nn.Sequential(first, second)
    first.scope = second.scope = share_router(first, Counting(4, EXPERTS), until=whole)
    first.build()
    second.build()
    x = torch.randn(2, 4, 6, 6)
    routing = first.router(x)
    assert_close(whole(x), by_hand(second, by_hand(first, x, routing), routing))
    with pytest.raises(RuntimeError, match="is not running"):
        second(x)


class Around(nn.Module):
    """A block inside a scope of its own, then one more layer of the outer scope."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Block(name="inner")
        scope = share_router(self, SoftmaxRouter(4, EXPERTS), name="outer")
        self.last = DynamicConv2d(4, 4, 1, experts=EXPERTS, router=ScopedRouter(scope, 4, EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x))


def test_scopes_may_be_nested() -> None:
    model, x = Around(), torch.randn(2, 4, 6, 6)
    inner = by_hand(model.inner, x, model.inner.router(x))
    assert_close(model(x), model.last(inner, model.router(x)))


def test_a_sequential_is_refused_because_it_would_run_the_router_as_a_layer() -> None:
    with pytest.raises(TypeError, match="'stage' is a Sequential, which would run its child 'router'"):
        share_router(nn.Sequential(nn.Conv2d(4, 4, 1)), SigmoidRouter(4, 2), name="stage")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_scopes_of_their_own(duplicate) -> None:  # type: ignore[no-untyped-def]
    for model in (Block(), Hierarchical()):
        x = torch.randn(2, 4, 6, 6)
        twin = duplicate(model)
        assert torch.equal(twin(x), model(x))
        ours = {module.scope for module in model.modules() if isinstance(module, ScopedRouter)}
        theirs = {module.scope for module in twin.modules() if isinstance(module, ScopedRouter)}
        assert not ours & theirs
        assert len(ours) == len(theirs)


def test_threads_that_meet_inside_one_block_keep_their_own_routing() -> None:
    """Both threads stand inside the block at the same time, each with its own input."""
    model, barrier = Block(), threading.Barrier(2, timeout=400)
    model.layers[1].register_forward_pre_hook(lambda *_: (barrier.wait(), None)[1])
    inputs = [torch.randn(2, 4, 6, 6), 3 * torch.randn(5, 4, 6, 6)]
    outputs: dict[int, Tensor] = {}

    def work(index: int) -> None:
        for _ in range(10):
            outputs[index] = model(inputs[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.layers[1]._forward_pre_hooks.clear()
    for index, x in enumerate(inputs):
        assert torch.equal(outputs[index], model(x))


def test_a_scope_has_no_parameters_and_leaves_the_names_of_others_alone() -> None:
    names = set(Block().state_dict())
    assert names == {f"layers.{i}.{leaf}" for i in range(3) for leaf in ("weight", "bias")} | {
        "router.fc.weight",
        "router.fc.bias",
    }
