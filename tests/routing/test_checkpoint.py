"""A checkpointed part of a block whose layers share a router: right gradients, whatever ran in between, or refused."""

from __future__ import annotations

import copy
import gc
import threading

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import dynaconv
from dynaconv.routing import ScopedRouter
from dynaconv.routing import scope as scope_file
from tolerances import assert_close


class Block(nn.Module):
    """Checkpoints what stands between its first layer and its last, in one of several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.way = "none"
        self.first, self.second, self.last = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def middle(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))).sin()

    def nested(self, x: Tensor) -> Tensor:
        return checkpoint(self.middle, x, use_reentrant=False).exp()

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "none":
            y = self.middle(x)
        else:
            part = self.nested if self.way == "nested" else self.middle
            y = checkpoint(part, x, use_reentrant=self.way == "reentrant")
        return x + self.last(y)


class Network(nn.Module):
    def __init__(self, around: bool = False) -> None:
        super().__init__()
        self.around = around
        self.stem, self.block, self.other = nn.Conv2d(3, 4, 3), Block(), Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.other(checkpoint(self.block, x, use_reentrant=False) if self.around else self.block(x))

    def set_way(self, way: str) -> None:
        self.block.way = self.other.way = way


def twin(way: str, **options: bool) -> Network:
    made = dynaconv.dynamize(Network(**options), method="condconv", experts=3, input_size=(3, 8, 8))
    routers = [module for module in made.modules() if isinstance(module, ScopedRouter)]
    assert len(routers) == 6
    for module in made.modules():
        if isinstance(module, dynaconv.SigmoidRouter):
            nn.init.normal_(module.fc.weight)
    made.set_way(way)
    return made


def gradients(network: Network, x: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    network(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def assert_equal_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, wanted in theirs.items():
        assert_close(ours[name], wanted, scale=max(1.0, wanted.abs().max().item()) * 10, what=name)
        assert wanted.any()


@pytest.mark.parametrize("around", [False, True])  # whether the whole block is checkpointed as well
def test_gradients_are_those_without_checkpoints(around: bool) -> None:
    network, x = twin("none"), torch.randn(2, 3, 10, 10)
    wanted = gradients(network, x)
    network.set_way("part")
    network.around = around
    assert_equal_gradients(gradients(network, x), wanted)
    network.set_way("none")
    assert_equal_gradients(gradients(network, x), wanted)


def test_every_pass_is_run_again_with_its_own_routing() -> None:
    """Backward in another order than forward, batches of other sizes, another pass in between, and a copy."""
    network = twin("part")
    inputs = [torch.randn(size, 3, 10, 10) * scale for size, scale in ((2, 1), (2, 5), (3, 1))]
    wanted = [gradients(network, x) for x in inputs]
    losses = [network(x).square().sum() for x in inputs]
    copy.deepcopy(network)(inputs[0])
    for index in (1, 0, 2):
        network.zero_grad()
        with torch.no_grad():
            network(inputs[index - 1])
        losses[index].backward()
        found = {name: parameter.grad for name, parameter in network.named_parameters()}
        assert_equal_gradients(found, wanted[index])


def test_the_backward_pass_may_run_in_another_thread_beside_others() -> None:
    network = twin("part")
    inputs = [torch.randn(2, 3, 10, 10), 5 * torch.randn(4, 3, 10, 10)]
    wanted = [gradients(network, x) for x in inputs]
    names, parameters = zip(*network.named_parameters(), strict=True)
    losses = [network(x).square().sum() for x in inputs]
    found: dict[int, dict[str, Tensor]] = {}

    def work(index: int) -> None:
        found[index] = dict(zip(names, torch.autograd.grad(losses[index], parameters), strict=True))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        assert_equal_gradients(found[index], wanted[index])


def test_second_derivatives() -> None:
    network = twin("none").double()
    x = torch.randn(2, 3, 10, 10, dtype=torch.float64, requires_grad=True)

    def penalty() -> list[Tensor]:
        (first,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        return list(torch.autograd.grad(first.square().sum(), list(network.block.parameters()), allow_unused=True))

    wanted = penalty()
    network.set_way("part")
    for ours, theirs in zip(penalty(), wanted, strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            torch.testing.assert_close(ours, theirs)


def test_nothing_is_kept_when_the_graph_has_gone() -> None:
    gc.collect()
    before = len(scope_file._KEPT)
    loss = twin("part")(torch.randn(2, 3, 10, 10)).sum()
    assert len(scope_file._KEPT) == before + 2
    loss.backward()
    del loss
    gc.collect()
    assert len(scope_file._KEPT) == before


def test_the_reentrant_kind_is_refused_before_any_gradient() -> None:
    scope_file._TABLE.routing.clear()  # what tests of networks that run in part may have left
    network, x = twin("reentrant"), torch.randn(2, 3, 10, 10)
    with pytest.raises(RuntimeError, match=r"a part of 'block' is checkpointed with use_reentrant=True"):
        network(x)
    assert not scope_file._TABLE.routing
    with torch.no_grad(), pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
        network(x)
    layers = dynaconv.dynamize(Network(), share="layer", input_size=(3, 8, 8))
    layers.set_way("reentrant")
    layers(x).sum().backward()


def test_a_part_without_gradients_is_no_checkpoint() -> None:
    network, x = twin("none"), torch.randn(2, 3, 10, 10)
    middle = network.block.middle
    network.block.middle = torch.no_grad()(middle)
    network(x).sum().backward()


def test_nested_parts_say_what_is_possible() -> None:
    """The outer part runs the inner one again, whose layers then find no routing."""
    loss = twin("nested")(torch.randn(2, 3, 10, 10)).sum()
    with pytest.raises(RuntimeError, match=r"one level of activation checkpointing with use_reentrant=False"):
        loss.backward()
