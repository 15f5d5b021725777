"""A whole comparison of a very small network: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dynaconv.analysis import CompareSettings, Comparison, compare, measure
from dynaconv.analysis.arms import dynamic_arm, static_arm
from dynaconv.analysis.engine import Nobody
from dynaconv.analysis.folder import MEASURED, RESULT, CompareFolder
from dynaconv.analysis.runs import RunResult, open_for, run_one
from dynaconv.errors import UserError
from dynaconv.files import sealed, unsealed
from dynaconv.train import TrainSettings
from dynaconv.train.run_folder.lock import FolderLock
from tasks.pictures import write_folder

SETTINGS = CompareSettings(
    backbone="test_resnet",
    model_args={"channels": [8, 8, 8, 16]},
    methods=("dynamic",),
    experts=(2,),
    train_images=96,
    batch_size=32,
    seeds=(0, 3),
    training=TrainSettings(epochs=2, opt="adamw", lr=0.01, device="cpu", temperature_epochs=1),
)
LABELS = [("static", 0), ("dynamic K=2", 0), ("static", 3), ("dynamic K=2", 3)]


class Notes(Nobody):
    """Writes down what was run."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int]] = []
        self.measured = 0

    def measuring(self, what: str) -> None:
        self.measured += 1

    def run(self, label: str, seed: int, work: float) -> None:
        self.runs.append((label, seed))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison, Notes]:
    """A finished comparison; tests must leave its folder as they found it."""
    out, notes = tmp_path_factory.mktemp("compare"), Notes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "ROUNDS", measure.FEWEST)  # how long is measured is not what these tests are about
        return out, compare(SETTINGS, out, notes), notes


def test_every_network_with_every_seed_once(done: tuple[Path, Comparison, Notes]) -> None:
    assert done[2].runs == LABELS


def test_json_holds_what_the_answer_holds(done: tuple[Path, Comparison, Notes]) -> None:
    out, comparison, _ = done
    plain = json.loads((out / "compare.json").read_text())
    assert plain == json.loads(json.dumps(comparison.plain()))
    assert set(plain) == {
        *(
            "format",
            "backbone",
            "task",
            "metric",
            "baseline",
            "data",
            "test_images",
            "image_size",
            "batch_size",
            "seeds",
            "settings",
            "about",
            "rows",
        )
    }
    assert plain["seeds"] == [0, 3]
    assert plain["settings"]["training"]["epochs"] == 2
    assert {"dynaconv", "torch", "timm", "device", "threads"} == set(plain["about"])
    static, dynamic = plain["rows"]
    assert (static["method"], static["experts"], static["difference"]) == ("static", None, None)
    assert (dynamic["method"], dynamic["experts"]) == ("dynamic", 2)
    assert dynamic["parameters"] > static["parameters"]
    assert dynamic["madds"] > static["madds"]
    assert dynamic["step_bytes"] > static["step_bytes"]
    assert static["train_ratio"] == static["latency_ratio"] == static["step_bytes_ratio"] == 1.0
    assert [epoch for epoch, _ in dynamic["curve"]] == [1, 2]
    assert static["curve"][-1][1] == pytest.approx(static["top1"])


def test_difference_is_of_the_runs_files(done: tuple[Path, Comparison, Notes]) -> None:
    out, comparison, _ = done
    per_seed = []
    for seed in SETTINGS.seeds:
        ours, theirs = (
            json.loads((out / "runs" / f"{slug}-seed{seed}" / RESULT).read_text()) for slug in ("dynamic-k2", "static")
        )
        assert ours["top1"] == pytest.approx(ours["curve"][-1][1])  # the last epoch's, evaluated anew from the weights
        per_seed.append(ours["top1"] - theirs["top1"])
    assert comparison.rows[1].difference is not None
    assert comparison.rows[1].difference.per_seed == pytest.approx(per_seed)


def test_csv_has_a_line_for_every_network(done: tuple[Path, Comparison, Notes]) -> None:
    rows = list(csv.DictReader((done[0] / "compare.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == ["static", "dynamic"]
    assert rows[0]["difference"] == rows[0]["experts"] == ""
    assert float(rows[1]["top1_seed3"]) == pytest.approx(done[1].rows[1].values[1])
    assert float(rows[1]["difference_low"]) <= float(rows[1]["difference"]) <= float(rows[1]["difference_high"])


def test_pictures_and_markdown_are_there_and_nothing_half(done: tuple[Path, Comparison, Notes]) -> None:
    out = done[0]
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "compare.pdf").read_bytes().startswith(b"%PDF")
    assert "| dynamic | 2 |" in (out / "compare.md").read_text()
    assert not list(out.rglob("*.tmp"))
    assert not list(out.rglob("checkpoints"))


def test_again_it_trains_nothing_and_says_the_same(done: tuple[Path, Comparison, Notes]) -> None:
    out, comparison, _ = done
    notes = Notes()
    assert compare(SETTINGS, out, notes).plain() == comparison.plain()
    assert (notes.runs, notes.measured) == ([], 0)


def test_measurements_of_an_older_version_are_made_again(done: tuple[Path, Comparison, Notes], tmp_path: Path) -> None:
    """0.2 measured the latency of networks that were not frozen."""
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    plain = unsealed(json.loads((out / MEASURED).read_text()))
    for one in plain.values():
        del one["frozen"]
    (out / MEASURED).write_text(json.dumps(sealed(plain)))
    notes = Notes()
    again = compare(SETTINGS, out, notes)
    assert (notes.runs, notes.measured > 0) == ([], True)
    assert [row.values for row in again.rows] == [row.values for row in done[1].rows]


def test_a_missing_run_is_repeated_and_comes_out_the_same(done: tuple[Path, Comparison, Notes]) -> None:
    out, comparison, _ = done
    folder = CompareFolder(out).run_folder(dynamic_arm(SETTINGS, "dynamic", 2), 3)
    for file in folder.iterdir():
        file.unlink()
    notes = Notes()
    assert compare(SETTINGS, out, notes).rows[1].values == comparison.rows[1].values
    assert notes.runs == [("dynamic K=2", 3)]


def test_seeds_may_be_added(done: tuple[Path, Comparison, Notes], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(done[0], tmp_path / "copy")
    notes = Notes()
    comparison = compare(SETTINGS.model_copy(update={"seeds": (0, 3, 5)}), tmp_path / "copy", notes)
    assert notes.runs == [("static", 5), ("dynamic K=2", 5)]
    assert comparison.rows[1].values[:2] == done[1].rows[1].values


def test_other_settings_are_refused_by_name(done: tuple[Path, Comparison, Notes]) -> None:
    other = SETTINGS.model_copy(update={"training": SETTINGS.training.model_copy(update={"lr": 0.02})})
    before = sorted(path.name for path in done[0].iterdir())
    with pytest.raises(UserError, match=r"lr is 0\.01 there and 0\.02 here"):
        compare(other, done[0])
    assert sorted(path.name for path in done[0].iterdir()) == before


def test_a_folder_in_use_is_refused(done: tuple[Path, Comparison, Notes]) -> None:
    with FolderLock(done[0]), pytest.raises(UserError, match="Choose another --out"):
        compare(SETTINGS, done[0])


def test_a_spoilt_result_is_named(tmp_path: Path) -> None:
    folder = CompareFolder(tmp_path)
    place = folder.run_folder(static_arm(SETTINGS), 0)
    place.mkdir(parents=True)
    (place / RESULT).write_text('{"top1":')
    with pytest.raises(UserError, match="changed by hand"):
        folder.result(static_arm(SETTINGS), 0)


def test_an_interrupted_run_goes_on_and_comes_out_the_same(
    done: tuple[Path, Comparison, Notes], tmp_path: Path
) -> None:
    """Killed in its second epoch: the result is that of a run that was never stopped."""

    class Kill:
        def __init__(self) -> None:
            self.epochs = 0

        def start(self, *_: int) -> None: ...

        def step(self, epoch: int, step: int, images: int, loss: float | None) -> None:
            if epoch == 1 and step == 2:
                raise KeyboardInterrupt

        def evaluating(self, *_: int) -> None: ...

        def epoch(self, record: Any) -> None: ...

        def close(self) -> None: ...

    arm = dynamic_arm(SETTINGS, "dynamic", 2)
    with pytest.raises(KeyboardInterrupt):
        run_one(arm, 3, SETTINGS, tmp_path, Kill())
    whole = CompareFolder(done[0]).result(arm, 3)
    again = run_one(arm, 3, SETTINGS, tmp_path)
    assert whole is not None
    assert (again.value, again.curve, again.train_loss) == (whole.value, whole.curve, whole.train_loss)
    assert again.correctness() == whole.correctness()


def test_the_same_pictures_in_the_same_order_for_all(done: tuple[Path, Comparison, Notes]) -> None:
    """Order and augmentation follow from the seed alone, whatever was drawn before the data was opened."""
    import torch

    first = next(iter(open_for(SETTINGS, 3).train_loader))
    torch.rand(17)
    again = next(iter(open_for(SETTINGS, 3).train_loader))
    other = next(iter(open_for(SETTINGS, 0).train_loader))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_results_survive_the_file() -> None:
    result = RunResult("dynamic", 4, 1, 50.0, [(1, 50.0)], [2.0], 1e-3, 0, 1.0, 0.9, "a0", 3)
    assert RunResult.of(json.loads(json.dumps(result.plain()))) == result
    assert result.correctness() == [1, 0, 1]


def test_results_have_the_metrics_name() -> None:
    result = RunResult("condconv", 8, 0, 41.5, [(5, 41.5)], [2.0], 1e-3, 0, None, None, None, 3, "ap", {"ap": 0.415})
    assert result.plain()["ap"] == 41.5
    assert RunResult.of(json.loads(json.dumps(result.plain()))) == result
    assert result.correctness() is None


def test_one_seed_gives_no_interval(done: tuple[Path, Comparison, Notes]) -> None:
    comparison = compare(SETTINGS.model_copy(update={"seeds": (3,)}), done[0])
    row = comparison.rows[1]
    assert row.spread is None
    assert row.difference is not None
    assert row.difference.low is None
    assert "no interval" in row.conclusion
    compare(SETTINGS, done[0])  # the folder as it was


class StopsAtOnce(Nobody):
    """Raises as soon as the folder is held and its facts are written."""

    def measuring(self, what: str) -> None:
        raise KeyboardInterrupt


def test_changed_data_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    chosen = SETTINGS.model_copy(update={"data": str(root), "image_size": 32, "train_images": None, "batch_size": 4})
    with pytest.raises(KeyboardInterrupt):
        compare(chosen, tmp_path / "out", StopsAtOnce())
    with pytest.raises(KeyboardInterrupt):
        compare(chosen, tmp_path / "out", StopsAtOnce())
    (root / "train" / "cat" / "001.png").write_bytes(b"another picture")
    with pytest.raises(UserError, match=r"images of train/cat is '8 images, digest .*' there and '8 images"):
        compare(chosen, tmp_path / "out", StopsAtOnce())
