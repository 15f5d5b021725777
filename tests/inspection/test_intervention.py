"""Interventions: what the layers compute under each, where they act, and that nothing is left behind."""

from __future__ import annotations

import threading

import pytest
import torch
from torch.nn import functional as F

import dynaconv
from dynaconv.inspection.intervention import INTERVENTIONS, average, maximum, other_images, shuffle_experts
from dynaconv.layers import DynamicConv2d
from dynaconv.torch_private import hooks_of
from inspection.nets import FirstPixels, Net, images


@pytest.fixture
def layer() -> DynamicConv2d:
    torch.manual_seed(0)
    made = DynamicConv2d(3, 5, 3, experts=4, router=lambda c, k: dynaconv.SoftmaxRouter(c, k, temperature=0.05))
    return made.eval()


def test_average_is_the_convolution_with_the_average_kernel(layer: DynamicConv2d) -> None:
    x = images(6)
    with torch.no_grad(), dynaconv.intervene(layer, "average") as routers:
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight.mean(0), layer.bias.mean(0)))
    assert routers == 1


def test_max_is_the_convolution_with_the_favourite_kernel(layer: DynamicConv2d) -> None:
    x = images(6)
    with torch.no_grad():
        favourites = layer.router(x).argmax(1)
        with dynaconv.intervene(layer, "max"):
            found = layer(x)
        for image, expert in enumerate(favourites):
            expected = F.conv2d(x[image : image + 1], layer.weight[expert], layer.bias[expert])
            torch.testing.assert_close(found[image : image + 1], expected)


def test_shuffle_across_images_takes_the_kernel_of_another_image() -> None:
    x, layer = images(6), DynamicConv2d(3, 5, 3, experts=4, router=FirstPixels)
    with torch.no_grad():
        own = layer.router(x)
        with dynaconv.intervene(layer, "shuffle_images"), dynaconv.record_routing(layer) as recorder:
            layer(x)
    used = recorder.weights["network"]
    assert not any(torch.equal(used[image], own[image]) for image in range(6))
    assert sorted(map(tuple, used.tolist())) == sorted(map(tuple, own.tolist()))


def test_all_layers_of_a_pass_take_the_weights_of_the_same_other_image() -> None:
    x = images(7)
    first = DynamicConv2d(3, 3, 1, experts=3, router=FirstPixels)
    first.weight.data[:] = torch.eye(3)[None, :, :, None, None] / 3  # every image stays what it was, up to a factor
    first.bias.data.zero_()
    second = DynamicConv2d(3, 3, 1, experts=3, router=FirstPixels)
    net = torch.nn.Sequential(first, second)

    def others(weights: torch.Tensor, own: torch.Tensor) -> list[int]:
        own, weights = F.normalize(own), F.normalize(weights)
        return [int((own @ row).argmax()) for row in weights]

    with torch.no_grad(), dynaconv.intervene(net, "shuffle_images", seed=3), dynaconv.record_routing(net) as recorder:
        net(x)
        one = others(recorder.last["0"], x[:, 0, 0, :3])
        assert one == others(recorder.last["1"], x[:, 0, 0, :3])
        net(x)
        assert one != others(recorder.last["0"], x[:, 0, 0, :3])  # drawn anew for every pass
    assert sorted(one) == list(range(7))
    assert all(place != other for place, other in enumerate(one))


def test_the_functions() -> None:
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    weights = torch.rand(200, 5)
    assert torch.allclose(average(weights).sum(1), weights.sum(1))
    assert (average(weights).std(1) < 1e-6).all()
    chosen = maximum(weights)
    assert torch.equal(chosen.argmax(1), weights.argmax(1))
    assert ((chosen > 0).sum(1) == 1).all()
    moved = shuffle_experts(weights, draw)
    assert torch.equal(moved.sort(1).values, weights.sort(1).values)
    assert (moved != weights).all()  # j != k, for every expert of every image
    assert len({tuple(row) for row in moved.argsort(1).argsort(1).tolist()}) > 20  # not one permutation for all
    for batch in (2, 3, 50):
        order = other_images(batch, draw)
        assert sorted(order.tolist()) == list(range(batch))
        assert (order != torch.arange(batch)).all()
    assert torch.equal(shuffle_experts(torch.ones(3, 1), draw), torch.ones(3, 1))


def test_only_where_it_is_asked_for() -> None:
    net = torch.nn.Sequential(
        DynamicConv2d(3, 3, 2, stride=2, experts=2, router=FirstPixels),
        DynamicConv2d(3, 3, 2, stride=2, experts=2, router=FirstPixels),
        DynamicConv2d(3, 3, 2, experts=2, router=FirstPixels),
    )
    x = images(3)

    def changed(**where: object) -> list[bool]:
        with (
            torch.no_grad(),
            dynaconv.intervene(net, lambda routing: routing + 7, **where),  # type: ignore[arg-type]
            dynaconv.record_routing(net) as recorder,
        ):
            net(x * 0)
        return [bool((weights > 6).all()) for weights in recorder.weights.values()]

    with torch.no_grad(), dynaconv.record_routing(net) as plain:
        net(x)
    assert [router.resolution for router in plain.routers] == [(8, 8), (4, 4), (2, 2)]
    assert changed(layers="1")[:2] == [False, True]
    assert changed(resolutions=[8])[0] is True
    assert changed(resolutions=[(4, 4)])[0] is False
    assert changed() == [True, True, True]


@pytest.mark.parametrize("how", sorted(INTERVENTIONS))
def test_nothing_is_left_behind_after_an_error(how: str) -> None:
    net, x = Net().eval(), images(4)
    before = [hooks_of(module) for module in net.modules()]
    with torch.no_grad():
        expected = net(x)

        def fail() -> None:
            with dynaconv.intervene(net, how):
                assert not torch.equal(net(x), expected)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.equal(net(x), expected)
    assert [hooks_of(module) for module in net.modules()] == before


def test_a_frozen_and_a_compiled_network_are_changed_alike() -> None:
    torch.manual_seed(0)
    net = dynaconv.dynamize(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3)), noise=0.5
    ).eval()
    x = images(2)
    with torch.no_grad(), dynaconv.intervene(net, "max"):
        expected = net(x)
    for other in (dynaconv.freeze(net, input_size=(3, 8, 8)), torch.compile(net, backend="eager")):
        with torch.no_grad():
            other(x)
            with dynaconv.intervene(other, "max"):
                torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5)


def test_another_thread_is_not_affected(layer: DynamicConv2d) -> None:
    x = images(4)
    found = []
    with torch.no_grad():
        expected = layer(x)

    def run() -> None:
        with torch.no_grad():
            found.append(layer(x))

    with dynaconv.intervene(layer, "max"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


def test_mistakes(layer: DynamicConv2d) -> None:
    with pytest.raises(ValueError, match=r"how is 'avrage'. Did you mean 'average'"):
        dynaconv.intervene(layer, "avrage").__enter__()
    with pytest.raises(ValueError, match="no router is called 'blocks'"):
        dynaconv.intervene(Net(), "max", layers="blocks").__enter__()
    with pytest.raises(ValueError, match="no dynamic layer"):
        dynaconv.intervene(torch.nn.ReLU(), "max").__enter__()
    with pytest.raises(ValueError, match="two images"), dynaconv.intervene(layer, "shuffle_images"):
        layer(images(1))
    with pytest.raises(ValueError, match="the intervention returned"), dynaconv.intervene(layer, lambda w: w[:1]):
        layer(images(2))
