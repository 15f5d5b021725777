"""The networks of one seed begin alike, and every expert as the network's own initialiser has it."""

from __future__ import annotations

import pytest
import torch

from dynaconv.analysis import CompareSettings
from dynaconv.analysis.arms import dynamic_arm, static_arm
from dynaconv.analysis.runs import open_for
from dynaconv.errors import UserError
from dynaconv.layers import DynamicLayer
from dynaconv.tasks.classification import ImageData
from dynaconv.tasks.classification.source import stratified_rows

SETTINGS = CompareSettings(backbone="test_resnet", model_args={"channels": [8, 8, 8, 16]})


@pytest.fixture(scope="module")
def data() -> ImageData:
    return open_for(SETTINGS, 0)


@pytest.mark.parametrize(("method", "experts"), [("dynamic", 3), ("condconv", 3), ("dynamic", 1)])
def test_equal_weights_where_both_have_them(method: str, experts: int, data: ImageData) -> None:
    static = static_arm(SETTINGS).build(SETTINGS, data, seed=5).state_dict()
    twin = dynamic_arm(SETTINGS, method, experts).build(SETTINGS, data, seed=5)
    banks = {f"{name}.weight" for name, module in twin.named_modules() if isinstance(module, DynamicLayer)}
    assert banks
    for name, value in static.items():
        now = twin.state_dict()[name]
        assert torch.equal(now[0] if name in banks else now, value), name


def test_every_expert_is_drawn_as_the_network_draws_its_kernel(data: ImageData) -> None:
    """timm's ResNet draws kernels by Kaiming's normal of fan-out: each expert has that spread, and all differ."""
    twin = dynamic_arm(SETTINGS, "condconv", 4).build(SETTINGS, data, seed=0)
    bank = dict(twin.named_modules())["layer4.0.conv2"].weight.detach()
    expected = (2 / (16 * 9)) ** 0.5
    for expert in bank:
        assert float(expert.std()) == pytest.approx(expected, rel=0.1)
    for one in range(4):
        for other in range(one):
            assert abs(float(torch.corrcoef(torch.stack([bank[one].flatten(), bank[other].flatten()]))[0, 1])) < 0.2


def test_seeds_differ_and_repeat(data: ImageData) -> None:
    arm = dynamic_arm(SETTINGS, "dynamic", 2)
    first, again, other = (arm.build(SETTINGS, data, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_fewer_training_images_in_equal_shares(data: ImageData) -> None:
    rows = stratified_rows(data.training_source, 100)
    labels = [data.training_source.labels[row] for row in rows]
    assert len(set(rows)) == 100
    assert all(9 <= labels.count(label) <= 11 for label in range(10))
    smaller = open_for(SETTINGS.model_copy(update={"train_images": 100}), 0)
    assert (smaller.train_size, smaller.eval_size) == (100, data.eval_size)
    assert smaller.preprocess == data.preprocess
    assert set(stratified_rows(data.training_source, 50)) <= set(rows)


@pytest.mark.parametrize("size", [9, 100_000])
def test_too_few_or_too_many_training_images(size: int) -> None:
    with pytest.raises(UserError, match=f"train_images is {size}; expected 10"):
        open_for(SETTINGS.model_copy(update={"train_images": size}), 0)
