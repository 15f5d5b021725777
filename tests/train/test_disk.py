"""A full disk and a folder that cannot be written: real ones, in a mount of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
INSIDE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]

FULL = """
import json, sys
from pathlib import Path
sys.path[:0] = ["src", "tests"]
from train.tiny import digits, newest, same, settings, tiny, MEASURED
from dynaconv.errors import RunError
from dynaconv.train import fit
from dynaconv.train.run_folder.checkpoint import damage_of, read_checkpoint
from dynaconv.train.progress import Silent
out = Path(sys.argv[1]) / "run"
ballast = out.parent / "ballast"

class FillsTheDisk(Silent):
    def step(self, epoch, step, images, loss):
        if (epoch, step) == (1, 2):
            with open(ballast, "wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096): pass
                except OSError as error:
                    assert error.errno == 28, error

try:
    fit(tiny(), digits(), settings(checkpoint_every=1), out=out, progress=FillsTheDisk())
except RunError as error:
    print(error)
    assert error.exit_code == 1
else:
    raise SystemExit("the full disk was not noticed")
assert list(out.rglob("*.tmp")) == [], list(out.rglob("*.tmp"))
assert {damage_of(path) for path in (out / "checkpoints").glob("*.pt")} == {None}
assert newest(out).name == "epoch_0001_step_0000001.pt", newest(out)
ballast.unlink()
fit(tiny(seed=4), digits(), settings(checkpoint_every=1), out=out, resume="auto")
other = Path(sys.argv[2])
fit(tiny(), digits(), settings(checkpoint_every=1), out=other)
assert same(read_checkpoint(newest(out)), read_checkpoint(newest(other)), without=MEASURED) == []
print("resumed bit-equal")
"""

COMMAND = """
import sys
sys.path[:0] = ["src", "tests"]
from train.tiny import digits, settings, tiny
from dynaconv.errors import UserError
from dynaconv.train import fit
from dynaconv.train.progress import Silent

class Fails(Silent):
    def step(self, *moment):
        raise SystemExit("a step was taken")

try:
    fit(tiny(), digits(), settings(), out=sys.argv[1] + "/run", progress=Fails())
except UserError as error:
    print(error)
"""


def inside_mount(folder: Path, options: str, script: str, *arguments: str) -> str:
    """Run a script with a tmpfs at ``folder`` that only it sees; return what it printed."""
    folder.mkdir()
    probe = subprocess.run([*INSIDE, f"mount -t tmpfs -o size=1m tmpfs {folder}"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no mount of one's own is allowed here: {probe.stderr.decode().strip()}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    mount = f'mount -t tmpfs -o {options} tmpfs {folder} && exec "$0" "$@"'
    done = subprocess.run(
        [*INSIDE, mount, sys.executable, "-c", script, str(folder), *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_disk_full_in_the_middle(tmp_path: Path) -> None:
    said = inside_mount(tmp_path / "small", "size=3m", FULL, str(tmp_path / "other"))
    assert "No space left on device" in said
    assert "epoch_0001_step_0000001.pt, is whole" in said
    assert "--resume auto" in said
    assert "resumed bit-equal" in said


@pytest.mark.slow
def test_disk_too_small_is_found_before_the_first_step(tmp_path: Path) -> None:
    said = inside_mount(tmp_path / "tiny", "size=200k", COMMAND)
    assert "MB free, and the checkpoints will take about" in said


@pytest.mark.slow
def test_read_only_folder_is_found_before_the_first_step(tmp_path: Path) -> None:
    said = inside_mount(tmp_path / "locked", "size=3m,ro", COMMAND)
    assert "Read-only file system" in said


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    from dynaconv.errors import UserError
    from dynaconv.train import fit
    from train.tiny import digits, settings, tiny

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to --out .*file/run"):
        fit(tiny(), digits(), settings(), out=tmp_path / "file" / "run")
