"""Inspection from end to end: a network and images of which the routing is known; the data of every figure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.routes import CLASSES, flat_images, settings, weights
from dynaconv.analysis.routes import Inspection, figures, inspect_run, write_inspection
from dynaconv.analysis.routes.interventions import patterns
from dynaconv.analysis.routes.page import page_data
from dynaconv.analysis.routes.statistics import RoutingSums
from dynaconv.analysis.routes.words import summary
from dynaconv.errors import UserError
from dynaconv.inspection import intervene, read_routing
from dynaconv.tasks.classification.folder import Folder
from dynaconv.train.run_folder.weights import load_trained


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inspection, Path]:
    place = tmp_path_factory.mktemp("inspect")
    data, run = flat_images(place / "data"), weights(place / "best.safetensors")
    inspection = inspect_run(run, place / "out", settings(data, intervene=True, batch_size=5))
    return inspection, place


def test_the_statistics_are_those_of_the_known_routing(found: tuple[Inspection, Path]) -> None:
    """All images of a class are equal: the class says all about the routing, and nothing varies within one."""
    inspection, place = found
    assert inspection.images == 12
    trained = load_trained(place / "best.safetensors")
    levels = torch.tensor([-1.0, 128 / 127.5 - 1, 1.0])
    with torch.no_grad():
        inputs = levels[:, None, None, None].expand(3, 3, 32, 32)
        logits = trained.model(inputs)
        hidden = trained.model.maxpool(trained.model.act1(trained.model.bn1(trained.model.conv1(inputs))))
        own = trained.model.layer1[0].router(hidden)
    reports = {report.router.name: report for report in inspection.routers}
    sums = reports["layer1.0"].sums
    np.testing.assert_allclose(sums.class_mean(), own.numpy(), atol=2e-3)
    for report in inspection.routers:
        assert report.sums.class_deviation() == pytest.approx(0, abs=1e-5)
        share = report.sums.class_share()
        assert share is None or share == pytest.approx(1, abs=1e-3)
    assert inspection.top1 == pytest.approx(float((logits.argmax(1) == torch.arange(3)).float().mean()))
    assert inspection.top5 == 1


def test_the_recording_has_every_image_with_its_class(found: tuple[Inspection, Path]) -> None:
    inspection, place = found
    routers, groups = read_routing(place / "out" / "routing.parquet")
    rows = list(groups)
    assert [router.name for router in routers] == [report.router.name for report in inspection.routers]
    assert [label for group in rows for label in group.columns["label"]] == [0] * 4 + [1] * 4 + [2] * 4
    weights = np.concatenate([group.weights[routers[-1].name] for group in rows])
    np.testing.assert_allclose(weights.reshape(3, 4, -1).mean(1), inspection.routers[-1].sums.class_mean(), atol=1e-6)


def test_the_samples_have_their_own_routes(found: tuple[Inspection, Path]) -> None:
    inspection, _ = found
    picked = [sample for sample in inspection.samples if sample.picked]
    assert [sample.label for sample in picked] == [0, 0, 1, 1, 2, 2]
    for sample in inspection.samples:
        for report in inspection.routers:
            expected = report.sums.class_mean()[sample.label]
            np.testing.assert_allclose(sample.weights[report.router.name], expected, atol=1e-4)
        assert sample.picture is not None
        assert sample.picture.getpixel((8, 8))[0] == [0, 128, 255][sample.label]


def test_json_is_whole_and_says_the_same(found: tuple[Inspection, Path]) -> None:
    inspection, place = found
    files = write_inspection(inspection, place / "out")
    assert all(file.stat().st_size > 500 for file in files)
    assert {file.suffix for file in files} == {".html", ".json", ".parquet", ".png", ".svg"}
    plain = json.loads((place / "out" / "inspect.json").read_text())
    assert plain["classes"] == list(CLASSES)
    last = plain["routers"][-1]
    np.testing.assert_allclose(last["class_mean"], inspection.routers[-1].sums.class_mean(), rtol=1e-4)
    best = int(np.argmax(np.array(last["class_mean"])[:, 0]))
    assert last["top_classes"][0][0]["class"] == CLASSES[best]
    assert Path(last["top_classes"][0][0]["image"]).parent.name == CLASSES[best]
    assert [row["how"] for row in plain["interventions"]["kernels"]] == [
        *("none", "average", "max", "shuffle_experts", "shuffle_images"),
    ]
    assert plain["interventions"]["kernels"][0]["top1"] == plain["top1"]


def heights(axes: Any) -> np.ndarray:
    return np.array([[bar.get_height() for bar in group] for group in axes.containers if hasattr(group, "patches")])


def test_the_data_of_every_figure(found: tuple[Inspection, Path]) -> None:
    inspection, _ = found
    last = inspection.routers[-1].sums
    drawn = dict(figures.draw_all(inspection))
    labels = figures.chosen_classes(inspection)

    panels = drawn["classes-by-depth"].axes
    assert len(panels) == 3
    for axes, report in zip(panels, figures.three_depths(inspection.routers), strict=True):
        np.testing.assert_allclose(heights(axes), report.sums.class_mean()[labels])

    left, right, *_ = drawn["distribution"].axes
    (stairs,) = left.patches
    np.testing.assert_allclose(stairs.get_data().values, 100 * last.histogram / last.histogram.sum())
    assert right.images[0].get_array().shape == (50, len(inspection.routers))
    np.testing.assert_allclose(right.images[0].get_array().sum(axis=0), 100)
    assert all(tick == round(tick) for tick in right.get_xticks())

    (axes,) = drawn["within-class"].axes
    np.testing.assert_allclose(heights(axes), last.class_mean()[figures.chosen_classes(inspection, 2)])

    grid = drawn["experts"].axes
    assert len(grid) == last.experts * 3
    shown = [axes.get_title().split("\n")[0] for axes in grid[:3]]
    assert shown == [CLASSES[label] for label in np.argsort(-last.class_mean()[:, 0], kind="stable")]
    levels = [int(axes.images[0].get_array()[8, 8, 0]) for axes in grid[:3]]
    assert levels == [{"black": 0, "grey & <b>": 128, "white": 255}[name] for name in shown]

    left, right = drawn["depth"].axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [report.sums.entropy_mean() for report in inspection.routers])
    shares = [report.sums.class_share() for report in inspection.routers]
    np.testing.assert_allclose(
        np.array(right.lines[0].get_ydata(), float), [np.nan if share is None else share for share in shares]
    )

    matrix, by_depth, *_ = drawn["similarity"].axes
    similarity = list(inspection.routers[-1].similarity.values())[-1]
    np.testing.assert_allclose(matrix.images[0].get_array(), similarity)
    assert by_depth.lines[0].get_ydata()[-1] == pytest.approx(similarity[np.triu_indices(3, 1)].max())
    assert by_depth.lines[1].get_ydata()[-1] == pytest.approx(similarity[np.triu_indices(3, 1)].mean())


def test_the_error_bars_are_standard_deviations(found: tuple[Inspection, Path]) -> None:
    inspection, _ = found
    random = np.random.default_rng(0)
    sums = RoutingSums(3, 3)
    sums.update(random.random((30, 3)), np.repeat([0, 1, 2], 10), np.arange(30))
    last = replace(inspection.routers[-1], sums=sums)
    inspection = replace(inspection, routers=[*inspection.routers[:-1], last])
    (axes,) = figures.within_class(inspection).axes
    label = figures.chosen_classes(inspection, 2)[0]
    bars = axes.collections[0].get_segments()
    spread = [(high - low) / 2 for (_, low), (_, high) in bars]
    np.testing.assert_allclose(spread, sums.class_deviation()[label])


def test_interventions_read_every_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding takes most of the time: every batch goes through the network with each intervention."""
    data, run = flat_images(tmp_path / "data"), weights(tmp_path / "w.safetensors")
    names: list[str] = []
    image = Folder.image
    monkeypatch.setattr(Folder, "image", lambda self, row: (names.append(self.name(row)), image(self, row))[1])
    inspect_run(run, tmp_path / "out", settings(data, intervene=True, batch_size=5, shown=1))
    assert len(names) <= 2 * 12 + 10  # the recording, the interventions, the pictures of the page


def test_interventions_are_those_of_a_network_that_runs_alone(found: tuple[Inspection, Path]) -> None:
    """Average and max do not depend on the batch: the same accuracy comes from the network by hand."""
    inspection, place = found
    model = load_trained(place / "best.safetensors").model
    levels = torch.tensor([-1.0, 128 / 127.5 - 1, 1.0])
    inputs = levels[:, None, None, None].expand(3, 3, 32, 32)
    rows = {row.how: row for row in inspection.interventions.kernels}  # type: ignore[union-attr]
    for how in ("average", "max"):
        with torch.no_grad(), intervene(model, how):
            right = (model(inputs).argmax(1) == torch.arange(3)).float().mean()
        assert rows[how].top1 == pytest.approx(float(right))
    sizes = inspection.interventions.resolutions  # type: ignore[union-attr]
    with torch.no_grad(), intervene(model, "average", resolutions=sizes[1:]):
        right = (model(inputs).argmax(1) == torch.arange(3)).float().mean()
    only_first = (True, *[False] * (len(sizes) - 1))
    by_resolution = {row.enabled: row for row in inspection.interventions.by_resolution}  # type: ignore[union-attr]
    assert by_resolution[only_first].top1 == pytest.approx(float(right))


def test_the_rows_of_table_4_are_the_papers() -> None:
    text = ["".join("x" if on else "-" for on in row) for row in patterns(5)]
    paper = "----x ---xx --xxx -xxxx xxxxx xxxx- xxx-- xx--- x---- -----"
    assert text == paper.split()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": None}, "test_resnet with ordinary layers: it has no dynamic layer"),
        ({"router": float("nan")}, "are not finite for 12 of 12 images"),
        ({"classes": ("cat", "dog", "fox")}, "Expected the same names in the same order"),
    ],
)
def test_what_cannot_be_inspected_is_said(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    data, run = flat_images(tmp_path / "data"), weights(tmp_path / "w.safetensors", **options)
    with pytest.raises(UserError, match=expected):
        inspect_run(run, tmp_path / "out", settings(data))
    assert not (tmp_path / "out" / "routing.parquet").exists()


def test_one_image_and_images_that_are_all_the_same(tmp_path: Path) -> None:
    data = flat_images(tmp_path / "data", per_class=1)
    run = weights(tmp_path / "w.safetensors", method="dynamic")
    one = inspect_run(run, tmp_path / "one", settings(data, limit=1, intervene=True))
    assert one.images == 1
    files = write_inspection(one, tmp_path / "one")
    assert all(file.is_file() for file in files)
    plain = one.plain()
    assert plain["routers"][0]["class_share"] is None
    assert plain["interventions"]["kernels"][-1]["note"] == "one image: there is no other one"
    constant = inspect_run(
        weights(tmp_path / "c.safetensors", router=0.0), tmp_path / "constant", settings(data, intervene=True)
    )
    assert page_data(constant)["routers"][0]["class_share"] is None
    assert f"{len(constant.routers)} of {len(constant.routers)} routers return the same weights" in summary(constant)
    assert "same weights" not in summary(one)
    for report in constant.routers:
        assert report.constant()
        assert report.sums.class_share() is None
        np.testing.assert_allclose(report.sums.mean(), 0.5)  # sigmoid(0)
        assert report.sums.entropy_mean() == pytest.approx(1)
    assert {row.top1 for row in constant.interventions.kernels if row.how != "max"} == {constant.top1}  # type: ignore[union-attr]


def test_unreadable_images_stop_it_or_are_left_out(tmp_path: Path) -> None:
    data, run = flat_images(tmp_path / "data"), weights(tmp_path / "w.safetensors")
    (data / "val" / "black" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="Cannot read the image"):
        inspect_run(run, tmp_path / "out", settings(data))
    found = inspect_run(
        run, tmp_path / "out", settings(data, bad_images="skip", intervene=True, batch_size=2, shown=12)
    )
    assert found.images == 11
    assert list(found.skipped) == [str(data / "val" / "black" / "0.png")]
    assert len([sample for sample in found.samples if sample.picked]) == 11


def test_the_recordings_memory_does_not_hold_the_images(tmp_path: Path) -> None:
    """What is kept is sums: their size depends on classes and experts, not on images."""

    def size(images: int) -> int:
        sums = RoutingSums(3, 4)
        for _ in range(images // 10):
            sums.update(np.random.default_rng(0).random((10, 4)), np.arange(10) % 3, np.arange(10))
        return sum(value.nbytes for value in vars(sums).values() if isinstance(value, np.ndarray))

    assert size(10) == size(1000)


def test_a_class_that_is_not_there_is_named(tmp_path: Path) -> None:
    data, run = flat_images(tmp_path / "data"), weights(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="Did you mean 'white'"):
        inspect_run(run, tmp_path / "out", settings(data, figure_classes=("whte",)))
