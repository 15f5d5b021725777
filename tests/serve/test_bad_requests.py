"""Whatever a client sends, it gets a status of 4xx with a reason, and the service goes on."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve.checkpoints import encoded, picture
from serve.clients import Running

GOOD = base64.b64encode(encoded(picture(0))).decode()
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=b"}


def refused(service: Running, body: bytes, headers: dict[str, str], *, most: int = 499) -> tuple[int, str]:
    """The status and the reason; the service has survived."""
    response = service.client.post("/predict", content=body, headers=headers)
    assert 400 <= response.status_code <= most, (response.status_code, response.text[:300])
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    assert 0 < len(detail) <= 1000
    assert "Traceback" not in detail
    assert "object at 0x" not in detail
    assert service.service.gate.inside == 0
    return response.status_code, detail


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"", 400, "not JSON"),
        (b"\xff\xfe\x00", 400, "not JSON"),
        (b'{"images": [', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"a":' * 100_000, 400, "not JSON"),
        (b'{"images": NaN}', 400, "NaN is no JSON"),
        (b'{"top": ' + b"9" * 5000 + b"}", 400, "not JSON"),
        (b"null", 422, "expected an object"),
        (b'"text"', 422, "expected an object"),
        (b"{}", 422, "images: expected a list"),
        (b'{"images": "AAAA"}', 422, "images: expected a list"),
        (b'{"images": {"0": "AAAA"}}', 422, "images: expected a list"),
        (b'{"images": [1]}', 422, "images: expected a list"),
        (b'{"images": [null]}', 422, "images: expected a list"),
        (b'{"images": []}', 422, "there is no image"),
        (b'{"images": [""]}', 422, "image 0: it is empty or not an image"),
        (b'{"images": ["?"]}', 422, "image 0 is not base64"),
        (b'{"images": ["AAA"]}', 422, "image 0 is not base64"),
        ('{"images": ["Ä"]}'.encode(), 422, "image 0 is not base64"),
        (b'{"images": ["AAAA"]}', 422, "image 0: it is empty or not an image"),
        (b'{"images": ["/etc/passwd="]}', 422, "image 0"),
        (b'{"images": ["http://127.0.0.1/a.png"]}', 422, "without an address"),
        (b'{"images": ["data:image/png;base64,AAAA"]}', 422, "without 'data:"),
        (b'{"images": ["AAAA"], "file": "/etc/passwd"}', 422, "There is no option 'file'"),
        (b'{"images": ["AAAA"], "tops": 3}', 422, "Did you mean 'top'"),
        (b'{"images": ["AAAA"], "top": 0}', 422, "top is 0"),
        (b'{"images": ["AAAA"], "top": 1.5}', 422, "top is 1.5"),
        (b'{"images": ["AAAA"], "top": 1e999}', 422, "top is inf"),
        (b'{"images": ["AAAA"], "top": [[[]]]}', 422, "top is"),
        (b'{"images": ["AAAA"], "routing": "perhaps"}', 422, "routing is 'perhaps'"),
        (b'{"images": ["AAAA"], "min_score": 0.5}', 422, "There is no option 'min_score'"),
        (b'{"images": ["AAAA"], "' + b"k" * 100_000 + b'": 1}', 422, "There is no option 'kkk"),
    ],
)
def test_json(content: bytes, status: int, text: str, service: Running) -> None:
    found, detail = refused(service, content, JSON)
    assert (found, text in detail) == (status, True), (found, detail[:200])


def part(disposition: str, content: bytes) -> bytes:
    return f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode("latin-1") + content + b"\r\n"


END = b"--b--\r\n"
FILE = 'form-data; name="images"; filename="a.png"'


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"", 400, "cut"),
        (b"nothing of a form", 400, "the form cannot be read"),
        (END, 422, "there is no image"),
        (part(FILE, b"abc"), 400, "cut"),
        (part(FILE, b"abc")[:-30], 400, "cut"),
        (part("form-data", b"abc") + END, 400, "no name"),
        (part("", b"abc") + END, 400, "no name"),
        (b"--b\r\nno header\r\n\r\nabc\r\n" + END, 400, "the form cannot be read"),
        (b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\nabc\r\n" + END, 400, "the form cannot be read"),
        (part(FILE, b"") + END, 422, "image 0: it is empty"),
        (part(FILE, b"abc") * 5 + END, 413, "more than 4 images"),
        (part('form-data; name="top"', b"1") * 17 + END, 413, "more than 16 fields"),
        (part('form-data; name="top"', b"1" * 5000) + END, 413, "longer than 4096 bytes"),
        (part('form-data; name="top"', b"\xff") + part(FILE, b"a") + END, 422, "top is"),
        (part('form-data; name="images"; filename="../../etc/passwd"', b"a") + END, 422, "image 0: it is empty"),
        (part('form-data; name="images"; filename="<script>alert(1)</script>"', b"a") + END, 422, "image 0: it is"),
    ],
)
def test_forms(content: bytes, status: int, text: str, service: Running) -> None:
    found, detail = refused(service, content, FORM)
    assert (found, text in detail) == (status, True), (found, detail[:200])
    assert "script" not in detail
    assert "passwd" not in detail


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("", 415),
        ("image/png", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/x-pickle", 415),
        ("multipart/mixed; boundary=b", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "b" * 300, 400),
        ("application/json; charset=utf-16", 400),
    ],
)
def test_types(kind: str, status: int, service: Running) -> None:
    assert refused(service, b"abc", {"content-type": kind})[0] == status


@pytest.mark.parametrize("query", ["top=0", "top=x", "top=1&tops=2", "routing=maybe", "path=/etc/passwd"])
def test_queries(query: str, service: Running) -> None:
    response = service.client.post(f"/predict?{query}", json={"images": [GOOD]})
    assert response.status_code == 422


def test_methods_and_paths(service: Running) -> None:
    client = service.client
    assert client.get("/predict").status_code == 405
    assert client.post("/metrics").status_code == 405
    for path in ("/docs", "/redoc", "/../pyproject.toml", "/page.html", "/%2e%2e/etc/passwd", "/favicon.ico"):
        assert client.get(path).status_code == 404
    text = client.get("/metrics").text
    assert 'route="other",status="404"' in text
    assert "passwd" not in text, "clients cannot invent labels"


def test_a_page_of_another_site_is_refused(service: Running) -> None:
    asked = service.client.post("/predict", json={"images": [GOOD]}, headers={"sec-fetch-site": "cross-site"})
    own = service.client.post("/predict", json={"images": [GOOD]}, headers={"sec-fetch-site": "same-origin"})
    assert (asked.status_code, own.status_code) == (403, 200)
    preflight = service.client.options(
        "/predict", headers={"origin": "http://a.b", "access-control-request-method": "POST"}
    )
    assert not any(name.startswith("access-control") for name in {**preflight.headers, **own.headers})


# --- pictures -------------------------------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes) -> bytes:
    """A grey PNG with this header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there very often: few bytes, and every one a pass over the picture."""
    content = encoded(Image.effect_noise((64, 64), 60), "jpeg", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + content[-2:]


WHOLE = encoded(Image.effect_noise((64, 64), 50), "jpeg")
PICTURES = {
    "a bomb: 900 million pixels in 900 KB": (png(30_000, 30_000, zlib.compress(b"\0" * 1000)), "30000x30000|Bomb"),
    "more pixels than are read": (png(8000, 7000, zlib.compress(b"\0" * 8001 * 7000, 1)), "8000x7000 pixels; at most"),
    "too thin to be resized": (encoded(Image.new("L", (60_000, 1))), "would be resized"),
    "cut": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "a header alone": (png(10, 10, b"")[:40], "Error|truncated|not an image"),
    "half a megabyte of nothing": (b"\0" * 500_000, "not an image"),
    "HTML": (b"<!DOCTYPE html><html></html>", "not an image"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "not an image"),
    "EPS, for which Pillow would start Ghostscript": (encoded(picture(1), "eps"), "not an image"),
    "a pickle": (b"\x80\x04\x95.", "not an image"),
    "float pixels": (encoded(Image.new("F", (4, 4)), "tiff"), "floating-point"),
    "very many scans": (scans(3000), r"scans; at most 200"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_are_none_or_too_much(name: str, service: Running) -> None:
    content, reason = PICTURES[name]
    start = time.process_time()
    response = service.predict(content)
    assert response.status_code == 422, response.text[:300]
    assert pytest.approx(0, abs=20) == time.process_time() - start, "no minute of work for a small file"
    detail = response.json()["detail"]
    assert detail.startswith("image 0: ")
    assert any(word in detail for word in reason.split("|")), detail


def test_a_progressive_jpeg_is_no_bomb(service: Running) -> None:
    assert service.predict(encoded(picture(0), "jpeg", progressive=True)).status_code == 200
    assert service.predict(scans(5)).status_code == 200


def test_every_bad_image_of_a_request_is_named(service: Running) -> None:
    response = service.predict(encoded(picture(0)), b"bad", encoded(picture(1)), WHOLE[:50])
    detail = response.json()["detail"]
    assert response.status_code == 422
    assert ("image 1:" in detail, "image 3:" in detail, "image 0" in detail) == (True, True, False)


# --- random ones ----------------------------------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
KINDS = st.sampled_from(["application/json", "multipart/form-data; boundary=b", "text/plain", "multipart/form-data"])


@settings(max_examples=40)
@given(body=st.binary(max_size=400), kind=KINDS)
def test_random_bytes(service: Running, body: bytes, kind: str) -> None:
    refused(service, body, {"content-type": kind})


@settings(max_examples=40)
@given(content=st.dictionaries(st.sampled_from(["images", "top", "routing", "min_score", "x"]), ANY_JSON, max_size=3))
def test_random_json(service: Running, content: dict[str, Any]) -> None:
    refused(service, json.dumps(content).encode(), JSON)


@settings(max_examples=40)
@given(data=st.data())
def test_random_damage_to_a_good_form(service: Running, data: st.DataObject) -> None:
    """A few bytes of a good request changed, cut out or put in: whatever it is now, the service goes on."""
    body = bytearray(part(FILE, encoded(picture(0), "jpeg")) + part('form-data; name="top"', b"2") + END)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    response = service.client.post("/predict", content=bytes(body), headers=FORM)
    assert response.status_code in (200, 400, 413, 422), response.text[:300]
    assert service.service.gate.inside == 0


def test_after_all_that_it_still_predicts(service: Running) -> None:
    assert service.client.post("/predict", json={"images": [GOOD]}).status_code == 200
    assert service.client.get("/healthz").status_code == 200
    assert io.BytesIO(base64.b64decode(GOOD)).read(4) == b"\x89PNG"
