"""What must not be believed, written or begun: damaged weights, old checkpoints, full disks, lost locks, numbers."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynaconv.errors import RunError, UserError
from dynaconv.tasks.classification import open_data
from dynaconv.train import TrainSettings, fit
from dynaconv.train.progress import Silent
from dynaconv.train.run_folder.checkpoint import CHECKSUM, read_checkpoint, write_checkpoint
from dynaconv.train.run_folder.lock import FolderLock
from dynaconv.train.run_folder.weights import load_trained, read_weights, save_weights
from tasks.pictures import write_folder
from train.tiny import Tiny, digits, newest, settings, tiny


def test_flipped_bit_in_what_is_said_about_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, nn.Linear(2, 2), {"classes": ["airplane", "bird"]})
    whole = path.read_bytes()
    place = whole.index(b"airplane")
    path.write_bytes(whole.replace(b"airplane", b"irplanes"))
    with pytest.raises(UserError, match=r"w\.safetensors is damaged"):
        read_weights(path)
    for bit in range(8):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"is damaged|not a whole safetensors file"):
            read_weights(path)


def checkpoint_as_of(path: Path, change: Any) -> None:
    state = read_checkpoint(path)
    change(state)
    path.unlink()
    path.with_name(path.name + CHECKSUM).unlink()
    write_checkpoint(path, state)


def forget_a_moment(of_a_parameter: dict[str, Any]) -> None:
    """Of the first parameter alone: torch stops in the next step then, with a TypeError."""
    name = next(name for name, value in of_a_parameter.items() if getattr(value, "ndim", 0))
    of_a_parameter[name] = None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("schedule"), "KeyError: 'schedule'"),
        (lambda state: state["position"].update(wings=2), "TypeError: .*wings"),
        (lambda state: state["history"][0].pop("lr"), "TypeError: .*lr"),
        (lambda state: state.pop("facts"), "KeyError: 'facts'"),
        (lambda state: state.update(wings=2), "KeyError: 'unknown wings'"),
        (lambda state: state["optimizer"]["state"].update({0: 3.5}), "ValueError: the optimizer's state of a .*"),
        (lambda state: state["optimizer"]["param_groups"][0].update(maximize=0.5), "ValueError: .*maximize is 0.5"),
        (lambda state: state["optimizer"]["param_groups"][0].pop("lr"), "ValueError: .*lacks 'lr'"),
        (lambda state: forget_a_moment(state["optimizer"]["state"][0]), "ValueError: .* is missing for 1 of .*"),
    ],
)
def test_checkpoint_with_other_keys_offers_the_older_one(tmp_path: Path, change: Any, named: str) -> None:
    fit(tiny(), digits(), settings(epochs=2), out=tmp_path)
    last = newest(tmp_path)
    checkpoint_as_of(last, change)
    with pytest.raises(
        UserError, match=f"{last.name} is whole, but not what .* writes .{named}.*before it, epoch_0001_"
    ):
        fit(tiny(), digits(), settings(epochs=2), out=tmp_path, resume="auto")
    last.unlink()
    assert len(fit(tiny(), digits(), settings(epochs=2), out=tmp_path, resume="auto").history) == 2


def test_checkpoint_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tiny(), digits(), settings(epochs=2), out=tmp_path)
    last = newest(tmp_path)
    monkeypatch.setattr("dynaconv.train.run_folder.checkpoint.FORMAT", 3)
    with pytest.raises(UserError, match=r"another version of dynaconv wrote it \(its format is 2, expected 3\)"):
        fit(tiny(), digits(), settings(epochs=2), out=tmp_path, resume="auto")
    assert last.is_file()


@pytest.mark.timeout(30)
def test_a_pipe_in_the_place_of_run_json_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    fit(tiny(), digits(), settings(epochs=1), out=tmp_path, resume="auto")
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]


def test_what_weights_say_of_their_network_must_be_possible(tmp_path: Path) -> None:
    model = {"name": "test_resnet", "args": [1, 2, 3]}
    save_weights(tmp_path / "w.safetensors", nn.Linear(2, 2), {"classes": ["a", "b"], "model": model})
    with pytest.raises(UserError, match=r"w\.safetensors cannot be used: .*args is \[1, 2, 3\]"):
        load_trained(tmp_path / "w.safetensors")


@pytest.mark.parametrize("task", [0.5, [1, 2], None])
def test_a_task_of_weights_that_is_no_word(tmp_path: Path, task: object) -> None:
    save_weights(tmp_path / "w.safetensors", nn.Linear(2, 2), {"classes": ["a", "b"], "task": task})
    with pytest.raises(UserError, match=r"w\.safetensors cannot be used"):
        load_trained(tmp_path / "w.safetensors")


def test_binary_checksum_file_is_damage(tmp_path: Path) -> None:
    fit(tiny(), digits(), settings(epochs=1), out=tmp_path)
    path = newest(tmp_path)
    path.with_name(path.name + CHECKSUM).write_bytes(b"\xff\xfe\x00")
    fit(tiny(), digits(), settings(epochs=1), out=tmp_path, resume="auto")


class At(Silent):
    """Does something at a step of the second epoch."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def step(self, epoch: int, step: int, images: int, loss: float | None) -> None:
        if (epoch, step) == (1, 2):
            self.action()


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors", "log.csv", "curves.png"])
def test_file_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    """A folder in the place of the file: what root cannot write over either."""

    def block() -> None:
        for place in (name, name + ".tmp"):
            path = tmp_path / place
            path.unlink(missing_ok=True)
            path.mkdir()
            (path / "full").touch()

    with pytest.raises(RunError, match=rf"Cannot write .*{name}: .*--resume auto") as stopped:
        fit(tiny(), digits(), settings(epochs=8, curves=True), out=tmp_path, progress=At(block))
    assert stopped.value.exit_code == 1
    for place in (name, name + ".tmp"):
        shutil.rmtree(tmp_path / place)
    result = fit(tiny(), digits(), settings(epochs=8, curves=True), out=tmp_path, resume="auto")
    assert len(result.history) == 8
    assert (tmp_path / name).is_file()


def full(path: Path) -> None:
    """Let the next writer of this file find the disk full, whoever runs the test."""
    path.with_name(path.name + ".tmp").symlink_to("/dev/full")


@pytest.mark.parametrize("name", ["run.json", "best.safetensors", "last.safetensors", "log.csv", "curves.png"])
def test_disk_full_at_every_file(tmp_path: Path, name: str) -> None:
    chosen = settings(epochs=2, curves=True)
    full(tmp_path / name)
    with pytest.raises(RunError, match=rf"Cannot write .*{name}: No space left on device.*--resume auto"):
        fit(tiny(), digits(), chosen, out=tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(fit(tiny(), digits(), chosen, out=tmp_path, resume="auto").history) == 2
    assert (tmp_path / name).is_file()


def test_disk_full_in_tensorboards_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(epochs=2, tensorboard=True, log_every=1)
    with monkeypatch.context() as patch:
        patch.setattr("dynaconv.train.run_folder.logs._event_file", lambda: "/dev/full")
        with pytest.raises(RunError, match=r"Cannot write .*tensorboard: No space left on device.*--resume auto"):
            fit(tiny(), digits(), chosen, out=tmp_path)
    assert len(fit(tiny(), digits(), chosen, out=tmp_path, resume="auto").history) == 2


def test_disk_full_in_tensorboards_file_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file becomes one of a full disk behind the back of its writer."""
    chosen = settings(epochs=2, tensorboard=True, log_every=1)

    def fill() -> None:
        (name,) = (tmp_path / "tensorboard").iterdir()
        (number,) = [int(fd) for fd in os.listdir("/proc/self/fd") if _leads_to(f"/proc/self/fd/{fd}", name)]
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, number)
        os.close(device)

    with pytest.raises(RunError, match=r"Cannot write .*tensorboard: No space left on device") as stopped:
        fit(tiny(), digits(), chosen, out=tmp_path, progress=At(fill))
    assert stopped.value.exit_code == 1
    assert len(fit(tiny(), digits(), chosen, out=tmp_path, resume="auto").history) == 2


def _leads_to(link: str, path: Path) -> bool:
    return os.path.exists(link) and os.path.realpath(link) == os.path.realpath(path)


def test_a_file_in_the_place_of_tensorboards_folder(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    with pytest.raises(RunError, match=r"Cannot write .*tensorboard: File exists"):
        fit(tiny(), digits(), settings(tensorboard=True), out=tmp_path)


def test_lost_lock_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunError, match=r"\.lock has gone") as stopped:
        fit(tiny(), digits(), settings(), out=out, progress=At((out / ".lock").unlink))
    assert stopped.value.exit_code == 1


def test_replaced_lock_is_noticed(tmp_path: Path) -> None:
    def replace() -> None:
        (tmp_path / ".lock").rename(tmp_path / "old")
        (tmp_path / ".lock").touch()

    with pytest.raises(RunError, match="is not the file that this run has locked"):
        fit(tiny(), digits(), settings(), out=tmp_path, progress=At(replace))


def test_deleted_folder_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunError, match=r"\.lock has gone"):
        fit(tiny(), digits(), settings(epochs=2), out=out, progress=At(lambda: shutil.rmtree(out)))
    assert not out.exists()


def test_a_disk_that_cannot_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with pytest.raises(UserError, match=r"cannot be locked \(No locks available\)"):
        FolderLock(tmp_path).__enter__()


def test_changed_data_is_named_when_a_run_goes_on(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")

    def data() -> Any:
        return open_data(str(root), image_size=8, batch_size=4)

    chosen = settings(epochs=1, mixup=0.0, ema=None)
    fit(tiny(classes=2), data(), chosen, out=tmp_path / "run")
    moved = root.rename(tmp_path / "moved")
    moved.rename(root)
    fit(tiny(classes=2), data(), chosen, out=tmp_path / "run", resume="auto")
    (root / "train" / "cat" / "001.png").rename(root / "train" / "dog" / "100.png")
    (root / "train" / "dog" / "001.png").rename(root / "train" / "cat" / "100.png")
    with pytest.raises(UserError, match=r"images of train/cat is '8 images, digest .*' there and '8 images, digest"):
        fit(tiny(classes=2), data(), chosen, out=tmp_path / "run", resume="auto")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": math.inf}, "lr is inf"),
        ({"lr": 1e9}, "lr is 1000000000"),
        ({"lr": math.nan}, "lr is nan"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"temperature_start": 1e-9}, "temperature_start is 1e-09"),
        ({"temperature_end": math.inf}, "temperature_end is inf"),
        ({"ratio": (0.0, 1.0)}, "ratio is "),
        ({"scale": (-1.0, 1.0)}, "scale is "),
        ({"scale": (0.9, 0.1)}, "scale is "),
        ({"weight_decay": math.inf}, "weight_decay is inf"),
    ],
)
def test_numbers_that_cannot_train(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainSettings(**values)


@pytest.mark.parametrize(
    ("changed", "data", "message"),
    [
        ({"opt": "adamw", "opt_args": {"betas": (2.0, 0.9)}}, {}, "adamw does not take opt_args.*[Ii]nvalid beta"),
        ({"accumulate": 33}, {}, "accumulate is 33; expected at most 32"),
        ({}, {"train": 31, "batch_size": 32}, "even batch per process, got 31"),
    ],
)
def test_caught_before_the_run(tmp_path: Path, changed: dict[str, Any], data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(tiny(), digits(**data), settings(**changed), out=tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


class Pooled(nn.Module):
    """Batch norm over one value per channel and example."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.mean(dim=(2, 3))))


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (5, 4)])
def test_one_example_under_batch_norm(batch: int, accumulate: int) -> None:
    chosen = settings(mixup=0.0, accumulate=accumulate, temperature_epochs=0, ema=None)
    with pytest.raises(UserError, match="batch norm one value per channel"):
        fit(Pooled(), digits(batch_size=batch), chosen)


class Spoiled(Tiny):
    """A buffer that is used in training only becomes NaN, and the outputs stay finite."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.fill_(math.nan)
        return super().forward(x)


def test_weights_that_are_not_finite_are_never_the_best(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fit(Spoiled(), digits(), settings(epochs=2, ema=None), out=tmp_path)
    assert not (tmp_path / "best.safetensors").exists()
    assert (tmp_path / "last.safetensors").exists()


def test_wrong_recipes(tmp_path: Path) -> None:
    from dynaconv.train.recipe import read_recipe

    path = tmp_path / "recipe.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"recipe\.json is not JSON"):
        read_recipe(path)
    path.write_text(json.dumps({"recipe": [1]}))
    with pytest.raises(UserError, match="holds a list"):
        read_recipe(path)
