"""From the body of a request to pictures: JSON with base64, or a form with files. Everything is checked and bounded.

Nothing of a request is written to a disk, no name in it is used, and nothing is fetched from anywhere.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dynaconv.data import BadImage, decode

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is decoded. Of Pillow's other formats some are rare and little tested, and one starts Ghostscript."""

MOST_SCANS = 200
"""Of a JPEG. A progressive one has about ten; each is a pass over the whole picture, however few bytes it has."""

MOST_FIELDS = 16  # of a form, beside its images
MOST_FIELD = 4096  # bytes of a form's field that is no file


class Refused(Exception):  # noqa: N818 - what happens to the request
    """A request that is not served: the status, what is wrong (cut where a client made it long), and headers."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason[:1000], headers or {}


@dataclass
class Parsed:
    """The encoded images of a request in their order, and its options as they came."""

    images: list[bytes] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


def declared_length(declared: str | None, most: int) -> int:
    """For how many bytes of a body to take room: as many as it declares, the most if it declares none or more."""
    return min(int(declared), most) if declared is not None and declared.isdecimal() else most


async def read_body(stream: AsyncIterator[bytes], declared: str | None, most: int) -> bytes:
    """The whole body, with or without a declared length.

    Of one that is too long, up to four times the limit is read and dropped before it is refused: a client that is still
    sending when the connection closes would not see why.

    Raises:
        Refused: 413, too long.
    """
    refusal = Refused(413, f"the body is larger than {most:,} bytes", {"Connection": "close"})
    if declared is not None and declared.isdecimal() and int(declared) > 4 * most:
        raise refusal
    body, size = bytearray(), 0
    async for chunk in stream:
        size += len(chunk)
        if size <= most:
            body += chunk
        elif size > 4 * most:
            raise refusal
    if size > most:
        raise refusal
    return bytes(body)


def parse(body: bytes, content_type: str, most_images: int) -> Parsed:
    """The images and options of a body.

    Raises:
        Refused: 400 or 422, not what the type says; 413, too many images; 415, another type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        parsed = _of_form(body, content_type, most_images)
    elif kind == "application/json":
        parsed = _of_json(body)
    else:
        raise Refused(
            415, "send application/json with base64 images, or multipart/form-data with files, not " + (kind or "this")
        )
    if not parsed.images:
        raise Refused(422, "there is no image in the request")
    if len(parsed.images) > most_images:
        raise Refused(413, f"{len(parsed.images)} images in one request; at most {most_images}")
    return parsed


def _of_json(body: bytes) -> Parsed:
    try:
        content = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {_short(error)}") from error
    if not isinstance(content, dict):
        raise Refused(422, 'expected an object such as {"images": ["<base64>"]}')
    images = content.pop("images", None)
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise Refused(422, "images: expected a list of strings, each an image file in base64")
    return Parsed([_of_base64(number, text) for number, text in enumerate(images)], content)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _of_base64(number: int, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        hint = ", without 'data:...;base64,' and without an address" if ":" in text[:64] else ""
        raise Refused(422, f"image {number} is not base64{hint}") from error


class _Form:
    """Takes the parts of a form from the parser. Files are images, whatever their field is called."""

    def __init__(self, most_images: int) -> None:
        self.parsed, self._most, self._fields = Parsed(), most_images, 0
        self._header, self._value, self._disposition = b"", b"", b""
        self._name, self._part, self._is_file = "", bytearray(), False
        self.ended = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._disposition, self._part = b"", bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise Refused(400, "a part of the form has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        self._is_file = b"filename" in options or self._name in ("image", "images")
        self._fields += not self._is_file
        if self._fields > MOST_FIELDS:
            raise Refused(413, f"more than {MOST_FIELDS} fields in the form")
        if self._is_file and len(self.parsed.images) >= self._most:
            raise Refused(413, f"more than {self._most} images in one request")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        if not self._is_file and len(self._part) > MOST_FIELD:
            raise Refused(413, f"a field of the form is longer than {MOST_FIELD} bytes; images have a file name")

    def _end(self) -> None:
        if self._is_file:
            self.parsed.images.append(bytes(self._part))
        else:
            self.parsed.options[self._name] = self._part.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.ended = True


def _of_form(body: bytes, content_type: str, most_images: int) -> Parsed:
    _, options = parse_options_header(content_type)
    if not options.get(b"boundary"):
        raise Refused(400, "the type multipart/form-data names no boundary")
    form = _Form(most_images)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"the form cannot be read: {_short(error)}") from error
    if not form.ended:
        raise Refused(400, "the form is cut: its last boundary is missing")
    return form.parsed


def picture_of(content: bytes, most_pixels: int) -> Image:
    """Decode one image; see :func:`dynaconv.data.decode`.

    Raises:
        BadImage: it cannot be decoded, or would cost too much.
    """
    # A marker begins with FF, which pixels never have before DA.
    if content[:2] == b"\xff\xd8" and (scans := content.count(b"\xff\xda")) > MOST_SCANS:
        raise BadImage("image", f"a JPEG with {scans} scans; at most {MOST_SCANS} are decoded")
    return decode(io.BytesIO(content), "image", most_pixels=most_pixels, formats=FORMATS)


def _short(error: Exception) -> str:
    """What went wrong, in one short line of printable characters: parts of a body may stand in it."""
    text = str(error) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text[:160])
