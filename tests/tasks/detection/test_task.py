"""Training, evaluation and prediction of boxes, from the data set to the picture."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dynaconv.data.coco import Category
from dynaconv.errors import UserError
from dynaconv.tasks import task_of_model
from dynaconv.tasks.detection import Detection, DetectionData, DetectionOptions, open_data
from dynaconv.tasks.detection.drawing import colour_of, draw_boxes
from dynaconv.tasks.network import ModelSpec, build_model
from dynaconv.train.run_folder.weights import finetune_from, save_weights
from tasks.coco_files import pictures_of, record, write_coco, write_file

SPEC = ModelSpec(name="ssd300_mobilenetv1_050")


def opened(root: Path, **options: Any) -> DetectionData:
    return open_data(root, **{"image_size": 64, "batch_size": 4, **options})


def rewrite(root: Path, change: Any, name: str = "train") -> None:
    """Apply ``change`` to the content of an annotation file."""
    path = root / f"instances_{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_batches_hold_images_of_one_size_and_their_targets(tmp_path: Path) -> None:
    data = opened(write_coco(tmp_path))
    images, targets = next(iter(data.training_batches(DetectionOptions())))
    assert (images.shape, images.dtype, len(targets)) == ((4, 3, 64, 64), torch.float32, 4)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert all(target["boxes"].dtype == torch.float32 for target in targets)
    held = [target for _, batch in data.evaluation_batches() for target in batch]
    assert [int(target["image"]) for target in held] == [108, 109, 110, 111]
    assert [target["size"].tolist() for target in held] == [[80, 60]] * 4
    assert data.classes == ["square", "disc"], "by rising id: 4, 9"
    assert set(torch.cat([target["labels"] for target in held]).tolist()) == {1, 2}


def test_batches_are_the_same_with_workers(tmp_path: Path) -> None:
    write_coco(tmp_path)
    runs = []
    for workers in (0, 2):
        batches = opened(tmp_path, workers=workers).training_batches(DetectionOptions())
        runs.append(list(batches))
        batches.close()
    for (images, targets), (others, other_targets) in zip(*runs, strict=True):
        assert torch.equal(images, others)
        for one, two in zip(targets, other_targets, strict=True):
            assert torch.equal(one["boxes"], two["boxes"])
            assert torch.equal(one["labels"], two["labels"])


def test_crowds_are_not_trained_on(tmp_path: Path) -> None:
    images, annotations = pictures_of(write_coco(tmp_path), 0, 8)
    write_file(tmp_path, "train", images, [*annotations, record(500, 100, [0, 0, 80, 60], iscrowd=1)])
    plain = {"distort": False, "zoom_out": 0.0, "iou_crop": False}
    batches = opened(tmp_path).training_batches(DetectionOptions.of(plain))
    boxes = [len(target["boxes"]) for _, targets in batches for target in targets]
    assert sum(boxes) == len(annotations)


def losses(data: DetectionData, steps: int) -> list[float]:
    torch.manual_seed(0)
    network, task = data.network(SPEC), data.task(DetectionOptions(), 4)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    network.train()
    found = []
    batch = next(iter(data.training_batches(DetectionOptions())))
    for _ in range(steps):
        loss = task.loss(network, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def test_the_loss_falls(tmp_path: Path) -> None:
    found = losses(opened(write_coco(tmp_path)), 12)
    assert found[-1] < 0.6 * found[0]


def test_pictures_without_boxes_train(tmp_path: Path) -> None:
    """A batch that has none at all: the loss is 0, and its gradient too."""
    data = opened(write_coco(tmp_path))
    network, task = data.network(SPEC), data.task(DetectionOptions(), 4)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    loss = task.loss(network.train(), (torch.rand(2, 3, 64, 64), [nothing, nothing]))
    loss.backward()
    assert loss.item() == 0
    assert all(bool(one.grad.isfinite().all()) for one in network.parameters() if one.grad is not None)


def test_the_loss_is_float32_under_autocast(tmp_path: Path) -> None:
    data = opened(write_coco(tmp_path))
    network, task = data.network(SPEC), data.task(DetectionOptions(), 4)
    batch = next(iter(data.training_batches(DetectionOptions())))
    whole = task.loss(network.train(), batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.loss(network, batch)
        found = task.predict(network.eval(), next(iter(data.evaluation_batches())), min_score=0.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(whole.item(), rel=0.05)
    assert len(found) == 4


def test_a_batch_is_cut_without_empty_parts(tmp_path: Path) -> None:
    data = opened(write_coco(tmp_path))
    batch = next(iter(data.training_batches(DetectionOptions())))
    parts = data.task(DetectionOptions(), 4).split(batch, 3)
    assert [len(images) for images, _ in parts] == [len(targets) for _, targets in parts] == [2, 1, 1]
    assert torch.equal(torch.cat([images for images, _ in parts]), batch[0])
    assert [id(target) for _, targets in parts for target in targets] == [id(target) for target in batch[1]]


BAD = {
    "broken JSON": (lambda root: (root / "instances_train.json").write_text("{"), "is not whole JSON"),
    "no pictures": (
        lambda root: rewrite(root, lambda content: content.update(images=[], annotations=[])),
        "has no pictures",
    ),
    "no boxes": (lambda root: rewrite(root, lambda content: content.update(annotations=[])), "no boxes to train on"),
    "crowds alone": (
        lambda root: rewrite(root, lambda content: [one.update(iscrowd=1) for one in content["annotations"]]),
        "no boxes to train on",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=list(BAD))
def test_data_that_cannot_be_trained_on_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(write_coco(tmp_path))
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (64, 48)}, "detectors see squares"),
        ({"image_size": 8}, "at least 32"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"bad_images": "skp"}, "Did you mean 'skip'"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(write_coco(tmp_path), **options)


def test_a_missing_picture_is_an_error_or_skipped_and_counted(tmp_path: Path) -> None:
    (write_coco(tmp_path) / "images/1.png").unlink()
    with pytest.raises(UserError, match=r"Cannot read the image .*1\.png: there is no such file"):
        list(opened(tmp_path).training_batches(DetectionOptions()))
    data = opened(tmp_path, bad_images="skip")
    assert [len(images) for images, _ in data.training_batches(DetectionOptions())] == [4, 4]
    assert len(data.bad_images.reasons) == 1


def test_bad_boxes_are_named_and_the_others_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(tmp_path)
    bad = [record(900, 101, [5, 5, 0, 9]), record(901, 102, [90, 5, 4, 4]), record(902, 103, [5, 5, float("nan"), 9])]
    rewrite(tmp_path, lambda content: content["annotations"].extend(bad))
    with caplog.at_level(logging.WARNING):
        data = opened(tmp_path)
    for number, image in ((900, 101), (901, 102), (902, 103)):
        assert f"annotation id {number} of image id {image}" in caplog.text
    assert len(losses(data, 1)) == 1


def test_a_resumed_run_notices_other_annotations(tmp_path: Path) -> None:
    data = opened(write_coco(tmp_path))
    before = data.facts(DetectionOptions())
    assert opened(tmp_path).facts(DetectionOptions()) == before
    rewrite(tmp_path, lambda content: content["annotations"][0]["bbox"].__setitem__(0, 27.5))
    changed = opened(tmp_path).facts(DetectionOptions())
    assert changed["evaluation data"] == before["evaluation data"]
    assert changed["training data"] != before["training data"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "resnet18"}, "resnet18 is no network for detection"),
        ({"name": "ssd300_mobilenetv1_05"}, "or 'ssd300_mobilenetv1_050'"),
        (
            {"name": "ssd300_condconv_mobilenetv1_050", "method": "condconv"},
            "is dynamic already. Leave --method out, or choose ssd300_mobilenetv1_050",
        ),
        ({"name": SPEC.name, "args": {"hed": "ssd"}}, "hed"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path: Path, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(write_coco(tmp_path)).network(ModelSpec(**spec))


@pytest.mark.parametrize("method", ["condconv", "dynamic"])
def test_a_method_makes_the_backbone_dynamic_and_leaves_the_predictors(tmp_path: Path, method: Any) -> None:
    """Of the static detector nothing changes but the banks, and the weights of a run are read again."""
    data = opened(write_coco(tmp_path))
    spec = ModelSpec(name="ssd300_mobilenetv1_050", method=method, experts=2)
    torch.manual_seed(1)
    dynamic = data.network(spec)
    torch.manual_seed(1)
    static = data.network(ModelSpec(name=spec.name)).state_dict()
    own = dynamic.state_dict()
    banks = [name for name, value in static.items() if own[name].shape != value.shape]
    assert {name.split(".")[1] for name in banks} == {"features", "extra"}
    for name, value in static.items():
        assert torch.equal(own[name][0] if name in banks else own[name], value), name
    about = {**data.about(), "model": spec.model_dump(mode="json")}
    again = Detection.of_weights(about)[1]
    again.load_state_dict(own)


def test_the_task_follows_from_the_network() -> None:
    assert task_of_model("ssd300_condconv_mobilenetv1_050") == "detection"


def test_predictions_are_in_the_pixels_of_the_picture(tmp_path: Path) -> None:
    """Of two images of one content and different sizes, the larger picture's boxes are larger by that factor."""
    task = Detection([Category(4, "square"), Category(9, "disc")], 64)
    torch.manual_seed(0)
    network = opened(write_coco(tmp_path)).network(SPEC).eval()
    image = torch.rand(1, 3, 64, 64).repeat(2, 1, 1, 1)
    sizes = [{"image": torch.tensor(row), "size": torch.tensor(size)} for row, size in enumerate([(80, 60), (240, 90)])]
    with torch.no_grad():
        small, large = task.predict(network, (image, sizes), top=10, min_score=0.0)
    assert 0 < len(small) == len(large) <= 10
    for one, two in zip(small, large, strict=True):
        assert (one["class"], one["score"]) == (two["class"], two["score"])
        factors = np.array([240 / 80, 90 / 60] * 2)
        assert np.array(two["box"]) == pytest.approx(np.array(one["box"]) * factors, abs=0.05)
    columns, rows = task.table([small, []])
    assert columns == ["class", "score", "x1", "y1", "x2", "y2"]
    assert rows[0][0] == [small[0]["class"], small[0]["score"], *small[0]["box"]]
    assert rows[1] == []


def test_boxes_are_drawn_where_they_are() -> None:
    grey = Image.new("RGB", (120, 90), (90, 90, 90))
    found = [{"class": "square", "score": 0.9, "box": [20.0, 30.0, 60.0, 70.0]}]
    drawn = np.asarray(draw_boxes(grey, found))
    colour = np.array(Image.new("RGB", (1, 1), colour_of("square")))[0, 0]
    assert np.array_equal(drawn[50, 20], colour)
    assert np.array_equal(drawn[70, 40], colour)
    assert np.array_equal(drawn[50, 40], [90, 90, 90])
    assert np.array_equal(np.asarray(grey)[50, 20], [90, 90, 90]), "the picture itself stays"
    assert np.array_equal(np.asarray(draw_boxes(grey, [])), np.asarray(grey))


def test_boxes_at_the_edge_are_drawn() -> None:
    found = [{"class": "a long name of a class", "score": 0.5, "box": [-5.0, -3.0, 130.0, 5.0]}]
    assert draw_boxes(Image.new("RGB", (40, 30)), found).size == (40, 30)
    assert draw_boxes(Image.new("RGB", (1, 1)), found).size == (1, 1)


def test_a_classifiers_weights_go_into_the_backbone(tmp_path: Path) -> None:
    classifier = build_model(ModelSpec(name="condconv_mobilenetv1_050", args={"static": True}), 5)
    save_weights(tmp_path / "classifier.safetensors", classifier, {})
    network = opened(write_coco(tmp_path)).network(SPEC)
    left_out = finetune_from(network, tmp_path / "classifier.safetensors")
    own, given = network.state_dict(), classifier.state_dict()
    blocks = [name for name in given if name.startswith("blocks.")]
    assert len(blocks) > 100
    assert all(torch.equal(own[f"backbone.features.{name}"], given[name]) for name in blocks)
    assert any("classification_head" in line for line in left_out)
