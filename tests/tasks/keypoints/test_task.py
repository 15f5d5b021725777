"""Loss, flip averaging and decoding against plain arithmetic; a perfect network gets 100 %; training end to end."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dynaconv.cli import main
from dynaconv.errors import UserError
from dynaconv.tasks import task_of_model
from dynaconv.tasks.keypoints import KeypointData, KeypointOptions, open_data
from dynaconv.tasks.keypoints.heatmaps import gaussians, mirrored_back
from dynaconv.tasks.network import ModelSpec
from tasks.keypoints.files import NAMES, content, puppet, write_data

NETWORK = "keypoints_b_mobilenetv2_050"
QUICK = ["--image-size", "64x32", "--epochs", "1", "--batch-size", "3", "--workers", "0", "--quiet", "--device", "cpu"]
QUICK += ["--set", "curves=false", "--no-tensorboard", "--opt", "adam", "--lr", "0.001"]


@pytest.fixture
def data(tmp_path: Path) -> KeypointData:
    return open_data(str(write_data(tmp_path)), image_size=(64, 32), batch_size=4)


class Oracle(nn.Module):
    """Knows the batch: returns its heat maps, and those of its mirror image for the mirrored crops."""

    def __init__(self, batch: dict[str, Tensor], data: KeypointData, height: float = 0.8) -> None:
        super().__init__()
        self.plain = batch["images"]
        self.heat = height * gaussians(batch["points"], data.pose.heat_size, 1.0)
        self.mirror = mirrored_back(self.heat, data.pose.swapped)

    def forward(self, images: Tensor) -> Tensor:
        return self.heat if torch.equal(images, self.plain) else self.mirror


def test_what_a_batch_is(data: KeypointData) -> None:
    assert (data.train_size, data.eval_size, data.image_size) == (6, 3, (64, 32))
    assert data.pose.swapped == [0, 2, 1, 3]
    batch = next(iter(data.training_batches(KeypointOptions())))
    shapes = {name: tuple(part.shape) for name, part in batch.items()}
    assert shapes["images"] == (4, 3, 64, 32)
    assert (shapes["points"], shapes["weights"], shapes["back"]) == ((4, 4, 2), (4, 4), (4, 2, 3))
    assert batch["images"].dtype == torch.float32
    assert batch["images"].abs().max() < 3


def test_examples_follow_seed_and_epoch_and_not_the_workers(data: KeypointData, tmp_path: Path) -> None:
    many = open_data(str(tmp_path), image_size=(64, 32), batch_size=4, workers=2)
    for epoch in (0, 1):
        got = []
        for opened in (data, many):
            batches = opened.training_batches(KeypointOptions())
            batches.set_epoch(epoch)
            got.append(next(iter(batches)))
            batches.close()
        for name, part in got[0].items():
            assert torch.equal(part, got[1][name]), name
    batches = data.training_batches(KeypointOptions())
    batches.set_epoch(0)
    assert not torch.equal(next(iter(batches))["images"], got[0]["images"])


def test_the_loss_is_the_formula_and_parts_add_up(data: KeypointData) -> None:
    task = data.task(KeypointOptions(sigma=1.5), 3)
    batch = next(iter(data.evaluation_batches()))
    batch["weights"][0, 1] = batch["weights"][2, 3] = 0
    heat = torch.rand(3, 4, 16, 8, requires_grad=True)

    class Fixed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return heat

    expected = 0.0
    target = gaussians(batch["points"], (16, 8), 1.5)
    for example in range(3):
        for joint in range(4):
            error = ((heat.detach()[example, joint] - target[example, joint]) ** 2).mean()
            expected += float(batch["weights"][example, joint]) * float(error) / 2 / 4 / 3
    loss = task.loss(Fixed(), batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert heat.grad is not None
    assert not heat.grad[0, 1].any(), "what is not labelled pulls nowhere"
    assert heat.grad[0, 0].any()
    parts = task.split(batch, 2)
    assert [task.size(part) for part in parts] == [2, 1]
    network = nn.Conv2d(3, 4, 4, stride=4)
    whole = sum(task.size(part) * task.loss(network, part).item() for part in parts) / 3
    assert whole == pytest.approx(task.loss(network, batch).item(), rel=1e-5)
    assert [task.size(part) for part in task.split(batch, 8)] == [1, 1, 1], "never an empty part"


def test_a_perfect_network_finds_everybody_where_he_is(data: KeypointData) -> None:
    task = data.task(KeypointOptions(), 3)
    metrics = task.metrics("cpu")
    for batch in data.evaluation_batches():
        oracle = Oracle(batch, data)
        metrics.update(oracle, batch)
        for person, (pose,) in zip(data.eval_people, task.predict(oracle, batch), strict=True):
            found = np.array([(point["x"], point["y"]) for point in pose["keypoints"]])
            # of one pixel of the heat map a quarter may be lost; 16 of them show 24 pixels by the crop's aspect, padded
            assert np.abs(found - person.keypoints[:, :2]).max() <= 0.26 * (24 * 2 * 1.25 / 16)
            assert [point["name"] for point in pose["keypoints"]] == NAMES
            assert pose["box"] == [person.box[0], person.box[1], 24, 32]
            assert 0.5 < pose["score"] <= 0.8
    found = metrics.compute()
    assert found["ap"] > 0.85
    assert found["ap50"] == pytest.approx(1)
    assert found["eval_loss"] < 0.01


def test_flip_averaging_needs_the_exchange(data: KeypointData) -> None:
    """A network that is right on crops and, on mirrored ones, right for them, is right on average."""
    task = data.task(KeypointOptions(), 3)
    batch = next(iter(data.evaluation_batches()))
    oracle = Oracle(batch, data)
    points, scores, _ = task._find(oracle, batch)
    task.pose = task.pose.model_copy(update={"flip_pairs": ()})
    wrong, low, _ = task._find(oracle, batch)
    assert scores.min() > 0.6
    assert low[:, 1:3].max() < 0.6, "left and right hand at two places each"
    assert torch.allclose(points[:, 0], wrong[:, 0])


def test_places_are_exact_under_half_precision(data: KeypointData) -> None:
    task = data.task(KeypointOptions(), 3)
    batch = next(iter(data.evaluation_batches()))
    batch["back"][:, :, 2] += 3000  # far into a large picture, where bfloat16 knows steps of 16
    points, _, _ = task._find(Oracle(batch, data), batch)
    with torch.autocast("cpu", torch.bfloat16):
        half, _, _ = task._find(Oracle(batch, data), batch)
    assert torch.equal(points, half)


def test_nobody_to_evaluate(data: KeypointData, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    opened = open_data(str(tmp_path), image_size=(64, 32), boxes=tmp_path / "none.json")
    metrics = opened.task(KeypointOptions(), 3).metrics("cpu")
    assert list(opened.evaluation_batches()) == []
    found = metrics.compute()
    assert found["ap"] == 0
    assert math.isnan(found["eval_loss"])


@pytest.mark.parametrize(
    ("opening", "message"),
    [
        ({"image_size": (100, 64)}, "network's stride of 32 divides"),
        ({"image_size": 48}, "image_size is 48x48"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"bad_images": "skipp"}, "Did you mean 'skip'"),
        ({"sigmas": [0.1]}, "expected 4 positive numbers"),
        ({"category": "stage"}, "no category 'stage' has keypoints"),
    ],
)
def test_mistakes(opening: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_data(str(write_data(tmp_path)), **opening)


def test_a_network_of_another_task_is_refused(data: KeypointData) -> None:
    with pytest.raises(UserError, match="num_keypoints"):
        data.network(ModelSpec(name="test_resnet"))
    task, batch = data.task(KeypointOptions(), 3), next(iter(data.evaluation_batches()))
    with pytest.raises(UserError, match=r"returns \(3, 4, 64, 32\) and heat maps \(3, 4, 16, 8\)"):
        task.loss(nn.Conv2d(3, 4, 1), batch)
    assert task_of_model(NETWORK) == "keypoints"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One epoch of a small network on puppets by the command line: the run's folder and the data's."""
    folder = tmp_path_factory.mktemp("keypoints")
    whole = content(6)
    whole["annotations"].append(puppet(50, 2, iscrowd=1))
    write_data(folder / "data", whole)
    words = ["train", NETWORK, "--data", folder / "data", "--out", folder / "run", *QUICK]
    assert main([str(word) for word in words]) == 0
    return folder / "run", folder / "data"


def test_a_run_is_evaluated_to_its_own_number(run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with (run[0] / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert main(["eval", str(run[0]), "--data", str(run[1]), "--workers", "0", "--json", "--batch-size", "2"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["images"] == 3
    assert measured["ap"] == float(row["ap"])
    assert measured["eval_loss"] == pytest.approx(float(row["eval_loss"]), rel=1e-5)


def test_eval_with_detected_boxes(run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = [{"image_id": 1, "category_id": 3, "bbox": [5, 5, 30, 40], "score": 0.5}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    words = ["eval", str(run[0]), "--data", str(run[1]), "--workers", "0"]
    assert main([*words, "--json", "--data-arg", f"boxes={tmp_path / 'boxes.json'}"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1
    assert main([*words, "--data-arg", "bokses=x"]) == 2
    assert "Did you mean 'boxes'" in capsys.readouterr().err


def test_predict_writes_poses_and_draws_them(run: tuple[Path, Path], tmp_path: Path) -> None:
    pictures = run[1] / "images"
    boxes = [{"image_id": 1, "bbox": [10, 8, 24, 32]}, {"image_id": 1, "bbox": [30, 8, 24, 32], "score": 0.5}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    words = ["predict", str(run[0]), str(pictures), "--draw", str(tmp_path / "drawn")]
    words += ["--data-arg", f"boxes={tmp_path / 'boxes.json'}"]
    assert main([*words, "--out", str(tmp_path / "poses.json")]) == 0
    rows = json.loads((tmp_path / "poses.json").read_text())
    assert [len(row["poses"]) for row in rows] == [2, 0, 0, 0, 0, 0]
    assert [point["name"] for point in rows[0]["poses"][1]["keypoints"]] == NAMES
    assert rows[0]["poses"][1]["box"] == [30, 8, 24, 32]
    assert len(list((tmp_path / "drawn").iterdir())) == 6
    assert main([*words, "--out", str(tmp_path / "poses.csv")]) == 0
    table = list(csv.DictReader((tmp_path / "poses.csv").read_text().splitlines()))
    assert [Path(row["file"]).stem for row in table] == ["000001", "000001", *(f"00000{n}" for n in range(2, 7))]
    assert float(table[1]["left_hand_x"]) == rows[0]["poses"][1]["keypoints"][1]["x"]
    assert table[2]["score"] == ""


def test_drawing(data: KeypointData) -> None:
    task, picture = data.task(KeypointOptions(), 1), Image.new("RGB", (64, 48))
    places = [(20, 5), (10, 20), (30, 20), (20, 40)]
    points = [{"name": name, "x": x, "y": y, "score": 0.9} for name, (x, y) in zip(NAMES, places, strict=True)]
    drawn = task.draw(picture, [{"keypoints": points}])
    colours = [drawn.getpixel(place) for place in places]
    assert len(set(colours)) == 3
    assert colours[0] == colours[3] != colours[1]
    assert drawn.getpixel((20, 22)) != (0, 0, 0), "the limb from nose to tail"
    points[3]["score"] = 0.1
    without = task.draw(picture, [{"keypoints": points}])
    assert without.getpixel((20, 40)) == without.getpixel((20, 22)) == (0, 0, 0)
    assert picture.getextrema() == ((0, 0),) * 3, "a copy"
    assert task.draw(picture, []).getextrema() == ((0, 0),) * 3


def test_other_keypoints_are_refused_by_name(run: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    whole = content(2)
    whole["categories"][1] = {**whole["categories"][1], "keypoints": ["nose", "right_hand", "left_hand", "tail"]}
    write_data(tmp_path, whole, whole)
    assert main(["eval", str(run[0]), "--data", str(tmp_path), "--workers", "0"]) == 2
    assert "the network was trained for nose, left_hand" in " ".join(capsys.readouterr().err.split())


def test_unreadable_pictures_are_skipped_or_named(run: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    write_data(tmp_path)
    (tmp_path / "images" / "000002.png").write_text("<html>")
    words = ["eval", str(run[0]), "--data", str(tmp_path), "--workers", "0"]
    assert main(words) == 2
    assert "000002.png" in capsys.readouterr().err
    assert main([*words, "--bad-images", "skip"]) == 0
    assert "(1 unreadable ones left out)" in " ".join(capsys.readouterr().out.split())


def test_mice(shared: Path) -> None:
    folder = shared / "data" / "mouse_keypoints"
    if not folder.is_dir():
        pytest.skip("no mouse keypoints in the folder 'shared'")
    data = open_data(str(folder), image_size=96, sigmas=0.05)
    assert (data.train_size, data.eval_size) == (92, 24)
    assert data.pose.names == ("snout", "leftear", "rightear", "tailbase")
    assert data.pose.swapped == [0, 2, 1, 3]
    batch = next(iter(data.evaluation_batches()))
    assert batch["weights"].min() == 1
    metrics = data.task(KeypointOptions(), 24).metrics("cpu")
    metrics.update(Oracle(batch, data), batch)
    assert metrics.compute()["ap"] > 0.9


def test_people_of_coco(shared: Path) -> None:
    folder = shared / "data" / "coco_subset"
    if not folder.is_dir():
        pytest.skip("no COCO subset in the folder 'shared'")
    data = open_data(str(folder), batch_size=39)
    assert (data.train_size, data.eval_size, data.image_size) == (66, 39, (256, 192))
    assert len(data.pose.upper) == 11
    batch = next(iter(data.evaluation_batches()))
    metrics = data.task(KeypointOptions(), 39).metrics("cpu")
    metrics.update(Oracle(batch, data), batch)
    assert metrics.compute()["ap"] > 0.95
