"""Peak activation memory: by hand, and against what PyTorch's allocator really gives out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from counting.networks import PlainDynamic, Residual
from dynaconv.counting import cost


def peak(model: nn.Module, size: tuple[int, ...]) -> int:
    return cost(model, size).peak_activation_bytes


def test_a_chain_holds_the_input_and_two_neighbours() -> None:
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in ((10, 30), (30, 50), (50, 20), (20, 60))))
    # The caller holds the input; while layer i runs, its own input and output live: 10 + 30 + 50 is the most,
    # as 10 + 50 + 20 and 10 + 20 + 60 are not more.
    assert peak(model, (10,)) == 4 * (10 + 30 + 50)


def test_a_residual_lives_until_it_is_added() -> None:
    # Input, its residual (the same storage), the convolution's output, the sum.
    assert peak(Residual(3), (3, 8, 8)) == 4 * 3 * 64 * 3
    chain = nn.Sequential(nn.Conv2d(3, 5, 1), Residual(5))
    assert peak(chain, (3, 8, 8)) == 4 * 64 * (3 + 5 + 5 + 5)


def test_views_and_in_place_results_take_nothing() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU())
    assert peak(plain, (3, 8, 8)) == 4 * 64 * (3 + 5 + 5)
    in_place = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Unflatten(1, (5, 8, 8)))
    assert peak(in_place, (3, 8, 8)) == 4 * 64 * (3 + 5)


def test_bytes_follow_the_type() -> None:
    model = nn.Linear(10, 30)
    assert [peak(model.to(dtype), (10,)) for dtype in (torch.float64, torch.float32, torch.bfloat16)] == [320, 160, 80]


def test_weights_and_views_of_them_are_no_activations() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 1000))
            self.register_buffer("table", torch.randn(1000, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t()[:4] + self.table[:4].t()[:1]

    assert peak(Tied(), (4,)) == 4 * (4 + 4 + 4)


def test_a_dynamic_layer_holds_one_mixed_kernel_whatever_its_strategy_does() -> None:
    class Even(nn.Module):
        is_router = True

        def forward(self, x: Tensor) -> Tensor:
            return x.new_full((1, 4), 0.25)

    for strategy in ("mixed", "branches"):
        layer = PlainDynamic(Even(), 6, 8, 3, 3, strategy=strategy)
        assert peak(layer, (8, 7, 7)) == 4 * (8 * 49 + 6 * 49 + 6 * 8 * 9)
        # Gone again when the layer is done: the next one is larger than the kernel.
        assert peak(nn.Sequential(layer, nn.Conv2d(6, 20, 1)), (8, 7, 7)) == 4 * 49 * (8 + 6 + 20)


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")  # PyTorch 2.11
def test_as_pytorchs_allocator_sees_it() -> None:
    """Networks whose kernels take no workspace on the CPU: equal to the byte."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.qkv, self.out = nn.LayerNorm(64), nn.Linear(64, 192), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 32)).permute(2, 0, 3, 1, 4).contiguous()
            return x + self.out((q @ k.mT).softmax(-1).matmul(v).transpose(1, 2).flatten(2))

    perceptron = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    model = nn.Sequential(Attention(), perceptron, Attention(), nn.SiLU()).eval()
    x = torch.randn(1, 50, 64)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        model(x)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    assert most > 0
    assert peak(model, (50, 64)) == most + x.nbytes
