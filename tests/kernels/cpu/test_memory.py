"""Freed memory stays in a process that asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dynaconv
from dynaconv.kernels.cpu import memory

CODE = """
import ctypes, resource, torch
from dynaconv.kernels.cpu import keep_freed_memory, keeps_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of one size, whatever the machine's setting
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

loose = min(faults() for _ in range(5))
assert not keeps_memory()
assert keep_freed_memory() and keeps_memory()
# How many rounds go by until the heap is large enough depends on how it lies: what is shown is that the faults end.
calm = rounds = 0
while calm < 5 and rounds < 200:
    calm, rounds = (calm + 1 if faults() * 20 < loose else 0), rounds + 1
print(loose, calm)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is asked")
def test_large_blocks_are_used_again() -> None:
    source = str(Path(dynaconv.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    ran = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**environment, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    loose, calm = map(int, ran.stdout.split())
    assert loose > 10_000, "without it every block is fetched anew"
    assert calm == 5, "with it, five rounds in a row come with less than a twentieth of the faults"


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(memory, "_kept", False)
    assert not memory.keep_freed_memory()
