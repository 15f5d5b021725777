"""Warnings of the library, as lines in the terminal."""

from __future__ import annotations

import logging
import sys


def log_to_terminal(first_process: bool) -> None:
    """Show dynaconv's own messages on stderr; of the other processes, warnings only."""
    logger = logging.getLogger("dynaconv")
    logger.setLevel(logging.INFO if first_process else logging.WARNING)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("dynaconv: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
