"""The numbers with which every task opens its data, checked in one place."""

from __future__ import annotations

from dynaconv.data.decoding import POLICIES
from dynaconv.errors import UserError, suggest

MOST_WORKERS = 1024
LARGEST_SEED = 2**32 - 1  # numpy's limit
LONGEST_WAIT = 1e6  # seconds: eleven days
LARGEST_SIDE = 16_384  # pixels: one such image is 3 GB of float32


def check_opening(
    *,
    batch_size: int,
    eval_batch_size: int | None,
    workers: int,
    seed: int,
    bad_images: str,
    max_bad_images: int | None,
    loader_timeout: float,
) -> None:
    """Raise UserError for a number out of range, or an unknown policy."""
    ranges = {
        "batch_size": (batch_size, 1, None),
        "eval_batch_size": (batch_size if eval_batch_size is None else eval_batch_size, 1, None),
        "workers": (workers, 0, MOST_WORKERS),
        "seed": (seed, 0, LARGEST_SEED),
        "max_bad_images": (max_bad_images or 0, 0, None),
    }
    for what, (value, least, most) in ranges.items():
        check_whole(what, value, least, most)
    if not _is_number(loader_timeout) or not 0 < loader_timeout <= LONGEST_WAIT:
        raise UserError(f"loader_timeout is {loader_timeout!r}; expected seconds above 0, at most {LONGEST_WAIT:g}")
    if bad_images not in POLICIES:
        raise UserError(
            f"bad_images is {bad_images!r}; expected 'error' or 'skip'. {suggest(str(bad_images), POLICIES)}"
        )


def check_whole(what: str, value: object, least: int, most: int | None = None) -> None:
    """Raise UserError unless ``value`` is a whole number from ``least`` to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{what} is {value!r}; expected a whole number")
    if value < least:
        raise UserError(f"{what} is {value}; expected at least {least}")
    if most is not None and value > most:
        raise UserError(f"{what} is {value}; expected at most {most}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
