"""The layout of maps is chosen where the settings leave it open, said, and kept with the run."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from dynaconv import DynamicConv2d, DynamicConv3d
from dynaconv.errors import UserError
from dynaconv.train import TrainSettings
from dynaconv.train.layout import faster_in_channels_last, with_layout
from dynaconv.train.optimizer import build_optimizer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def chosen(settings: TrainSettings, device: torch.device = CPU, model: nn.Module | None = None) -> bool | None:
    return with_layout(settings, device, model).channels_last


def test_a_cpu_runs_in_channels_last_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dynaconv"):
        assert chosen(TrainSettings()) is True
    assert "chosen: channels_last maps (faster on cpu; --no-channels-last for the other)" in caplog.text


@pytest.mark.parametrize("asked", [True, False])
def test_what_was_asked_for_is_obeyed(asked: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dynaconv"):
        assert chosen(TrainSettings(channels_last=asked), CUDA) is asked
    assert not caplog.text


@pytest.mark.parametrize(("amp", "expected"), [("no", False), ("bf16", True), ("fp16", True)])
def test_on_cuda_it_depends_on_the_precision(amp: str, expected: bool) -> None:
    assert faster_in_channels_last(CUDA, amp) is expected


def test_networks_over_volumes_stay_contiguous() -> None:
    assert chosen(TrainSettings(), CPU, nn.Sequential(nn.Conv3d(1, 2, 3))) is False
    assert chosen(TrainSettings(), CPU, nn.Sequential(DynamicConv3d(1, 2, 3))) is False
    has_a_bank_of_five_dimensions = DynamicConv2d(1, 2, 3)
    assert chosen(TrainSettings(), CPU, nn.Sequential(has_a_bank_of_five_dimensions)) is True


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_goes_on_as_it_began(kept: bool, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"settings": {"channels_last": kept}}}))
    assert with_layout(TrainSettings(), CPU, folder=tmp_path).channels_last is kept
    assert with_layout(TrainSettings(), CUDA, folder=tmp_path).channels_last is kept


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"recipe": {"settings": {"channels_last": None}}})])
def test_a_folder_that_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    assert with_layout(TrainSettings(), CPU, folder=tmp_path).channels_last is True


@pytest.mark.parametrize("opt", ["adamw", "adam", "sgd", "momentum"])
def test_optimizers_of_torch_are_fused_on_a_cpu_and_compute_the_same(opt: str) -> None:
    settings = TrainSettings(opt=opt, lr=0.1)
    networks = [nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    plain = settings.model_copy(update={"opt_args": {"foreach": False}})
    optimizers = [build_optimizer(network, one) for network, one in zip(networks, (settings, plain), strict=True)]
    assert [group["fused"] for group in optimizers[0].param_groups] == [True] * len(optimizers[0].param_groups)
    assert not any(group["fused"] for group in optimizers[1].param_groups)
    x = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    for _ in range(3):
        for network, optimizer in zip(networks, optimizers, strict=True):
            network(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_an_optimizer_of_timm_is_left_as_it_is() -> None:
    assert not any(
        group.get("fused") for group in build_optimizer(nn.Linear(2, 2), TrainSettings(opt="lamb")).param_groups
    )


def test_wrong_arguments_of_an_optimizer_are_a_users_mistake() -> None:
    with pytest.raises(UserError, match="does not take opt_args"):
        build_optimizer(nn.Linear(2, 2), TrainSettings(opt="adamw", opt_args={"wings": 2}))
