"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_picture() -> Iterator[None]:
    """The learning curves take longer to draw than a test's run to train; tests/train/test_output.py draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynaconv.train.curves.draw_curves", lambda history, path: None)
        yield
