"""A picture that is decoded already gives what its file gives: the service and `predict` agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dynaconv.data import BadImages, decode
from dynaconv.tasks import TASKS
from dynaconv.train.run_folder.weights import load_trained
from serve.checkpoints import picture, write_checkpoint


def parts(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [part for one in (value.values() if isinstance(value, dict) else value) for part in parts(one)]


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_of_pictures_is_that_of_their_files(name: str, tmp_path: Path) -> None:
    trained = load_trained(write_checkpoint(tmp_path / "weights.safetensors", name))
    paths = []
    for number, size in enumerate([(40, 30), (64, 64), (20, 90)]):
        paths.append(tmp_path / f"{number}.png")
        picture(number, size).save(paths[-1])
    reading = {"batch_size": 3, "workers": 0, "bad_images": BadImages("error", 1), "device": torch.device("cpu")}
    (_, expected), *rest = trained.task.file_batches(paths, **reading)
    assert rest == []
    made = trained.task.batch([trained.task.example(decode(path)) for path in paths], torch.device("cpu"))
    assert type(made) is type(expected)
    same = {"rows", "image"}  # the number of the file
    if isinstance(made, dict):
        assert made.keys() == expected.keys()
        made, expected = ([each[key] for key in each if key not in same] for each in (made, expected))
    elif name == "detection":
        made, expected = ([each[0], [target["size"] for target in each[1]]] for each in (made, expected))
    else:
        made, expected = made[0], expected[0]
    assert all(torch.equal(a, b) for a, b in zip(parts(made), parts(expected), strict=True))
