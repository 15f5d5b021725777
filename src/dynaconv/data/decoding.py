"""Decoding of images, and the policy for images that cannot be read.

Training, evaluation and prediction of every task decode here. Always RGB; the EXIF orientation is always applied.
(timm's ``ImageDataset`` and ``torchvision.io`` leave it out.)
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterable
from os import PathLike
from typing import IO, Any, cast

from PIL import Image, ImageOps

from dynaconv.errors import RunError, UserError

log = logging.getLogger(__name__)

POLICIES = ("error", "skip")
WHITE_16 = 65535
MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb: twice its warning limit


class BadImage(ValueError):  # noqa: N818 - what it is, not how it is raised
    """An image that cannot be decoded: its name and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read the image {name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        return (BadImage, (self.name, self.reason))


def decode(
    source: str | PathLike[str] | IO[bytes],
    name: str | None = None,
    *,
    most_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> Image.Image:
    """Read an image file as upright RGB. Several threads may read at once.

    Args:
        source: a path, or a binary file.
        name: what to call it in an error (the path if ``None``).
        most_pixels: larger images are refused before they are decoded; never more than ``MAX_PIXELS``.
        formats: Pillow's names of the formats that are read (``"JPEG"`` ...); all that Pillow knows if ``None``. For
            files of strangers: some of Pillow's formats start other programs.

    Returns:
        a PIL image of mode RGB. Transparency is dropped, CMYK, grey, palette and 16-bit images are converted.

    Raises:
        BadImage: missing, empty, truncated, not an image (of these formats), or larger than ``most_pixels``.
    """
    most = min(most_pixels, MAX_PIXELS)
    called = str(source) if name is None else name
    if isinstance(source, (str, PathLike)) and os.path.exists(source) and not os.path.isfile(source):
        raise BadImage(called, "it is no ordinary file")  # reading a pipe could block for ever
    try:
        with _WITHOUT_WARNINGS, Image.open(source, formats=formats) as image:
            if image.width * image.height > most:
                raise BadImage(called, f"{image.width}x{image.height} pixels; at most {most:,} are read")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image, called)
    except BadImage:
        raise
    except MemoryError:
        raise
    except Exception as error:  # for damaged files Pillow's decoders raise errors of nearly every type
        raise BadImage(called, _reason(error)) from error


class _WithoutWarnings:
    """No warnings while any thread is inside.

    Pillow warns from half of ``MAX_PIXELS`` on, and on palettes with transparency: neither damages the picture. The
    filters of warnings belong to the whole process, so the first thread that enters changes them, and the last one that
    leaves restores them.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._caught = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_WITHOUT_WARNINGS = _WithoutWarnings()


def _to_rgb(image: Image.Image, called: str) -> Image.Image:
    if image.mode == "F":
        raise BadImage(called, "its pixels are floating-point numbers, of which nobody says what white is")
    if image.mode.startswith("I"):
        image = image.convert("I")
        low, high = cast(tuple[int, int], image.getextrema())
        if low < 0 or high > WHITE_16:
            raise BadImage(called, f"its pixels are integers from {low} to {high}; expected 0 to {WHITE_16}")
        # Pillow's own conversion clips at 255 instead of scaling
        image = image.point(lambda value: value * (1 / 257)).convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, TimeoutError):
        return str(error)
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is empty or not an image"
    return f"{type(error).__name__}: {error}"


class BadImages:
    """Counts unreadable images, names each once in the log, and stops above the cap.

    Args:
        policy: ``error`` stops at the first; ``skip`` goes on without it.
        cap: number of different images that may be skipped.
    """

    def __init__(self, policy: str, cap: int) -> None:
        self.policy, self.cap = policy, cap
        self.reasons: dict[str, str] = {}

    def report(self, found: Iterable[tuple[str, str]]) -> None:
        """Record (name, reason) pairs; raise if the policy or the cap demands it."""
        for name, reason in found:
            if self.policy == "error":
                raise UserError(
                    f"Cannot read the image {name}: {reason}. Repair or remove it, or pass --bad-images skip to go on "
                    f"without such images (at most {self.cap} of them)."
                )
            if name in self.reasons:
                continue
            self.reasons[name] = reason
            log.warning("skipped the image %s: %s", name, reason)
            if len(self.reasons) > self.cap:
                raise RunError(
                    f"{len(self.reasons)} images could not be read, more than the {self.cap} that may be skipped; "
                    f"the last is {name}: {reason}. Check the data, or raise --max-bad-images."
                )

    def state_dict(self) -> dict[str, str]:
        return dict(self.reasons)

    def load_state_dict(self, state: dict[str, str]) -> None:
        self.reasons = dict(state)


def default_cap(size: int) -> int:
    """1 % of the examples, at least 10."""
    return max(10, size // 100)
