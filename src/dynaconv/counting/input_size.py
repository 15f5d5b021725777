"""The size of one example: checked, and read from text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def check_input_size(input_size: Any) -> tuple[int, ...]:
    """Answer ``input_size`` as a tuple of positive integers ``(C, *space)``, or say what is wrong with it.

    Raises:
        TypeError: not a sequence of integers.
        ValueError: empty, or an entry below 1.
    """
    hint = "expected the size of one example without the batch, such as (3, 224, 224)"
    if isinstance(input_size, str):
        raise TypeError(f"input_size is the text {input_size!r}: {hint}; parse_input_size({input_size!r}) reads text.")
    if not isinstance(input_size, Sequence) or not all(type(entry) is int for entry in input_size):
        raise TypeError(f"input_size is {input_size!r}: {hint}.")
    if not input_size or min(input_size) < 1:
        raise ValueError(f"input_size is {tuple(input_size)!r}: every entry must be at least 1; {hint}.")
    return tuple(input_size)


def parse_input_size(text: str) -> tuple[int, ...]:
    """Read the size of one example, ``CxHxW`` (or ``CxL``, ``CxDxHxW``); commas do as well as ``x``.

    Raises:
        ValueError: the text is no such size.

    >>> parse_input_size("3x224x224")
    (3, 224, 224)
    """
    parts = [part.strip() for part in re.split(r"[xX\u00d7,]", text.strip().strip("()[]"))]
    if not all(re.fullmatch(r"[0-9]+", part) for part in parts):
        raise ValueError(
            f"input size {text!r}: expected whole numbers joined by x, such as 3x224x224 (channels first)."
        )
    if len(parts) == 1 and parts != ["0"]:
        raise ValueError(
            f"input size {text!r}: the channels are missing. For a square RGB image write 3x{parts[0]}x{parts[0]}."
        )
    if "0" in {part.lstrip("0") or "0" for part in parts}:
        raise ValueError(f"input size {text!r}: every number must be at least 1, such as 3x224x224.")
    return tuple(int(part) for part in parts)
