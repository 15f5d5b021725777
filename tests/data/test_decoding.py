"""One decoder: always RGB, always upright, damaged files named with the reason."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynaconv.data import BadImage, decode

CORNERS = np.zeros((4, 6, 3), np.uint8)
CORNERS[0, 0], CORNERS[0, 5], CORNERS[3, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def saved(image: Image.Image, format: str = "png", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = decode(saved(Image.fromarray(CORNERS).convert("L" if mode == "I;16" else mode).convert(mode)))
    assert (image.mode, image.size) == ("RGB", (6, 4))


def test_cmyk_jpeg_becomes_rgb() -> None:
    grey = Image.new("RGB", (8, 8), (200, 30, 60)).convert("CMYK")
    image = decode(saved(grey, "jpeg", quality=95))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image, int)[4, 4] - (200, 30, 60)).max() < 8


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    image = decode(saved(Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(CORNERS)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(np.asarray(decode(saved(stored, exif=exif))), CORNERS)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is huge and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


WHOLE_JPEG = saved(Image.effect_noise((64, 64), 50).convert("RGB"), "jpeg").getvalue()
WHOLE_PNG = saved(Image.effect_noise((64, 64), 50).convert("RGB")).getvalue()

DAMAGED = {
    "empty": (b"", "empty or not an image"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "empty or not an image"),
    "truncated jpeg": (WHOLE_JPEG[: len(WHOLE_JPEG) // 2], "truncated"),
    "truncated png": (WHOLE_PNG[: len(WHOLE_PNG) // 2], "truncated"),
    "broken png": (WHOLE_PNG[:100] + b"\0" * 200 + WHOLE_PNG[300:], "Error"),
    "huge": (png_header(40_000, 40_000), "40000x40000 pixels|DecompressionBomb"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_are_named_with_the_reason(tmp_path: Path, damage: str) -> None:
    content, reason = DAMAGED[damage]
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=rf"picture\.jpg: .*({reason})"):
        decode(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="there is no such file"):
        decode(tmp_path / "none.png")


def test_large_but_allowed_picture_is_read_without_a_warning() -> None:
    """Pillow warns from 89 million pixels on; warnings are errors here."""
    assert decode(saved(Image.new("1", (10_000, 9_000)))).size == (10_000, 9_000)


def test_fewer_pixels_and_formats_for_files_of_strangers() -> None:
    assert decode(saved(Image.new("L", (50, 40))), most_pixels=2000).size == (50, 40)
    with pytest.raises(BadImage, match="50x40 pixels; at most 1,999 are read"):
        decode(saved(Image.new("L", (50, 40))), "it", most_pixels=1999)
    eps = saved(Image.new("RGB", (5, 4)), "eps")  # Pillow would start Ghostscript
    with pytest.raises(BadImage, match="it is empty or not an image"):
        decode(eps, "it", formats=("JPEG", "PNG"))
    assert decode(saved(Image.new("L", (5, 4))), formats=("JPEG", "PNG")).size == (5, 4)


def test_threads_leave_the_filters_of_warnings_as_they_were() -> None:
    """Two threads inside `warnings.catch_warnings` restore each other's filters: they would be lost for ever."""
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        """Stops at its first read."""

        def __init__(self, content: bytes, begins: threading.Event, until: threading.Event) -> None:
            super().__init__(content)
            self._begins, self._until = begins, until

        def read(self, size: int | None = -1) -> bytes:
            self._begins.set()
            assert self._until.wait(60)
            return super().read(size)

    content = saved(Image.new("L", (5, 4))).getvalue()
    before = list(warnings.filters)

    def first() -> None:
        decode(Slow(content, first_is_in, second_is_in), "first")
        first_is_out.set()

    def second() -> None:
        assert first_is_in.wait(60)
        decode(Slow(content, second_is_in, first_is_out), "second")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result(60)
    assert list(warnings.filters) == before
