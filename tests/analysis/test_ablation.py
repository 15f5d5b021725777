"""A whole study of very thin networks: what it writes, how it goes on, how processes share it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from dynaconv.analysis import ablation, measure, widths
from dynaconv.analysis.ablation import ablate
from dynaconv.analysis.arms import Arm
from dynaconv.analysis.engine import Nobody
from dynaconv.analysis.raw import Raw, StudyFolder, take_known
from dynaconv.analysis.studies import STUDIES, find_study
from dynaconv.analysis.study_report import markdown
from dynaconv.analysis.study_result import Ablation, summarise_study
from dynaconv.analysis.study_settings import StudySettings, arm_of
from dynaconv.analysis.verdicts import NOT_RUN
from dynaconv.errors import RunError, UserError
from dynaconv.tasks.network import ModelSpec, build_model
from dynaconv.train.run_folder.lock import FolderLock
from tasks.keypoints.files import write_data
from train.forked import PRELOAD

GIVEN = {"data": "digits", "train_images": 64, "batch_size": 32, "width": 0.125, "seeds": (0, 2)}
RECIPE = {"epochs": 2, "device": "cpu", "eval_every": 1}
ALL = [(arm, seed) for seed in (0, 2) for arm in ("softmax", "sigmoid")]


class Notes(Nobody):
    """Writes down what was run and measured."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int]] = []
        self.measured = 0

    def measuring(self, what: str) -> None:
        self.measured += 1

    def run(self, label: str, seed: int, work: float) -> None:
        self.runs.append((label, seed))


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long is measured is not what these tests are about."""
    monkeypatch.setattr(measure, "ROUNDS", 1)
    monkeypatch.setattr(measure, "FEWEST", 1)
    monkeypatch.setattr(widths, "ROUNDS", 1)


def sigmoid(**given: Any) -> StudySettings:
    """The study with two arms, small."""
    return StudySettings.of_study("sigmoid", {**GIVEN, **given}, RECIPE)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ablation, Notes]:
    """A finished study; tests must leave its folder as they found it."""
    out, notes = tmp_path_factory.mktemp("ablate"), Notes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "ROUNDS", 1)
        patch.setattr(measure, "FEWEST", 1)
        return out, ablate(sigmoid(), out, watcher=notes), notes


def scores(result: Ablation) -> dict[str, tuple[float, ...]]:
    return {row.slug: row.scores for row in result.rows}


def test_every_arm_with_every_seed_once_seed_by_seed(done: tuple[Path, Ablation, Notes]) -> None:
    out, result, notes = done
    assert notes.runs == [(label, seed) for seed in (0, 2) for label in ("sigmoid, K=4", "softmax, K=4")]
    assert [row.seeds for row in result.rows] == [(0, 2), (0, 2)]
    raw = json.loads((out / "raw.json").read_text())
    assert set(raw) == {"format", "study", "facts", "arms", "measured", "results", "checksums"}
    assert {slug: list(by_seed) for slug, by_seed in raw["results"].items()} == {
        "sigmoid": ["0", "2"],
        "softmax": ["0", "2"],
    }
    assert {"dynaconv", "torch", "timm", "device", "threads"} == set(raw["results"]["softmax"]["2"]["about"])
    assert not list(out.rglob("*.tmp"))
    assert not list(out.rglob("checkpoints"))
    assert (out / "runs" / "softmax-seed2" / "last.safetensors").is_file()


def test_the_table_has_the_papers_side_and_ours(done: tuple[Path, Ablation, Notes]) -> None:
    out, result, _ = done
    _, softmax = result.rows
    assert softmax.pair is not None
    assert softmax.pair.difference is not None
    per_seed = tuple(ours - theirs for ours, theirs in zip(*reversed(scores(result).values()), strict=True))
    assert softmax.pair.difference.per_seed == pytest.approx(per_seed)
    assert json.loads((out / "ablate.json").read_text()) == json.loads(json.dumps(result.plain()))
    table = (out / "ablate.md").read_text()
    assert table == markdown(result) + "\n"
    assert "| softmax, K=4 |" in table
    assert softmax.pair.verdict in table
    assert (out / "ablate.csv").read_text().startswith("arm,parameters,madds")
    assert "Network: width multiplier 0.125.  " in table
    facts = {**result.facts, "network": "resnet10t", "width": None, "network_args": {"stem_width": 8}}
    other = replace(result, facts=facts)
    assert "Network: resnet10t in place of the study's, stem_width=8." in markdown(other)
    assert "Network:" not in markdown(replace(result, facts={**facts, "network": None, "network_args": {}}))


def test_results_alone_suffice(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    """In another folder, with nothing but the raw file: nothing is trained or measured, and the table is the same."""
    raw = tmp_path / "kept" / "sigmoid.json"
    raw.parent.mkdir()
    raw.write_text((done[0] / "raw.json").read_text())
    notes = Notes()
    again = ablate(sigmoid(), tmp_path / "out", raw, notes)
    assert (notes.runs, notes.measured) == ([], 0)
    assert again.plain() == done[1].plain()
    more = ablate(sigmoid(seeds=(0, 2, 4)), tmp_path / "out", raw, notes)
    assert notes.runs == [("sigmoid, K=4", 4), ("softmax, K=4", 4)]
    assert [row.seeds for row in more.rows] == [(0, 2, 4)] * 2
    assert all(new[:2] == old for new, old in zip(scores(more).values(), scores(done[1]).values(), strict=True))


def test_an_older_file_is_measured_again_and_keeps_its_results(
    done: tuple[Path, Ablation, Notes], tmp_path: Path
) -> None:
    """0.2 measured the latency of networks that were not frozen."""
    path = tmp_path / "sigmoid.json"
    path.write_text((done[0] / "raw.json").read_text())
    content = Raw(path, "sigmoid").read()
    for one in content["measured"].values():
        del one["frozen"]
    Raw(path, "sigmoid").write(content)
    assert [row.frozen_ratio for row in summarise_study(find_study("sigmoid"), content).rows] == [None, None]
    notes = Notes()
    again = ablate(sigmoid(), tmp_path / "out", path, notes)
    assert (notes.runs, notes.measured > 0) == ([], True)
    assert all(row.frozen_ratio is not None for row in again.rows)
    assert scores(again) == scores(done[1])


def test_a_missing_result_is_computed_anew_and_is_the_same(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    content = json.loads((done[0] / "raw.json").read_text())
    del content["results"]["softmax"]["2"]
    (tmp_path / "raw.json").write_text(json.dumps(content))
    notes = Notes()
    assert scores(ablate(sigmoid(), tmp_path, watcher=notes)) == scores(done[1])
    assert notes.runs == [("softmax, K=4", 2)]


def test_a_run_that_another_study_has_is_taken(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    """Softmax routers are the dynamic arm of the main comparison: with the same seed, the same run."""
    known, notes = done[0] / "raw.json", Notes()
    main = StudySettings.of_study("evidence", {**GIVEN, "seeds": (2,), "arms": ("dynamic",)}, RECIPE)
    result = ablate(main, tmp_path, watcher=notes, known=[known])
    assert notes.runs == [("static", 2)]
    assert scores(result)["dynamic"] == scores(done[1])["softmax"][1:]
    kept = json.loads((tmp_path / "raw.json").read_text())["results"]
    assert kept["dynamic"]["2"]["about"]["study"] == "sigmoid"
    assert "study" not in kept["static"]["2"]["about"]
    assert "Runs of the study sigmoid, and not new ones: dynamic K=4." in markdown(result)
    assert all("study" not in about for about in result.about)


def test_results_of_before_there_was_a_setting_are_taken(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    """A setting that the other file is too old to have had its default there."""
    older = json.loads((done[0] / "raw.json").read_text())
    main = StudySettings.of_study("evidence", {**GIVEN, "arms": ("dynamic",)}, RECIPE)
    content = {**older, "facts": dict(older["facts"]), "results": {}, "arms": {"dynamic": older["arms"]["softmax"]}}
    del older["facts"]["warmup_epochs"], older["checksums"]["facts"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    take_known(content, tmp_path / "older.json", (2,), main.defaults())
    assert list(content["results"]["dynamic"]) == ["2"]
    older["facts"]["warmup_epochs"] = 7
    (tmp_path / "older.json").write_text(json.dumps(older))
    with pytest.raises(UserError, match="warmup_epochs is 7 there and 0 here"):
        take_known(content, tmp_path / "older.json", (2,), main.defaults())


def test_runs_of_another_recipe_are_not_taken(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    known = done[0] / "raw.json"
    other = StudySettings.of_study("evidence", {**GIVEN, "arms": ("dynamic",)}, {**RECIPE, "lr": 0.01})
    with pytest.raises(
        UserError, match=r"cannot be taken \(--known\), other settings: lr is 0\.003 there and 0\.01 here"
    ):
        ablate(other, tmp_path, known=[known])
    assert not (tmp_path / "raw.json").exists()
    with pytest.raises(UserError, match=r"no raw results at .*absent\.json \(--known\)"):
        ablate(sigmoid(), tmp_path, known=[tmp_path / "absent.json"])


def test_other_settings_are_refused_by_name(done: tuple[Path, Ablation, Notes]) -> None:
    before = (done[0] / "raw.json").read_text()
    other = StudySettings.of_study("sigmoid", GIVEN, {**RECIPE, "lr": 0.01})
    with pytest.raises(UserError, match=r"lr is 0\.003 there and 0\.01 here"):
        ablate(other, done[0])
    with pytest.raises(UserError, match="train_images is 64 there and 63 here"):
        ablate(sigmoid(train_images=63), done[0])
    with pytest.raises(UserError, match="holds the study 'sigmoid', and this is 'evidence'"):
        ablate(StudySettings.of_study("evidence", GIVEN, RECIPE), done[0])
    assert (done[0] / "raw.json").read_text() == before


def test_results_from_before_an_option_had_its_default(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    content = json.loads((done[0] / "raw.json").read_text())
    del content["facts"]["mixup_prob"], content["facts"]["momentum"], content["checksums"]
    (tmp_path / "raw.json").write_text(json.dumps(content))
    notes = Notes()
    assert scores(ablate(sigmoid(), tmp_path, watcher=notes)) == scores(done[1])
    assert notes.runs == []
    other = StudySettings.of_study("sigmoid", GIVEN, {**RECIPE, "momentum": 0.5})
    (tmp_path / "raw.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"momentum is 0\.9 there and 0\.5 here"):
        ablate(other, tmp_path)


def test_an_arm_that_is_another_one_is_refused(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    content = json.loads((done[0] / "raw.json").read_text())
    content["arms"]["softmax"]["model"]["experts"] = 8
    del content["checksums"]
    (tmp_path / "raw.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="have an arm softmax whose model is"):
        ablate(sigmoid(), tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 1, "study": "sigmoid"}', '{"format": 1, "results": {}}', "[" * 100_000]
)
def test_spoilt_raw_results_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "raw.json").write_text(text)
    with pytest.raises(UserError, match=r"raw\.json"):
        ablate(sigmoid(), tmp_path)


@pytest.mark.parametrize(
    ("named", "place", "value"),
    [
        ("results/softmax/2", ("results", "softmax", "2", "top1"), 99.0),
        ("results/softmax/2", ("results", "softmax", "2"), None),
        ("arms/sigmoid", ("arms", "sigmoid", "madds"), 1.0),
        ("measured/sigmoid", ("measured", "sigmoid", "step", "ratio"), 0.5),
        ("facts", ("facts", "seed_of_nothing"), 1),
        ("results", ("results",), []),
        ("checksums", ("checksums",), None),
    ],
)
def test_changed_raw_results_are_named(
    done: tuple[Path, Ablation, Notes], tmp_path: Path, named: str, place: tuple[str, ...], value: object
) -> None:
    """A digit that another hand or a bad disk changed would make another table in silence."""
    content = json.loads((done[0] / "raw.json").read_text())
    *inner, last = place
    part = content
    for name in inner:
        part = part[name]
    part[last] = value
    (tmp_path / "raw.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"raw\.json is damaged: {named} "):
        Raw(tmp_path / "raw.json", "sigmoid").read()


@pytest.mark.parametrize("content", [{}, {"top1": 3.0}, {"top1": 3.0, "curve": [[0]]}])
def test_a_result_without_checksum_must_be_one(
    done: tuple[Path, Ablation, Notes], tmp_path: Path, content: object
) -> None:
    whole = json.loads((done[0] / "raw.json").read_text())
    whole["results"]["softmax"]["3"] = content
    (tmp_path / "raw.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match="is damaged: results/softmax/3"):
        Raw(tmp_path / "raw.json", "sigmoid").read()


def test_raw_results_in_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "raw.json")
    with pytest.raises(UserError, match=r"raw\.json cannot be read"):
        Raw(tmp_path / "raw.json", "sigmoid").read()


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="Cannot write to --out"):
        ablate(sigmoid(), tmp_path / "file" / "out")
    with pytest.raises(RunError, match="Cannot write"):
        ablate(sigmoid(), tmp_path / "out", tmp_path / "file" / "raw.json")


def test_controls_are_widened_and_keep_their_width(tmp_path: Path) -> None:
    """The static networks as costly as the dynamic one: found once, kept in the raw file, built so ever after."""
    settings = StudySettings.of_study(
        "evidence",
        {**GIVEN, "width": 0.25, "seeds": (0,), "arms": ("wide-throughput", "wide-parameters")},
        {**RECIPE, "epochs": 1},
    )
    result = ablate(settings, tmp_path)
    rows = {row.slug: row for row in result.rows}
    assert [slug for slug, row in rows.items() if row.seeds] == [
        "static",
        "dynamic",
        "wide-throughput",
        "wide-parameters",
    ]
    dynamic, wide = rows["dynamic"], rows["wide-parameters"]
    assert wide.width is not None
    assert wide.parameters is not None
    assert dynamic.parameters is not None
    assert abs(wide.parameters / dynamic.parameters - 1) < 0.2
    assert wide.width["ratio"] == pytest.approx(wide.parameters / dynamic.parameters)
    content = json.loads((tmp_path / "raw.json").read_text())
    kept = content["arms"]["wide-throughput"]["width"]
    assert content["arms"]["wide-throughput"]["model"]["args"]["width_multiplier"] == kept["width_multiplier"]
    content["results"], content["measured"] = {}, {}
    del content["checksums"]
    content["arms"]["wide-throughput"]["width"] = {"width_multiplier": 1.0, "ratio": 1.0}
    content["arms"]["wide-throughput"]["model"]["args"]["width_multiplier"] = 1.0
    (tmp_path / "raw.json").write_text(json.dumps(content))
    rows = {row.slug: row for row in ablate(settings, tmp_path / "again", tmp_path / "raw.json").rows}
    assert rows["wide-throughput"].width == {"width_multiplier": 1.0, "ratio": 1.0}
    assert rows["wide-throughput"].parameters == sum(p.numel() for p in _thin(1.0).parameters())
    assert rows["condconv"].pair is not None
    assert rows["condconv"].pair.verdict == NOT_RUN


def test_the_same_throughput_is_that_of_frozen_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user classifies with frozen networks; layers as they train would allow a wider rival."""
    timed: list[torch.nn.Module] = []

    def first(build: Any, base: float, target: torch.nn.Module, images: torch.Tensor) -> widths.Width:
        timed.extend([build(2 * base), target])
        assert len(images) == GIVEN["batch_size"]
        return widths.Width(2 * base, 1.0)

    monkeypatch.setattr(ablation, "width_for_time", first)
    settings = StudySettings.of_study(
        "evidence", {**GIVEN, "width": 0.25, "seeds": (0,), "arms": ("wide-throughput",)}, {**RECIPE, "epochs": 1}
    )
    rows = {row.slug: row for row in ablate(settings, tmp_path).rows}
    assert rows["wide-throughput"].width == {"width_multiplier": 0.5, "ratio": 1.0}
    wide, dynamic = (network.freeze_report for network in timed)
    assert (len(wide.norms) > 0, wide.layers) == (True, ())
    assert (len(dynamic.norms) > 0, len(dynamic.layers) > 0) == (True, True)


def _thin(width: float) -> torch.nn.Module:
    args = {"width_multiplier": width, "blocks": [1, 1, 1], "stem_stride": 2}
    return build_model(ModelSpec(name="small_resnet", args=args), 10)


def test_the_width_of_a_number_of_parameters() -> None:
    target = sum(parameter.numel() for parameter in _thin(0.75).parameters())
    found = widths.width_for_parameters(_thin, 0.25, target)
    assert found.ratio == 1.0
    assert [p.shape for p in _thin(found.width_multiplier).parameters()] == [p.shape for p in _thin(0.75).parameters()]
    with pytest.raises(UserError, match="no width from"):
        widths.width_for_parameters(_thin, 0.25, 10)


def test_the_width_of_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that is the number of parameters, the network of the target's own width is found."""
    monkeypatch.setattr(
        widths,
        "_ratios",
        lambda target, networks, images: [
            sum(p.numel() for p in one.parameters()) / sum(p.numel() for p in target.parameters()) for one in networks
        ],
    )
    for width in (0.25, 0.5, 2.0):
        found = widths.width_for_time(_thin, 0.25, _thin(width), torch.zeros(1, 3, 32, 32))
        assert found.ratio == pytest.approx(1.0, abs=0.1)
        assert found.width_multiplier == pytest.approx(width, rel=0.05)


def test_arms_that_are_the_same_are_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both controls turn out to be one network, a run of the one is a run of the other."""
    same = widths.Width(0.5, 1.0)
    monkeypatch.setattr(ablation, "width_for_time", lambda *_: same)
    monkeypatch.setattr(ablation, "width_for_parameters", lambda *_: same)
    settings = StudySettings.of_study(
        "evidence", {**GIVEN, "seeds": (0,), "arms": ("wide-throughput", "wide-parameters")}, {**RECIPE, "epochs": 1}
    )
    notes = Notes()
    result = ablate(settings, tmp_path, watcher=notes)
    assert [label for label, _ in notes.runs] == ["static", "dynamic K=4", "static, dynamic's throughput"]
    rows = {row.slug: row for row in result.rows}
    assert rows["wide-parameters"].scores == rows["wide-throughput"].scores


def test_a_result_taken_from_an_equal_arm_keeps_what_computed_it(
    done: tuple[Path, Ablation, Notes], tmp_path: Path
) -> None:
    (tmp_path / "raw.json").write_text((done[0] / "raw.json").read_text())
    folder = StudyFolder(tmp_path, Raw(tmp_path / "raw.json", "sigmoid"), {"device": "another"})
    model = ModelSpec(name="small_resnet")
    first, twin = (Arm(slug=slug, label=slug, model=model) for slug in ("softmax", "twin"))
    result = folder.result(first, 2)
    assert result is not None
    folder.copy_result(twin, first, result)
    kept = folder.raw.read()["results"]
    assert kept["twin"]["2"] == kept["softmax"]["2"]
    folder.keep_result(twin, result)
    assert folder.raw.read()["results"]["twin"]["2"]["about"] == {"device": "another"}


def test_an_arm_is_left_to_the_process_that_runs_an_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = widths.Width(0.5, 1.0)
    monkeypatch.setattr(ablation, "width_for_time", lambda *_: same)
    monkeypatch.setattr(ablation, "width_for_parameters", lambda *_: same)
    held = tmp_path / "claims" / "wide-throughput-seed0"
    held.mkdir(parents=True)
    lock = FolderLock(held)
    lock.__enter__()

    class Frees(Notes):
        def waiting(self, runs: int) -> None:
            assert [label for label, _ in self.runs] == ["static", "dynamic K=4"]
            lock.__exit__()

    settings = StudySettings.of_study(
        "evidence", {**GIVEN, "seeds": (0,), "arms": ("wide-throughput", "wide-parameters")}, {**RECIPE, "epochs": 1}
    )
    notes = Frees()
    ablate(settings, tmp_path, watcher=notes)
    assert [label for label, _ in notes.runs] == ["static", "dynamic K=4", "static, dynamic's throughput"]


def test_an_upgrade_goes_on_from_the_trained_static_network(tmp_path: Path) -> None:
    settings = StudySettings.of_study(
        "upgrade", {**GIVEN, "seeds": (1,), "arms": ("upgraded", "restarted")}, {**RECIPE, "epochs": 3}
    )
    result = ablate(settings, tmp_path)
    raw = json.loads((tmp_path / "raw.json").read_text())
    upgraded, restarted = (raw["results"][slug]["1"] for slug in ("upgraded", "restarted"))
    assert [epoch for epoch, _ in upgraded["curve"]] == [1]  # two epochs of static training, one of dynamic
    assert upgraded["routing_entropy"] is not None
    assert restarted["routing_entropy"] is None
    assert raw["arms"]["upgraded"]["begins_from"]["training"]["epochs"] == 2
    assert {row.slug for row in result.rows if row.seeds} == {"dynamic", "upgraded", "restarted"}
    assert not (tmp_path / "runs" / "upgraded-seed1" / "beginning").exists()
    with pytest.raises(UserError, match="1 epochs for two parts"):
        ablate(StudySettings.of_study("upgrade", GIVEN, {**RECIPE, "epochs": 1}), tmp_path / "short")


def test_the_upgraded_network_computes_nearly_what_the_static_one_does() -> None:
    from dynaconv.analysis.runs import open_for

    study = find_study("upgrade")
    settings = StudySettings.of_study("upgrade", GIVEN, RECIPE)
    data = open_for(settings, 0)
    arm = arm_of(study, study.arm("upgraded"), settings)
    assert arm.begins_from is not None
    static = arm.begins_from.build(settings, data, 0).eval()
    images = torch.randn(4, 3, 32, 32)
    before = static(images)
    after = arm.upgrade(static, data, 0).eval()(images)
    assert torch.allclose(before, after, atol=0.05 * float(before.detach().std()))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_of_keypoints(tmp_path: Path) -> None:
    """Another task: its own figure is compared, and the parts that two arms share begin with the same weights."""
    from dynaconv.analysis.runs import open_for

    write_data(tmp_path / "data")
    given = {
        "data": str(tmp_path / "data"),
        "arms": ("head",),
        "seeds": (0, 1),
        "batch_size": 4,
        "image_size": (64, 64),
    }
    settings = StudySettings.of_study("keypoints", given, {"epochs": 1, "device": "cpu"})
    study = find_study("keypoints")
    data = open_for(settings, 0)
    static, head = (
        arm_of(study, study.arm(slug), settings).build(settings, data, 0).state_dict() for slug in ("static", "head")
    )
    assert set(static) <= set(head)
    for name, value in static.items():
        assert torch.equal(head[name] if head[name].shape == value.shape else head[name][0], value), name
    result = ablate(settings, tmp_path / "out")
    rows = {row.slug: row for row in result.rows if row.seeds}
    assert set(rows) == {"static", "head"}
    assert rows["head"].pair is not None
    assert rows["head"].pair.published == pytest.approx(1.1)
    assert json.loads((tmp_path / "out" / "raw.json").read_text())["results"]["head"]["1"]["metric"] == "ap"


def test_a_run_of_another_process_is_left_to_it(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    """One run is claimed by another process, which ends without a result: it is done here in the end."""
    content = json.loads((done[0] / "raw.json").read_text())
    content["results"] = {}
    (tmp_path / "raw.json").write_text(json.dumps(content))
    held = tmp_path / "claims" / "sigmoid-seed0"
    held.mkdir(parents=True)
    lock = FolderLock(held)
    lock.__enter__()

    class Frees(Notes):
        waited = 0

        def waiting(self, runs: int) -> None:
            assert runs == 1
            self.waited += 1
            lock.__exit__()

    notes = Frees()
    result = ablate(sigmoid(), tmp_path, watcher=notes)
    assert notes.waited == 1
    assert notes.runs[-1] == ("sigmoid, K=4", 0)
    assert len(notes.runs) == 4
    assert scores(result) == scores(done[1])


LONG = {"epochs": 6, "checkpoint_every": 1}


def work(out: str, log: str, recipe: dict[str, Any]) -> None:
    """The body of a process that works on the study; what it trained is in ``log``."""
    torch.set_num_threads(1)
    measure.ROUNDS = measure.FEWEST = 1
    notes = Notes()
    ablate(StudySettings.of_study("sigmoid", GIVEN, {**RECIPE, **recipe}), out, watcher=notes)
    Path(log).write_text(json.dumps(notes.runs))


def begin(out: Path, log: Path, **recipe: Any) -> BaseProcess:
    """A process on the study, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, "analysis.test_ablation"])
    process = context.Process(target=work, args=(str(out), str(log), recipe))
    process.start()
    return process


@pytest.mark.timeout(600)
def test_two_processes_share_the_work_and_do_nothing_twice(done: tuple[Path, Ablation, Notes], tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("first.json", "second.json")]
    both = [begin(tmp_path / "out", log) for log in logs]
    for one in both:
        one.join(500)
    assert [one.exitcode for one in both] == [0, 0]
    trained = [tuple(run) for log in logs for run in json.loads(log.read_text())]
    assert sorted(trained) == sorted(done[2].runs)
    result = summarise_study(STUDIES["sigmoid"], Raw(tmp_path / "out" / "raw.json", "sigmoid").read())
    assert scores(result) == scores(done[1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_a_run_and_taken_up_by_another_process(tmp_path: Path) -> None:
    """SIGKILL in the middle of a run: the next process takes it up at its checkpoint, with the same result."""
    whole = begin(tmp_path / "whole", tmp_path / "whole.json", **LONG)
    victim = begin(tmp_path / "killed", tmp_path / "victim.json", **LONG)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not list((tmp_path / "killed").glob("runs/*/checkpoints/epoch_0002*.pt")):
        time.sleep(0.02)
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    heir = begin(tmp_path / "killed", tmp_path / "heir.json", **LONG)
    for process in (whole, heir):
        process.join(400)
        assert process.exitcode == 0
    found, expected = (
        summarise_study(STUDIES["sigmoid"], Raw(tmp_path / name / "raw.json", "sigmoid").read())
        for name in ("killed", "whole")
    )
    assert scores(found) == scores(expected)


def test_a_claim_is_free_again_after_its_process(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, Raw(tmp_path / "raw.json", "sigmoid"), {})
    study = find_study("sigmoid")
    arm = arm_of(study, study.arms[0], sigmoid())
    with folder.claim(arm, 0) as mine:
        assert mine
        with folder.claim(arm, 0) as again:
            assert not again
        with folder.claim(arm, 1) as other:
            assert other
    with folder.claim(arm, 0) as mine:
        assert mine
