"""What every test gets: fixed seeds (printed when it fails), one thread for torch, no network, the shared folder."""

from __future__ import annotations

import ctypes
import os
import random
import sys
from collections.abc import Generator
from pathlib import Path

# Before any library reads them; child processes inherit them. One thread each: several test processes share few
# cores. A plain, wide terminal: messages stand on one line whoever runs the tests.
os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", HF_HUB_OFFLINE="1", NO_COLOR="1", TERM="dumb", COLUMNS="160")
for forced in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
    os.environ.pop(forced, None)

import hypothesis
import numpy
import pytest
import torch

SEED = 20191
REPOSITORY = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)

# Derandomized: the same examples on every machine and every day. No deadline: a loaded machine is not a bug.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, print_blob=True, max_examples=50)
hypothesis.settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, default=20_000, help="cases of the slow tests in tests/faults")


class _SignalStack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture(autouse=True)
def ordinary_signal_stack() -> None:
    """Signals are handled on the ordinary stack in every test.

    A stack of its own for signals (pytest's faulthandler sets one, LLVM may) was too small or gone after 4,000 tests:
    the kernel could not deliver SIGCHLD to the handler of torch's loader and ended the process with SIGSEGV.
    """
    if sys.platform == "linux":
        disable = 2  # SS_DISABLE
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_SignalStack(None, disable, 0)), None)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every global generator before every test, so that no test depends on its neighbours; return the seed."""
    random.seed(SEED)
    numpy.random.seed(SEED)  # noqa: NPY002 - the global generator is the one that libraries draw from
    torch.manual_seed(SEED)
    return SEED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print the seed with every failure."""
    report = yield
    if report.failed:
        report.sections.append(("Seed", f"random, numpy and torch were seeded with {SEED}; torch {torch.__version__}"))
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material beside the repository; the test skips where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder 'shared' beside the repository")
    return folder
