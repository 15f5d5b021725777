"""The page, in a real browser where there is one: it draws itself, loads nothing, and fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis.routes import flat_images, settings, weights
from dynaconv.analysis.routes import Inspection, inspect_run
from dynaconv.analysis.routes.page import as_script_data, page, page_data

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    place = tmp_path_factory.mktemp("page")
    data, run = flat_images(place / "data"), weights(place / "best.safetensors")
    return inspect_run(run, place / "out", settings(data, intervene=True))


def test_nothing_is_loaded_and_every_name_is_escaped(found: Inspection) -> None:
    text = page(found)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")  # SVG's name, which is not fetched
    assert "https://" not in text
    assert not re.search(r"<(link|iframe|object|embed|base)\b", text)
    assert "default-src 'none'" in text
    body = text.split('id="data">')[1]
    assert "<b>" not in body.split("</script>")[0]
    data = json.loads(body.split("</script>")[0])
    assert data["classes"][1] == "grey & <b>"
    assert json.loads(as_script_data({"a": "</script><!-- &amp;"})) == {"a": "</script><!-- &amp;"}
    assert "<" not in as_script_data("</script>")
    assert len(text) < 300_000


def test_the_page_has_the_data_of_the_inspection(found: Inspection) -> None:
    data = page_data(found)
    assert [router["name"] for router in data["routers"]] == [report.router.name for report in found.routers]
    assert sum(sample["picked"] for sample in data["samples"]) == 6
    for sample in data["samples"]:
        assert sample["picture"].startswith("data:image/jpeg;base64,")
        assert [len(weights) for weights in sample["weights"]] == [router["experts"] for router in data["routers"]]
    tops = data["routers"][-1]["top_classes"]
    assert len(tops) == found.routers[-1].router.experts
    for expert, classes in enumerate(tops):
        for top in classes:
            assert data["samples"][top["sample"]]["label"] == top["label"]
            mean = data["routers"][-1]["class_mean"][top["label"]][expert]
            assert top["mean"] == pytest.approx(mean, abs=1e-3)
    assert [table["header"][-2:] for table in data["tables"]] == [["top-1, %", "top-5, %"]] * 2


def test_class_means_that_are_too_many_are_left_out(found: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynaconv.analysis.routes.page.MOST_NUMBERS", 10)
    routers = page_data(found)["routers"]
    assert routers[0]["class_mean"] is None
    assert routers[-1]["class_mean"] is not None  # the last one is what the page opens with


def browse(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    return subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={file.parent / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=5000"),
            *(*options, file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: the page was not opened")
def test_in_a_browser(found: Inspection, tmp_path: Path) -> None:
    file = tmp_path / "inspect.html"
    file.write_text(page(found), "utf-8")
    done = browse(file, "--window-size=1280,900", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]  # no error, nothing refused by the policy
    dom = done.stdout.replace(page(found).split("<style>")[1].split("</style>")[0], "")
    width, window = map(int, re.findall(r'data-ready="(\d+)/(\d+)"', dom)[0])
    assert width <= window
    assert dom.count('aria-pressed="true"') == 1
    assert dom.count('aria-pressed="false"') == 5
    assert dom.count('class="step"') == len(found.routers)
    assert "grey &amp; &lt;b&gt;" in dom
    first = found.samples[0]
    shown = re.findall(r'title="expert 0: ([\d.]+), mean ([\d.]+)"', dom)
    for (weight, mean), report in zip(shown, found.routers, strict=False):
        assert float(weight) == pytest.approx(first.weights[report.router.name][0], abs=6e-4)
        assert float(mean) == pytest.approx(report.sums.mean()[0], abs=6e-4)
    assert "shuffle across images" in dom


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: the page was not opened")
def test_on_a_phone(found: Inspection, tmp_path: Path) -> None:
    """In a frame of 375 pixels: the browser's own windows are never so narrow."""
    (tmp_path / "inspect.html").write_text(page(found), "utf-8")
    frame = tmp_path / "phone.html"
    frame.write_text(
        '<iframe id="f" src="inspect.html" style="width:375px;height:800px;border:0"></iframe><script>'
        'addEventListener("load",()=>setTimeout(()=>{document.title=document.getElementById("f")'
        ".contentDocument.documentElement.dataset.ready},1500))</script>",
        "utf-8",
    )
    done = browse(frame, "--allow-file-access-from-files", "--dump-dom")
    ready = re.findall(r"<title>(\d+)/(\d+)</title>", done.stdout)
    assert ready, done.stdout[:300] + done.stderr[-800:]
    width, window = map(int, ready[0])
    assert width == window, "the page is wider than the phone"
    assert 350 <= window <= 375  # less the scroll bar
