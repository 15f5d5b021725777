"""Average precision by object keypoint similarity: pycocotools' figures; nothing found; one person found twice."""

from __future__ import annotations

import contextlib
import io
import json
import math
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynaconv.data.coco import Coco
from dynaconv.data.coco_file import read_coco
from dynaconv.tasks.keypoints.metrics import STATS, Truth
from dynaconv.tasks.keypoints.people import annotated, category_with_keypoints
from dynaconv.tasks.keypoints.pose import make_pose
from tasks.keypoints.files import content, puppet, write_data
from tasks.keypoints.shared_evaluation import evaluate


def truth_of(coco: Coco, *, suppress: bool = False, rows_twice: bool = False) -> tuple[Truth, list[Any]]:
    label, category = category_with_keypoints(coco)
    assert category.skeleton is not None
    people = annotated(coco, label) * (2 if rows_twice else 1)
    pose = make_pose(category.name, category.skeleton)
    return Truth(coco, label, pose, people, suppress=suppress), people


def noisy(people: list[Any], spread: float) -> list[Any]:
    """Poses that miss by about ``spread`` of the box, with scores in no order."""
    random = np.random.default_rng(5)
    poses = []
    for row, person in enumerate(people):
        side = math.sqrt((person.box[2] - person.box[0]) * (person.box[3] - person.box[1]))
        points = person.keypoints[:, :2] + random.normal(0, spread * side, (len(person.keypoints), 2))
        poses.append((row, float(random.random()), points.astype(np.float32)))
    return poses


def by_pycocotools(path: Path, results: list[dict[str, Any]], sigmas: np.ndarray, category: int) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        found = truth.loadRes([{**result, "category_id": category} for result in results])
        run = COCOeval(truth, found, "keypoints")
        run.params.kpt_oks_sigmas = sigmas
        run.params.catIds = [category]
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {name: float(run.stats[place]) for name, place in STATS.items()}


def agree(ours: dict[str, float], theirs: dict[str, float]) -> None:
    for name, value in theirs.items():
        assert math.isnan(ours[name]) if value < 0 else ours[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.1, 0.3])
def test_equal_to_pycocotools_on_puppets(spread: float, tmp_path: Path) -> None:
    nobody = puppet(90, 2, keypoints=[0] * 12, num_keypoints=0, bbox=[0, 0, 20, 20])
    annotations = [puppet(number, 1 + number % 5, area=200.0 * number) for number in range(1, 15)]
    whole = content(6, [*annotations, nobody, puppet(91, 3, iscrowd=1)])
    write_data(tmp_path, whole)
    truth, people = truth_of(read_coco(tmp_path / "keypoints_train.json"))
    results = truth.results(noisy(people, spread))
    ours = truth.average_precision(results)
    agree(ours, by_pycocotools(tmp_path / "keypoints_train.json", results, truth.sigmas, 3))
    if spread == 0:
        assert ours["ap"] == ours["ap50"] == ours["ar"] == pytest.approx(1)


def test_equal_to_pycocotools_on_coco(shared: Path) -> None:
    path = shared / "data" / "coco_subset" / "person_keypoints_val2017.json"
    if not path.is_file():
        pytest.skip("no COCO subset in the folder 'shared'")
    truth, people = truth_of(read_coco(path))
    assert len(people) == 39
    results = truth.results(noisy(people, 0.05))
    ours = truth.average_precision(results)
    assert 0.05 < ours["ap"] < 0.95
    agree(ours, by_pycocotools(path, results, truth.sigmas, 1))


def test_nothing_found(tmp_path: Path) -> None:
    write_data(tmp_path)
    truth, _ = truth_of(read_coco(tmp_path / "keypoints_val.json"))
    found = truth.average_precision([])
    assert (found["ap"], found["ap50"], found["ar"]) == (0, 0, 0)
    assert math.isnan(found["ap_large"]), "24x32 pixels are small for COCO: nobody is large"


def test_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    write_data(tmp_path)
    truth, people = truth_of(read_coco(tmp_path / "keypoints_train.json"))
    poses = [(row, 0.5, points) for row, _, points in noisy(people, 0.1)]
    assert truth.results(poses) == truth.results(poses[::-1])


def test_of_two_poses_of_one_person_the_better_is_kept(tmp_path: Path) -> None:
    write_data(tmp_path)
    coco = read_coco(tmp_path / "keypoints_train.json")
    truth, people = truth_of(coco, suppress=True, rows_twice=True)
    poses = [(row, 0.1 + 0.05 * row, person.keypoints[:, :2]) for row, person in enumerate(people)]
    kept = truth.results(poses)
    assert [result["score"] for result in kept] == pytest.approx([0.4, 0.45, 0.5, 0.55, 0.6, 0.65])
    apart = [(row, score, points + 40 * (row >= 6)) for row, score, points in poses]
    assert len(truth.results(apart)) == 12, "two persons of one picture stay two"
    plain, _ = truth_of(coco, rows_twice=True)
    assert len(plain.results(poses)) == 12, "annotated boxes are one for each person"
    assert json.dumps(kept)


def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", held=content(7))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.keypoints.shared_evaluation", "dynaconv.tasks.keypoints"])
    evaluate(str(data), 0, 1, "", str(tmp_path / "alone"))
    outs = [tmp_path / "first", tmp_path / "second"]
    started = [
        context.Process(target=evaluate, args=(str(data), rank, 2, str(tmp_path / "meeting"), str(out)))
        for rank, out in enumerate(outs)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    alone, first, second = (json.loads((tmp_path / name).read_text()) for name in ("alone", "first", "second"))
    assert (alone.pop("seen"), first.pop("seen"), second.pop("seen")) == (7, 4, 3)
    assert 0.01 < alone["ap"] < alone["ap50"] < 1, "none of the easy numbers"
    for found in (first, second):
        assert found == pytest.approx(alone, nan_ok=True, abs=1e-12)
