"""Measurements: paired, and memory against what can be counted by hand."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import Tensor, nn

from dynaconv import DynamicConv2d
from dynaconv.analysis.measure import FEWEST, ROUNDS, WARM_UP, as_served, measure, peak_step_bytes, time_in_turns
from dynaconv.analysis.measure import _Step as Step
from dynaconv.analysis.settings import RECIPE
from dynaconv.inference import FrozenLayer
from dynaconv.kernels import cpu
from dynaconv.tasks.classification import Classification, open_data
from dynaconv.train import TrainSettings
from dynaconv.train.accelerator import make_accelerator

CPU = TrainSettings(device="cpu", opt="momentum", lr=0.1, weight_decay=0.0)


def test_rounds_are_interleaved_and_ratios_are_to_the_first() -> None:
    calls: list[str] = []

    def quick() -> None:
        calls.append("quick")
        time.sleep(0.002)

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.05)  # far enough apart for a machine that does much else

    first, second = time_in_turns([quick, slow], torch.device("cpu"))
    assert calls[2 * WARM_UP :] == ["quick", "slow"] * first.rounds
    assert FEWEST <= first.rounds == second.rounds <= ROUNDS
    assert first.ratio == 1.0
    assert second.ratio > 1.5
    low, high = second.ratio_quartiles
    assert low <= second.ratio <= high
    assert second.seconds == pytest.approx(second.ratio * first.seconds)


def test_memory_of_a_linear_step_by_hand() -> None:
    """Weights, gradients and momentum, 1200 x 10 floats each; the batch and its copy; a few scalars."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 10, bias=False))
    weights = 3 * 20 * 20 * 10 * 4
    batch = (torch.randn(2, 3, 20, 20), torch.tensor([0, 1]))
    found = peak_step_bytes(
        Step(network, Classification(10, CPU), batch, CPU, make_accelerator(CPU)), torch.device("cpu")
    )
    images = batch[0].nbytes
    assert 3 * weights + 2 * images <= found <= 3 * weights + 2 * images + 1000


def test_memory_of_activations_grows_with_the_batch() -> None:
    def peak(images: int) -> int:
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 2))
        batch = (torch.randn(images, 3, 8, 8), torch.zeros(images, dtype=torch.int64))
        return peak_step_bytes(
            Step(network, Classification(2, CPU), batch, CPU, make_accelerator(CPU)), torch.device("cpu")
        )

    # one more image: itself, its copy, the convolution's and the activation's output at the least
    assert peak(65) - peak(64) >= (2 * 3 * 64 + 4 * 64) * 4


@pytest.mark.skipif(cpu.why_not() is not None, reason=f"no C kernels here: {cpu.why_not()}")
@pytest.mark.parametrize("side", [2, 9])
def test_a_dynamic_network_needs_no_more_than_its_parameters(side: int) -> None:
    """16 bytes for every further parameter: itself, its gradient and AdamW's moments. The strategies that run are those
    of training: a kernel for every example would be 64 times a kernel."""

    def peak(layer: nn.Module) -> tuple[int, int]:
        network = nn.Sequential(nn.Conv2d(3, 64, 1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        batch = (torch.randn(64, 3, side, side), torch.zeros(64, dtype=torch.int64))
        step = Step(network, Classification(64, RECIPE), batch, RECIPE, make_accelerator(RECIPE))
        return peak_step_bytes(step, torch.device("cpu")), sum(weight.numel() for weight in network.parameters())

    static, parameters = peak(nn.Conv2d(64, 64, 3, padding=1))
    dynamic, more = peak(DynamicConv2d(64, 64, 3, padding=1))
    assert dynamic <= 1.3 * (static + 16 * (more - parameters))


def test_measure_returns_times_of_every_network() -> None:
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, width), nn.Linear(width, 10)) for width in (4, 64)]
    small, large = measure(networks, open_data("digits", image_size=4, batch_size=8), CPU)
    assert small.step.ratio == small.latency.ratio == 1.0
    assert small.frozen
    assert large.frozen
    assert large.step_bytes > small.step_bytes
    assert min(small.step.seconds, large.latency.seconds) > 0


def test_latency_is_that_of_frozen_networks() -> None:
    """What a user pays who serves them: dynamic layers are frozen, and the static network's norm is folded too."""
    static = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    dynamic = nn.Sequential(DynamicConv2d(3, 8, 3), *copy.deepcopy(static[1:]))
    networks = [static, dynamic]
    for images in (torch.randn(1, 3, 8, 8), [torch.randn(3, 8, 8)]):
        served, frozen = as_served(networks, images)
        assert frozen
        assert [type(one[0]) for one in served] == [nn.Conv2d, FrozenLayer]
        assert [type(one[1]) for one in served] == [nn.Identity, nn.Identity]
    assert isinstance(static[1], nn.BatchNorm2d), "the networks that are trained stay as they are"


def test_frozen_networks_run_without_the_trainings_autocast() -> None:
    """As ``dynaconv serve`` runs them; under autocast a frozen layer leaves its kernel and is three times as dear."""
    seen: set[tuple[bool, bool]] = set()
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 10))
    network[1].register_forward_hook(lambda layer, *_: seen.add((layer.training, torch.is_autocast_enabled("cpu"))))
    settings = CPU.model_copy(update={"amp": "bf16"})
    (found,) = measure([network], open_data("digits", image_size=4, batch_size=8), settings)
    assert found.frozen
    assert seen == {(True, True), (False, False)}


def test_where_one_network_cannot_be_frozen_none_is(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "no tensor"

    networks = [nn.Conv2d(3, 8, 3), Odd()]
    served, frozen = as_served(networks, torch.randn(1, 3, 8, 8))
    assert served is networks
    assert not frozen
    assert "without freezing" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: reads the CUDA allocator")
def test_memory_on_cuda_is_the_allocators() -> None:
    settings = TrainSettings(opt="momentum", lr=0.1, weight_decay=0.0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 200 * 200, 100, bias=False))
    accelerator = make_accelerator(settings)
    batch = (torch.randn(2, 3, 200, 200, device="cuda"), torch.tensor([0, 1], device="cuda"))
    weights = 3 * 200 * 200 * 100 * 4
    found = peak_step_bytes(
        Step(network, Classification(100, settings), batch, settings, accelerator), accelerator.device
    )
    assert 3 * weights <= found <= 3.5 * weights
