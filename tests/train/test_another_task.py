"""A task that is nothing like classification goes through loop, run folder, logs and records as it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynaconv.tasks
from dynaconv.data import BadImages, Batches, EvaluationBatches, Examples, TrainBatches
from dynaconv.tasks.task import Metric, TaskOptions
from dynaconv.train import fit
from dynaconv.train.profile import profile
from dynaconv.train.recipe import Recipe
from dynaconv.train.run_folder.weights import read_weights
from dynaconv.train.settings import LoopSettings, settings_class

Strips = list[tuple[Tensor, Tensor]]  # (3, 4, W) with a width of its own, and two numbers to be found


class Widths(TaskOptions):
    """Options of the task."""

    weight: float = 1.0


class Regression:
    """Two numbers from images of different widths; the largest error of the whole evaluation, lower is better."""

    name = "regression"
    options: type[TaskOptions] = Widths
    metrics_shown: tuple[Metric, ...] = (Metric("worst", "largest error", higher_is_better=False),)
    best = "worst"

    def __init__(self, options: Any) -> None:
        self.weight = options.weight

    @classmethod
    def of_weights(cls, about: dict[str, Any], options: Any = None) -> tuple[Regression, nn.Module]:
        raise NotImplementedError

    def prepare(self, batch: Strips) -> Strips:
        return batch

    def split(self, batch: Strips, parts: int) -> Sequence[Strips]:
        return [batch[index::parts] for index in range(parts) if batch[index::parts]]

    def size(self, batch: Strips) -> int:
        return len(batch)

    def loss(self, model: nn.Module, batch: Strips) -> Tensor:
        losses = [(model(image[None])[0] - target).square().mean() for image, target in batch]
        return self.weight * torch.stack(losses).mean()

    def metrics(self, device: Any) -> WorstError:
        return WorstError()

    def file_batches(self, paths: Sequence[Path], **options: Any) -> Batches:
        raise NotImplementedError

    def predict(self, model: nn.Module, batch: Strips) -> list[Any]:
        return [model(image[None])[0].tolist() for image, _ in batch]

    def draw(self, picture: Any, prediction: Any) -> Any:
        return picture


class WorstError:
    """Needs the whole set before it is a number."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, model: nn.Module, batch: Strips) -> None:
        self.errors += [float((model(image[None])[0] - target).abs().max()) for image, target in batch]

    def compute(self) -> dict[str, float]:
        return {"worst": max(self.errors)}


class Reader:
    """Images of 3 to 7 columns; the numbers are their mean and their first pixel."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = torch.randn(3, 4, 3 + row % 5, generator=torch.Generator().manual_seed(row))
        return image, torch.stack([image.mean(), image[:, 0, 0].mean()])


class StripData:
    """Opened data of the task."""

    image_size = 4
    name, description, batch_size, workers, seed = "strips", "strips", 8, 0, 0
    train_size = eval_size = 24

    def __init__(self) -> None:
        self.bad_images = BadImages("error", 0)

    def task(self, options: Any, batch_size: int) -> Regression:
        return Regression(options)

    def training_batches(self, options: Any, **share: Any) -> Batches:
        device = share.pop("device", "cpu")
        return self._batches(TrainBatches(24, 8, seed=0, **share), 0, device)

    def evaluation_batches(self, **share: Any) -> Batches:
        device = share.pop("device", "cpu")
        return self._batches(EvaluationBatches(24, 8, **share), None, device)

    def _batches(self, batches: TrainBatches | EvaluationBatches, seed: int | None, device: Any) -> Batches:
        return Batches(
            Examples(Reader(), seed=seed),
            batches,
            self.bad_images,
            collate=list,
            to_device=lambda batch, device: [(image.to(device), target.to(device)) for image, target in batch],
            device=device,
        )

    def about(self) -> dict[str, Any]:
        return {"numbers": ["mean", "first"]}

    def facts(self, options: Any) -> dict[str, Any]:
        return {"rows": 4}

    def other_loader(self, options: Any, device: torch.device) -> tuple[str, Iterable[Any]] | None:
        return None


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean(dim=(2, 3)))


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> LoopSettings:
    """Of the task, as the registry of tasks makes them."""
    monkeypatch.setitem(dynaconv.tasks.TASKS, "regression", __name__)
    monkeypatch.setattr("dynaconv.train.settings.task_class", lambda name: Regression)
    settings_class.cache_clear()
    quick = {"epochs": 4, "device": "cpu", "tensorboard": False, "accumulate": 3, "lr": 0.1}
    yield settings_class("regression")(**quick, weight=2.0)
    settings_class.cache_clear()


def test_settings_are_the_loops_and_the_tasks(settings: LoopSettings) -> None:
    assert settings.model_dump()["weight"] == 2.0
    assert not hasattr(settings, "mixup"), "nothing of classification"
    recipe = Recipe(task="regression", model={"name": "net"}, settings=settings)
    assert Recipe.of(json.loads(recipe.model_dump_json())) == recipe


def test_it_trains_resumes_and_leaves_its_own_metrics(settings: LoopSettings, tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = fit(Net(), StripData(), settings, out=tmp_path)
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert result.best_worst == min(record.worst for record in result.history)
    assert result.summary().startswith(f"largest error {result.worst:.4f} (best {result.best_worst:.4f}")
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [float(row["worst"]) for row in rows] == [record.worst for record in result.history]
    assert "top1" not in rows[0]
    best = min(result.history, key=lambda record: record.worst)
    about = read_weights(tmp_path / "best.safetensors")[1]
    assert (about["task"], about["epoch"], about["numbers"]) == ("regression", best.epoch, ["mean", "first"])
    assert json.loads((tmp_path / "run.json").read_text())["rows"] == 4
    assert (tmp_path / "curves.png").stat().st_size > 1000
    again = fit(Net(), StripData(), settings, out=tmp_path, resume="auto")
    assert again.history == result.history


def test_unknown_metrics_are_named(settings: LoopSettings) -> None:
    result = fit(Net(), StripData(), settings)
    with pytest.raises(AttributeError, match="no 'top1'; its metrics are worst"):
        _ = result.top1
    with pytest.raises(AttributeError, match="no 'top1'; its metrics are worst"):
        _ = result.history[0].top1


def test_profile_counts_its_examples(settings: LoopSettings) -> None:
    lines = list(profile(Net(), StripData(), settings, seconds=0.05))
    assert [line.split(":")[0] for line in lines[1:]] == ["loader", "step alone"]
