"""One small network for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dynaconv.serve.loading import load_served
from dynaconv.serve.model import Served
from serve.checkpoints import write_checkpoint
from serve.clients import Running, running


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.safetensors")


@pytest.fixture(scope="session")
def served(checkpoint: Path) -> Served:
    return load_served(checkpoint)


@pytest.fixture(scope="module")
def service(served: Served) -> Iterator[Running]:
    with running(served, max_images=4) as found:
        yield found
