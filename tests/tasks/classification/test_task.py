"""Classification as a task: what the loop, the run folder, prediction and settings ask of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.tasks import TASKS, task_class
from dynaconv.tasks.classification import Classification, ClassificationOptions, open_data
from dynaconv.tasks.task import Metric, Task, TaskData, cloned


class FirstPixel(nn.Module):
    """Class 1 the more, the brighter the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, 0, 0, 0]
        return torch.stack([-first, first, torch.full_like(first, -5.0)], dim=1)


def test_the_task_is_found_by_name() -> None:
    assert [task_class(name).name for name in TASKS] == list(TASKS)
    with pytest.raises(UserError, match=r"no task 'clasification'.*Did you mean 'classification'"):
        task_class("clasification")


def test_it_is_a_task_and_its_data_is_task_data() -> None:
    data: TaskData = open_data("digits", image_size=8, batch_size=16)
    task: Task = data.task(ClassificationOptions(), 16)
    assert task.best in [metric.name for metric in task.metrics_shown]
    batch = next(iter(data.training_batches(ClassificationOptions())))
    assert task.size(batch) == 16
    assert sum(task.size(part) for part in task.split(batch, 3)) == 16
    metrics = task.metrics("cpu")
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    metrics.update(model, batch)
    assert list(metrics.compute()) == [metric.name for metric in task.metrics_shown]


def test_predictions_by_falling_probability() -> None:
    task = Classification(["dark", "bright", "never"])
    images = torch.zeros(2, 3, 4, 4)
    images[0], images[1] = 2.0, -2.0
    one, two = task.predict(FirstPixel(), (images, torch.zeros(2)), top=2)
    assert [entry["class"] for entry in one] == ["bright", "dark"]
    assert [entry["class"] for entry in two] == ["dark", "bright"]
    assert one[0]["probability"] == pytest.approx(torch.tensor([-2.0, 2.0, -5.0]).softmax(0)[1].item(), abs=1e-6)


def test_drawing_changes_the_lower_edge_alone() -> None:
    picture = Image.new("RGB", (64, 48), (200, 30, 60))
    task = Classification(2)
    drawn = task.draw(picture, [{"class": "1", "probability": 0.9}])
    before, after = np.asarray(picture), np.asarray(drawn)
    assert before.shape == after.shape
    assert (before == (200, 30, 60)).all(), "the picture itself is left as it was"
    assert (after[:20] == before[:20]).all()
    assert (after[-10:] == 0).all(axis=-1).any()
    assert (after[-14:] > 150).all(axis=-1).any(), "something is written"


def test_direction_of_a_metric() -> None:
    loss, top1 = Metric("loss", "loss", higher_is_better=False), Metric("top1", "top-1", percent=True)
    assert loss.better(1.0, 2.0)
    assert not loss.better(2.0, 1.0)
    assert top1.better(0.2, 0.1)
    assert not top1.better(float("nan"), 0.1)
    assert (loss.text(0.5), top1.text(0.5)) == ("0.5000", "50.00 %")


def test_cloned_batches_share_nothing() -> None:
    batch = {"images": [torch.ones(2), torch.ones(3)], "ids": [1, 2]}
    copy = cloned(batch)
    copy["images"][0].zero_()
    assert float(batch["images"][0].sum()) == 2
    assert copy["ids"] == [1, 2]
