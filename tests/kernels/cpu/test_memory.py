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
import resource, torch
from dynaconv.kernels.cpu import keep_freed_memory, keeps_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
loose = faults()
assert not keeps_memory()
assert keep_freed_memory() and keeps_memory()
faults()
print(loose, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is asked")
def test_large_blocks_are_used_again() -> None:
    source = str(Path(dynaconv.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    answer = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**environment, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    loose, kept = map(int, answer.stdout.split())
    assert kept * 20 < loose


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(memory, "_kept", False)
    assert not memory.keep_freed_memory()
