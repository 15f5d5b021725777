"""Temperature: a buffer that travels with the model, and the schedule that anneals it."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

from dynaconv import CondConv2d, DynamicConv2d, SoftmaxRouter, TemperatureSchedule, set_temperature
from dynaconv.routing import temperatures


def network() -> nn.Sequential:
    return nn.Sequential(DynamicConv2d(3, 8, 3), CondConv2d(8, 8, 3), DynamicConv2d(8, 4, 1))


def values(model: nn.Module) -> list[float]:
    return [value.item() for value in temperatures(model)]


def test_starts_at_the_papers_thirty() -> None:
    assert values(network()) == [30.0, 30.0]


def test_is_saved_and_restored_and_right_at_evaluation() -> None:
    model, x = network(), torch.randn(2, 3, 8, 8)
    assert set_temperature(model, 3.5) == 2
    assert [name for name in model.state_dict() if name.endswith("temperature")] == [
        "0.router.temperature",
        "2.router.temperature",
    ]
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    restored = network()
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert values(restored) == [3.5, 3.5]
    assert torch.equal(restored.eval()(x), model.eval()(x))
    assert values(copy.deepcopy(model)) == [3.5, 3.5]


def test_a_copy_has_a_temperature_of_its_own() -> None:
    model = network()
    twin = copy.deepcopy(model)
    set_temperature(twin, 1.0)
    assert values(model) == [30.0, 30.0]


def test_changes_the_routing_weights() -> None:
    router = SoftmaxRouter(8, 4)
    x = torch.randn(16, 8)
    spread = []
    for temperature in (30.0, 1.0, 0.01):
        set_temperature(router, temperature)
        spread.append(router(x).std().item())
    assert spread == sorted(spread)
    assert spread[0] < 0.1 * spread[2]


def test_the_default_schedule_is_thirty_to_one_over_ten_epochs() -> None:
    model = network()
    schedule = TemperatureSchedule(model)
    seen = [values(model)[0]]
    for _ in range(12):
        returned = schedule.step()
        seen.append(values(model)[0])
        assert returned == pytest.approx(seen[-1])
        assert values(model)[0] == values(model)[1] == pytest.approx(schedule.temperature)
    assert seen == pytest.approx([30.0, 27.1, 24.2, 21.3, 18.4, 15.5, 12.6, 9.7, 6.8, 3.9, 1.0, 1.0, 1.0], rel=1e-6)


def test_per_step_meets_per_epoch_at_the_end_of_every_epoch() -> None:
    by_epoch, by_step = TemperatureSchedule(network()), TemperatureSchedule(network(), steps_per_epoch=7)
    for _ in range(11):
        by_epoch.step()
        within = [by_step.step() for _ in range(7)]
        assert within == sorted(within, reverse=True)
        assert by_step.temperature == pytest.approx(by_epoch.temperature)


@pytest.mark.parametrize("steps_per_epoch", [None, 5])
def test_goes_on_from_a_saved_position(steps_per_epoch: int | None) -> None:
    whole = TemperatureSchedule(network(), 20.0, 2.0, 6, steps_per_epoch)
    first = TemperatureSchedule(network(), 20.0, 2.0, 6, steps_per_epoch)
    for _ in range(4):
        whole.step()
        first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    model = network()
    second = TemperatureSchedule(model)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert values(model)[0] == pytest.approx(whole.temperature)
    for _ in range(5):
        assert second.step() == whole.step()


def test_no_epochs_is_the_end_from_the_beginning() -> None:
    model = network()
    TemperatureSchedule(model, epochs=0)
    assert values(model) == [1.0, 1.0]


def test_finds_routers_that_come_later_and_leaves_others_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    schedule = TemperatureSchedule(model, epochs=2)
    model.append(DynamicConv2d(3, 3, 1))
    schedule.step()
    assert values(model) == [15.5]

    class Thermometer(nn.Module):
        temperature = torch.tensor(36.6)

    assert set_temperature(Thermometer(), 1.0) == 0
    assert Thermometer.temperature.item() == pytest.approx(36.6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"start": 0.0}, "temperature is 0.0; expected a number above 0"),
        ({"end": -1.0}, "temperature is -1.0"),
        ({"epochs": -1}, "epochs is -1; expected at least 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0; expected at least 1, or None"),
    ],
)
def test_names_a_bad_argument(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TemperatureSchedule(network(), **arguments)


def test_names_what_a_saved_state_lacks() -> None:
    with pytest.raises(ValueError, match=r"state lacks \['end', 'start'\]"):
        TemperatureSchedule(network()).load_state_dict({"position": 1, "steps": 2})


def test_set_temperature_refuses_before_it_changes_anything() -> None:
    model = network()
    with pytest.raises(ValueError, match="temperature is 0"):
        set_temperature(model, 0)
    assert values(model) == [30.0, 30.0]
