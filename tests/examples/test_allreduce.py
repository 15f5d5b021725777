"""The model of the gradients' sum: its limits are known, and the page shows what it says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("allreduce", REPOSITORY / "examples" / "allreduce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["allreduce"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["allreduce"]


def network(model: ModuleType, tensors: tuple[int, ...] = (10**6,) * 20) -> object:
    return model.Network(name="of equal tensors", tensors=tensors, images_per_second=1000, shortest_step=0.001)


def test_ring_sends_twice_the_bytes_but_one_share(model: ModuleType) -> None:
    assert model.ring(8e9, 4, 1e9, 0.0) == pytest.approx(2 * 3 / 4 * 8)
    assert model.ring(0.0, 4, 1e9, 0.5) == pytest.approx(2 * 3 * 0.5)
    assert model.ring(8e9, 1, 1e9, 0.5) == 0


def test_one_gpu_sums_nothing(model: ModuleType) -> None:
    step = model.simulate(network(model), 1, 32, model.SLOW)
    assert (step.summing, step.exposed, step.efficiency) == (0, 0, 1)


def test_between_many_nodes_the_wire_rules(model: ModuleType) -> None:
    size = 1e9
    seconds = model.sum_seconds(size, 1024, model.SLOW)
    assert seconds == pytest.approx(2 * size / model.SLOW.between, rel=0.03)


def test_buckets_hold_every_gradient_once_and_fill_in_order(model: ModuleType) -> None:
    many = network(model, tuple(range(1, 3000)))
    shares, sizes = zip(*model.buckets(many), strict=True)
    assert sum(sizes) == many.gradient_bytes  # type: ignore[attr-defined]
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1
    assert len(sizes) == 2  # 18 MB: the first megabyte, and the rest


def test_what_is_waited_for_lies_between_the_last_bucket_and_the_whole_sum(model: ModuleType) -> None:
    for gpus in model.GPUS[1:]:
        step = model.simulate(network(model), gpus, 32, model.SLOW)
        *_, (_, last) = model.buckets(network(model))
        assert model.sum_seconds(last, gpus, model.SLOW) <= step.exposed + 1e-12
        assert step.exposed <= step.summing


def test_more_images_hide_more(model: ModuleType) -> None:
    few, many = (model.simulate(network(model), 64, images, model.SLOW).efficiency for images in (8, 256))
    assert few < many
    enough = model.images_that_hide(network(model), 64, model.SLOW)
    assert model.simulate(network(model), 64, enough, model.SLOW).efficiency >= 0.95
    assert model.simulate(network(model), 64, enough - 1, model.SLOW).efficiency < 0.95


def test_the_page_shows_what_the_example_prints(model: ModuleType) -> None:
    page = (REPOSITORY / "docs" / "allreduce.md").read_text(encoding="utf-8")
    assert f"```text\n{model.table(model.networks())}\n```" in page


def test_the_picture_can_be_drawn(model: ModuleType, tmp_path: Path) -> None:
    model.draw(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
