"""A run that is stopped and resumed is bit-equal to one that never was: weights, EMA, optimizer, schedules, random
numbers, order, logs."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
import torch

from dynaconv.errors import UserError
from dynaconv.train import EpochRecord, Stopped, fit
from dynaconv.train.progress import Silent
from dynaconv.train.run_folder.checkpoint import read_checkpoint
from train.tiny import MEASURED, digits, newest, same, settings, tiny

STEPS = 6  # of an epoch of the tests' digits


class SignalAt(Silent):
    """Sends this very process a real signal at a moment of the run."""

    def __init__(self, moment: tuple[str, int, int], number: int = signal.SIGTERM, times: int = 1) -> None:
        self.moment, self.number, self.times = moment, number, times
        self.sent = False

    def step(self, epoch: int, step: int, images: int, loss: float | None) -> None:
        self._at("step", epoch, step)

    def evaluating(self, epoch: int, batch: int, batches: int) -> None:
        self._at("evaluating", epoch, batch)

    def epoch(self, record: EpochRecord) -> None:
        self._at("epoch", record.epoch, 0)

    def _at(self, *moment: object) -> None:
        if moment == self.moment:
            self.sent = True
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def stopped_and_resumed(out: Path, moment: tuple[str, int, int], workers: int = 0, **options: object) -> None:
    with pytest.raises(Stopped) as stopped:
        fit(tiny(), digits(workers=workers), settings(**options), out=out, progress=SignalAt(moment))
    assert stopped.value.exit_code == 143
    assert stopped.value.checkpoint is not None
    assert stopped.value.checkpoint.is_file()
    torch.manual_seed(999)  # the weights of the second process begin elsewhere and must not matter
    fit(tiny(seed=1), digits(workers=workers), settings(**options), out=out, resume="auto")


def assert_equal_runs(one: Path, two: Path) -> None:
    assert newest(one).name == newest(two).name
    first, second = read_checkpoint(newest(one)), read_checkpoint(newest(two))
    assert len(first["history"]) == 3
    assert first["processes"][0]["random"]["torch"].numel() > 1000
    assert first["ema"] is not None
    assert same(first, second, without=MEASURED) == []
    rows = [list(csv.DictReader((run / "log.csv").read_text().splitlines())) for run in (one, two)]
    assert len(rows[0]) == 3
    assert [{k: v for k, v in row.items() if k not in MEASURED} for row in rows[0]] == [
        {k: v for k, v in row.items() if k not in MEASURED} for row in rows[1]
    ]
    for name in ("best.safetensors", "last.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unstopped"
    fit(tiny(), digits(), settings(), out=out)
    return out


@pytest.mark.parametrize(
    "moment",
    [
        ("step", 0, 1),
        ("step", 1, 5),
        ("step", 1, STEPS),
        ("evaluating", 1, 2),
        ("epoch", 0, 0),
        ("step", 2, STEPS - 1),
    ],
    ids=str,
)
def test_bit_equal(unstopped: Path, tmp_path: Path, moment: tuple[str, int, int]) -> None:
    stopped_and_resumed(tmp_path / "run", moment)
    assert_equal_runs(unstopped, tmp_path / "run")


@pytest.mark.parametrize("moment", [("step", 1, 5), ("epoch", 0, 0)], ids=str)
def test_bit_equal_with_workers(unstopped: Path, tmp_path: Path, moment: tuple[str, int, int]) -> None:
    stopped_and_resumed(tmp_path / "run", moment, workers=2)
    assert_equal_runs(unstopped, tmp_path / "run")


def test_stopped_twice(unstopped: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for moment in (("step", 0, 4), ("step", 1, 2)):
        with pytest.raises(Stopped):
            fit(tiny(), digits(), settings(), out=out, resume="auto", progress=SignalAt(moment))
    fit(tiny(), digits(), settings(), out=out, resume="auto")
    assert_equal_runs(unstopped, out)


def test_comparison_sees_a_difference(unstopped: Path, tmp_path: Path) -> None:
    fit(tiny(), digits(seed=1), settings(), out=tmp_path / "other")
    first, second = read_checkpoint(newest(unstopped)), read_checkpoint(newest(tmp_path / "other"))
    assert any(place.startswith(".model.weight") for place in same(first, second, without=MEASURED))


def test_finished_run_is_answered_from_its_checkpoint(unstopped: Path) -> None:
    before = newest(unstopped).stat().st_mtime_ns
    model = tiny(seed=5)
    result = fit(model, digits(), settings(), out=unstopped, resume="auto")
    assert len(result.history) == 3
    assert newest(unstopped).stat().st_mtime_ns == before
    saved = read_checkpoint(newest(unstopped))["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_second_signal_while_stopping_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Stopped) as stopped:
        fit(tiny(), digits(), settings(), out=tmp_path, progress=SignalAt(("step", 0, 3), signal.SIGINT, times=2))
    assert stopped.value.exit_code == 130
    assert read_checkpoint(newest(tmp_path))["position"]["step"] == 3


def test_second_signal_in_the_middle_of_saving_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync
    sent = []

    def interrupted(file: int) -> None:
        if stopping.sent and not sent:  # a third one would end the process at once
            os.kill(os.getpid(), signal.SIGTERM)
            sent.append(file)
        sync(file)

    stopping = SignalAt(("step", 0, 3))
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(Stopped) as stopped:
        fit(tiny(), digits(), settings(), out=tmp_path, progress=stopping)
    assert sent, "no signal came while a file was written"
    assert stopped.value.exit_code == 143
    assert read_checkpoint(newest(tmp_path))["position"]["step"] == 3
    assert list(tmp_path.rglob("*.tmp")) == []


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    fit(tiny(), digits(), settings(epochs=1), out=tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_without_a_folder_a_signal_is_an_ordinary_one() -> None:
    # A shell that starts a job in the background lets it ignore SIGINT, and its children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(), digits(), settings(), progress=SignalAt(("step", 0, 2), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_folder_with_a_run_is_not_begun_again(unstopped: Path) -> None:
    with pytest.raises(UserError, match=r"already holds a run.*--resume auto"):
        fit(tiny(), digits(), settings(), out=unstopped)


@pytest.mark.parametrize(
    ("model", "data", "changed", "named"),
    [
        ({"classes": 7}, {}, {}, r"weight is \(3, 10, 128\) there and \(3, 7, 128\) here"),
        ({"experts": 4}, {}, {}, r"weight is \(3, 10, 128\) there and \(4, 10, 128\) here"),
        ({}, {"batch_size": 64}, {}, "batch_size is 32 there and 64 here"),
        ({}, {"seed": 3}, {}, "data_seed is 0 there and 3 here"),
        ({}, {}, {"lr": 0.2}, "lr is 0.1 there and 0.2 here"),
        ({}, {}, {"epochs": 5}, "epochs is 3 there and 5 here"),
    ],
)
def test_another_run_is_refused_by_name(
    unstopped: Path, model: dict[str, int], data: dict[str, int], changed: dict[str, float], named: str
) -> None:
    before = newest(unstopped).read_bytes()
    with pytest.raises(UserError, match=f"{named}.*--finetune"):
        fit(tiny(**model), digits(**data), settings(**changed), out=unstopped, resume="auto")
    assert newest(unstopped).read_bytes() == before


def test_operational_settings_may_change(unstopped: Path) -> None:
    fit(tiny(), digits(workers=0), settings(keep=5, checkpoint_every=3), out=unstopped, resume="auto")
