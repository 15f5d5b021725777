"""What the commands ``compare`` and ``ablate`` have in common: how seeds and lists are typed, and loader processes."""

from __future__ import annotations

import os

from dynaconv.errors import UserError

MOST_WORKERS = 4
MOST_SEEDS = 1000


def one_process(command: str) -> None:
    """Refuse to run under torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"{command} runs in one process; start it without torchrun ('dynaconv train' takes several).")


def words(text: str) -> list[str]:
    """The words of an option, separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def whole_numbers(option: str, text: str) -> list[int]:
    """The whole numbers of an option, separated by commas."""
    try:
        return [int(word) for word in words(text)]
    except ValueError:
        raise UserError(f"{option} is {text!r}; expected whole numbers separated by commas, such as 4 or 4,8") from None


def seeds_of(text: str) -> tuple[int, ...]:
    """Seeds as typed: how many, or which."""
    numbers = whole_numbers("--seeds", text)
    if len(numbers) == 1 and "," not in text:
        if not 1 <= numbers[0] <= MOST_SEEDS:
            raise UserError(
                f"--seeds is {text!r}; expected a count of at least 1 (at most {MOST_SEEDS}), or seeds with commas"
            )
        return tuple(range(numbers[0]))
    return tuple(numbers)


def loader_workers(data: str) -> int:
    """Loader processes that a comparison takes where nobody says: none for data in memory."""
    return 0 if data == "digits" else min(MOST_WORKERS, os.cpu_count() or 1)
