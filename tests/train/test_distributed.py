"""Two processes on gloo: the same numbers as one, and no process left behind when the other dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from dynaconv.train.run_folder.checkpoint import damage_of, read_checkpoint
from train.forked import start, start_two
from train.tiny import MEASURED, newest, same

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).resolve().parents[2]
LONG = {"settings": {"epochs": 200, "checkpoint_every": 2}}


def ended(processes: list[BaseProcess], within: float) -> list[int | None]:
    deadline = time.monotonic() + within
    for process in processes:
        process.join(max(0.1, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    return codes


def wait_for_epoch_1(out: Path) -> None:
    deadline = time.monotonic() + 400
    while not any(path.name > "epoch_0001" for path in out.glob("checkpoints/*.pt")):
        assert time.monotonic() < deadline, "the run did not get that far"
        time.sleep(0.05)


def test_evaluation_over_two_is_that_of_one(tmp_path: Path) -> None:
    """80 examples in batches of 32: three batches, the last of 16; the second process has one of them."""
    assert ended(start_two(tmp_path / "two"), within=800) == [0, 0]
    history = read_checkpoint(newest(tmp_path / "two"))["history"]
    script = (
        "import json, sys; sys.path[:0] = ['src', 'tests']\n"
        "from pathlib import Path\n"
        "from train.tiny import Tiny, digits, settings\n"
        "from dynaconv.train.accelerator import make_accelerator\n"
        "from dynaconv.tasks.classification import Classification\n"
        "from dynaconv.train.evaluation import evaluate\n"
        "from dynaconv.train.run_folder.weights import read_weights\n"
        f"tensors, _ = read_weights(Path({str(tmp_path / 'two' / 'last.safetensors')!r}))\n"
        "model = Tiny(); model.load_state_dict(tensors)\n"
        "print(json.dumps(evaluate(model, digits().eval_loader, Classification(10), make_accelerator(settings()))))"
    )
    alone = json.loads(subprocess.check_output([sys.executable, "-c", script], cwd=REPOSITORY, text=True))
    together = history[-1]["metrics"]
    assert (together["top1"], together["top5"]) == (alone["top1"], alone["top5"])
    assert together["eval_loss"] == pytest.approx(alone["eval_loss"], rel=1e-6)


def test_stopped_and_resumed_as_two_is_bit_equal(tmp_path: Path) -> None:
    for name, stop in (("whole", False), ("stopped", True)):
        out = tmp_path / name
        processes = start_two(out, settings={"checkpoint_every": 2})
        if stop:
            wait_for_epoch_1(out)
            os.kill(processes[1].pid or 0, signal.SIGTERM)  # one of them is asked; both stop at the same step
            codes = ended(processes, within=400)
            assert codes == [143, 143]
            processes = start_two(out, settings={"checkpoint_every": 2})
        assert ended(processes, within=800) == [0, 0]
    one, two = (read_checkpoint(newest(tmp_path / name)) for name in ("whole", "stopped"))
    assert len(one["processes"]) == 2
    assert not same(one["processes"][0]["random"]["torch"], one["processes"][0]["random"]["torch"])
    assert same(one["processes"][0]["random"]["torch"], one["processes"][1]["random"]["torch"]), "each has its own"
    assert same(one, two, without=MEASURED) == []


def test_when_one_dies_the_other_ends(tmp_path: Path) -> None:
    processes = start_two(tmp_path, **LONG)
    wait_for_epoch_1(tmp_path)
    os.kill(processes[1].pid or 0, signal.SIGKILL)
    codes = ended(processes, within=400)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, None, -signal.SIGKILL), "the first must end by itself, and not well"
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        assert damage_of(path) is None


def test_a_signal_is_heeded_however_short_the_epochs(tmp_path: Path) -> None:
    """Three steps and one round of evaluation: never a fourth step of an epoch, at which the two could agree."""
    processes = start_two(tmp_path, settings={"epochs": 100_000}, data={"batch_size": 64})
    wait_for_epoch_1(tmp_path)
    os.kill(processes[1].pid or 0, signal.SIGTERM)
    assert ended(processes, within=400) == [143, 143]
    assert damage_of(newest(tmp_path)) is None


def test_other_number_of_processes_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    processes = start_two(out, settings={"checkpoint_every": 2})
    wait_for_epoch_1(out)
    os.kill(processes[0].pid or 0, signal.SIGTERM)
    assert ended(processes, within=400) == [143, 143]
    alone = start(out, settings={"checkpoint_every": 2})
    assert ended([alone], within=400) == [0]
    state = read_checkpoint(newest(out))
    assert (len(state["processes"]), len(state["history"])) == (1, 3)


def test_torchrun_and_a_dead_rank(tmp_path: Path) -> None:
    """The real launcher: when a rank dies every rank and the launcher end, not well, in bounded time."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    script = (
        "import sys; sys.path[:0] = ['src', 'tests']\n"
        "from train.forked import run\n"
        f"run({str(tmp_path)!r}, {{}}, {LONG!r})\n"
    )
    (tmp_path / "run.py").write_text(script)
    launcher = subprocess.Popen([*command, str(tmp_path / "run.py")], cwd=REPOSITORY, start_new_session=True)
    try:
        wait_for_epoch_1(tmp_path)
        ranks = [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        assert launcher.wait(400) != 0
        for rank in ranks:
            assert not Path(f"/proc/{rank}").exists()
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()
    assert damage_of(newest(tmp_path)) is None


def test_the_command_line_under_torchrun(tmp_path: Path) -> None:
    """``torchrun -m dynaconv`` trains as one run and evaluates to the number of one process."""
    environment = {**os.environ, "PYTHONPATH": "src"}

    def dynaconv(*words: str, processes: int) -> str:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "dynaconv", *words]
        return subprocess.check_output(command, cwd=REPOSITORY, env=environment, text=True)

    out = str(tmp_path / "run")
    data = ["--data", "digits", "--workers", "0"]
    quick = ["--epochs", "1", "--batch-size", "128", "--image-size", "16", "--quiet", "--no-tensorboard"]
    said = dynaconv("train", "test_byobnet", "--out", out, *data, *quick, processes=2)
    assert said.count("top-1") == 1, "one run, which says it once"
    two, one = (
        json.loads(dynaconv("eval", out, *data, "--json", "--batch-size", "50", processes=processes))
        for processes in (2, 1)
    )
    assert (two["top1"], two["top5"], two["images"]) == (one["top1"], one["top5"], 359)
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["train_size"] == 1438
