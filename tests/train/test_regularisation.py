"""Regularisation of the routing: the formulas, what it changes in training, and that it changes nothing while off."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dynaconv
from dynaconv.errors import UserError
from dynaconv.layers import DynamicConv2d
from dynaconv.routing import SigmoidRouter, SoftmaxRouter
from dynaconv.torch_private import hooks_of
from dynaconv.train import Stopped, TrainSettings, fit
from dynaconv.train.regularisation import kernel_likeness, load_balance
from dynaconv.train.run_folder.checkpoint import read_checkpoint
from dynaconv.train.settings import LATER
from train.tiny import MEASURED, digits, newest, same, settings


class Small(nn.Module):
    """A dynamic layer and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = DynamicConv2d(3, 6, 3, stride=2, experts=3)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.norm(self.layer(x)).relu().mean(dim=(2, 3)))
        return out


def quick(**options: Any) -> TrainSettings:
    return settings(**{"epochs": 2, "mixup": 0.0, "ema": None, "lr": 0.05, **options})


def test_load_balance_is_the_squared_coefficient_of_variation() -> None:
    weights = torch.rand(40, 5, dtype=torch.float64)
    shares = (weights / weights.sum(1, keepdim=True)).mean(0)
    expected = (shares.std(correction=0) / shares.mean()) ** 2
    torch.testing.assert_close(load_balance(weights), expected)
    one_hot = torch.eye(4)
    assert load_balance(one_hot) == pytest.approx(0, abs=1e-6)  # every image one expert, all experts alike
    assert load_balance(one_hot[:1].expand(8, 4)) == pytest.approx(3)
    assert load_balance(torch.zeros(2, 3)).isfinite()
    torch.autograd.gradcheck(load_balance, weights[:3].requires_grad_())


def test_kernel_likeness_is_the_mean_squared_cosine() -> None:
    bank = torch.randn(4, 2, 3, 3, 3, dtype=torch.float64)
    cosines = [
        float(torch.cosine_similarity(bank[i].flatten(), bank[j].flatten(), dim=0)) ** 2
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    assert float(kernel_likeness(bank)) == pytest.approx(sum(cosines) / 12)
    assert float(kernel_likeness(torch.eye(5))) == 0
    assert float(kernel_likeness(torch.ones(3, 7))) == pytest.approx(1)
    assert float(kernel_likeness(torch.ones(1, 7))) == 0
    torch.autograd.gradcheck(kernel_likeness, bank.requires_grad_())


def test_off_by_default_changes_no_bit_and_no_file() -> None:
    """The settings of a run from before these options are those of a run without them."""
    plain = quick().model_dump(mode="json")
    assert not set(plain) & set(LATER)
    assert TrainSettings(**plain) == quick()
    one, two = Small(), Small()
    first = fit(one, digits(), quick())
    second = fit(two, digits(), quick(load_balance=0.0, expert_diversity=0.0, temperature_schedule="linear"))
    assert same(one.state_dict(), two.state_dict()) == []
    records = [[record.plain() for record in result.history] for result in (first, second)]
    assert same(*records, without=MEASURED) == []
    assert records[0][0]["penalties"] == {}


def test_it_does_what_it_is_for_and_is_logged(tmp_path: Path) -> None:
    def after(out: Path | None = None, **options: Any) -> tuple[Any, Any]:
        model = Small()
        model.layer.weight.data[1] = model.layer.weight.data[0] + 0.3 * model.layer.weight.data[1]
        model.layer.router = SigmoidRouter(3, 3)
        model.layer.router.fc.bias.data[:] = torch.tensor([1.0, -1.0, -1.0])  # one expert is used most
        result = fit(model, digits(), quick(**options), out=out)
        assert not any(hooks_of(module) for module in model.modules())
        with torch.no_grad(), dynaconv.record_routing(model.eval()) as recorder:
            model(torch.rand(64, 3, 8, 8))
        return (
            float(load_balance(recorder.weights["layer"])),
            float(kernel_likeness(model.layer.weight.detach())),
        ), result

    (balance, likeness), _ = after()
    (balanced, unlike), result = after(tmp_path / "run", load_balance=5.0, expert_diversity=5.0)
    assert balanced < 0.5 * balance
    assert unlike < 0.5 * likeness
    first, last = (record.penalties for record in result.history)
    assert set(first) == {"load_balance", "expert_diversity"}
    assert last["expert_diversity"] < first["expert_diversity"]
    assert "penalty/load_balance" in (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["settings"]
    assert (recipe["load_balance"], recipe["expert_diversity"]) == (5.0, 5.0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loss_that_is_logged_is_the_tasks_alone(accumulate: int) -> None:
    """One step at a learning rate of nothing: the same loss with and without."""

    def first(**options: Any) -> Any:
        chosen = quick(epochs=1, lr=1e-30, accumulate=accumulate, **options)
        return fit(Small(), digits(), chosen).history[0]

    plain, added = first(), first(load_balance=3.0, expert_diversity=2.0)
    assert added.train_loss == plain.train_loss
    assert added.penalties["expert_diversity"] == pytest.approx(float(kernel_likeness(Small().layer.weight.detach())))


def test_a_resumed_run_is_bit_equal(tmp_path: Path) -> None:
    options = {
        "load_balance": 0.5,
        "expert_diversity": 0.5,
        "expert_dropout": 0.2,
        "temperature_schedule": "cosine",
        "checkpoint_every": 2,
        "epochs": 3,
    }
    whole = Small()
    fit(whole, digits(), quick(**options), out=tmp_path / "whole")

    class Stop(Exception):  # noqa: N818
        pass

    def stop(record: Any) -> None:
        if record.epoch == 1:
            raise Stop

    parts = Small()
    with pytest.raises((Stop, Stopped)):
        fit(parts, digits(), quick(**options), out=tmp_path / "parts", on_epoch=stop)
    (tmp_path / "parts" / "checkpoints" / newest(tmp_path / "parts").name).unlink()  # go on from amid an epoch
    resumed = Small()
    fit(resumed, digits(), quick(**options), out=tmp_path / "parts", resume="auto")
    assert same(whole.state_dict(), resumed.state_dict()) == []
    one, two = (read_checkpoint(newest(tmp_path / name)) for name in ("whole", "parts"))
    assert same(one["history"], two["history"], without=MEASURED) == []
    with pytest.raises(UserError, match=r"load_balance is 0\.5 there and off here"):
        fit(Small(), digits(), quick(**{**options, "load_balance": 0.0}), out=tmp_path / "parts", resume="auto")


def test_expert_dropout_is_set_in_every_router() -> None:
    model = Small()
    fit(model, digits(), quick(epochs=1, expert_dropout=0.25))
    assert model.layer.router.expert_dropout == 0.25  # type: ignore[union-attr]


@pytest.mark.parametrize("option", ["expert_dropout", "load_balance", "expert_diversity"])
def test_a_network_without_dynamic_layers_is_refused(option: str) -> None:
    static = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    with pytest.raises(UserError, match=f"{option} is 0.5 and the network has no"):
        fit(static, digits(), quick(**{option: 0.5}))


def test_load_balance_and_compile_do_not_go_together() -> None:
    with pytest.raises(UserError, match="which a compiled network does not show"):
        quick(load_balance=0.1, compile=True)


@pytest.mark.parametrize("kind", ["linear", "cosine", "exponential", "constant"])
def test_the_kinds_of_the_temperature_schedule(kind: str) -> None:
    model = SoftmaxRouter(3, 4)
    schedule = dynaconv.TemperatureSchedule(model, 30, 1, epochs=4, kind=kind)
    found = [schedule.temperature] + [schedule.step() for _ in range(5)]
    expected = {
        "linear": [30, 22.75, 15.5, 8.25, 1, 1],
        "cosine": [1 + 29 * (1 + math.cos(math.pi * step / 4)) / 2 for step in (0, 1, 2, 3, 4, 4)],
        "exponential": [30 * 30 ** (-step / 4) for step in (0, 1, 2, 3, 4, 4)],
        "constant": [30] * 6,
    }
    assert found == pytest.approx(expected[kind])
    assert float(model.temperature) == pytest.approx(found[-1])
    other = dynaconv.TemperatureSchedule(SoftmaxRouter(3, 4))
    other.load_state_dict(schedule.state_dict())
    assert (other.kind, other.temperature) == (kind, schedule.temperature)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        dynaconv.TemperatureSchedule(SoftmaxRouter(3, 4), kind="cosin")
    with pytest.raises(UserError, match="temperature_schedule"):
        quick(temperature_schedule="cosin")
