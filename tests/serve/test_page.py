"""The page at `/` in a real browser: a picture is dropped, classes and experts appear, nothing comes from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dynaconv.serve.app import read_page
from serve.checkpoints import CLASSES, encoded, picture
from serve.chromium import Browser, find_chromium
from serve.clients import Running


def test_the_page_needs_nothing_from_elsewhere(service: Running) -> None:
    response = service.client.get("/")
    page, policy = read_page()
    assert (response.status_code, response.text) == (200, page)
    assert response.headers["content-security-policy"] == policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://|//\w+\.|@import|url\(", page)
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|eval\(|\son\w+=|style=", page), "text stays text"
    for name, value in {"x-content-type-options": "nosniff", "x-frame-options": "DENY"}.items():
        for path in ("/", "/model", "/healthz", "/none"):
            assert service.client.get(path).headers[name] == value


def test_openapi_describes_the_routes(service: Running) -> None:
    assert service.client.head("/healthz").status_code == 200
    described = service.client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/healthz", "/metrics", "/model"}
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert {"200", "413", "422", "429", "503"} <= set(described["paths"]["/predict"]["post"]["responses"])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is not installed")
    found = Browser(path, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    path.write_bytes(encoded(picture(5, (300, 200))))
    return path


SHOWN = """({
  classes: [...document.querySelectorAll("#list span:first-of-type")].map((one) => one.textContent),
  rows: [...document.querySelectorAll("tbody tr")].map((one) => [...one.children].map((cell) => cell.textContent)),
  state: document.querySelector("#state").textContent,
  wide: document.documentElement.scrollWidth,
  canvas: [document.querySelector("canvas").width, document.querySelector("canvas").height],
})"""


@pytest.mark.parametrize(("width", "how"), [(375, "choose"), (1280, "drop")])
def test_a_picture_shows_its_classes_and_experts(
    width: int, how: str, service: Running, browser: Browser, file: Path, tmp_path: Path
) -> None:
    browser.open(str(service.client.base_url), width)
    browser.until("document.title.includes('test_resnet')")
    browser.choose("#file", file) if how == "choose" else browser.drop("#drop", file)
    browser.until("!document.querySelector('#result').hidden && document.querySelector('canvas').height === 200")
    shown: dict[str, Any] = browser.value(SHOWN)
    (image,) = service.predict(file.read_bytes(), routing=True).json()["images"]
    assert shown["classes"] == [one["class"] for one in image["classes"]]
    assert sorted(shown["classes"]) == sorted(CLASSES), "markup in a class's name is text"
    expected = [[one["router"], *(f"{weight:.2f}" for weight in one["weights"])] for one in image["routing"]]
    assert [row[0] for row in shown["rows"]] == [row[0] for row in expected]
    for row, wanted in zip(shown["rows"], expected, strict=True):
        assert [float(cell) for cell in row[1:]] == pytest.approx([float(cell) for cell in wanted[1:]], abs=0.0101)
    assert shown["wide"] <= width, "nothing has to be scrolled sideways"
    assert (shown["canvas"], shown["state"].startswith(file.name)) == ([300, 200], True)
    assert browser.problems == []
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as page:
        assert page.width == width


def test_what_the_service_refuses_is_said(service: Running, browser: Browser, tmp_path: Path) -> None:
    browser.open(str(service.client.base_url), 375)
    browser.until("document.title.includes('test_resnet')")
    (tmp_path / "text.png").write_text("<b>no picture</b>")
    browser.drop("#drop", tmp_path / "text.png")
    browser.until("!document.querySelector('#problem').hidden")
    text = browser.value("document.querySelector('#problem').textContent")
    assert text == "No prediction: image 0: it is empty or not an image"
    assert browser.value("document.querySelector('#result').hidden") is True
    # the browser itself notes the status 422
    assert [one for one in browser.problems if "422" not in one] == []
    browser.problems.clear()
