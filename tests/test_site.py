"""The site: its pages are all reachable, links between pages hold, and the notebooks run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def toctree_of(page: Path) -> list[str]:
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip() and line[0] != ":"]


def test_every_page_is_in_the_contents() -> None:
    listed = {*toctree_of(DOCS / "index.md"), *(f"api/{name}" for name in toctree_of(DOCS / "api/index.md"))}
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in [*DOCS.rglob("*.md"), *NOTEBOOKS]}
    pages -= {name for name in pages if name.startswith(("_build/", "evidence/"))}
    assert pages == listed | {"index"}


def test_headings_that_links_name_exist() -> None:
    """A link ``page.md#heading`` names a heading as GitHub writes it. (That files exist: tests/test_documents.py.)"""
    missing = []
    for page in DOCS.glob("*.md"):
        for target, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text(encoding="utf-8")):
            file = page if not target else (page.parent / target)
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if anchor not in slugs:
                missing.append(f"{page.name}: {target}#{anchor}")
    assert not missing


def outside_links(text: str) -> set[str]:
    """Addresses on the web in Markdown, without code and without examples of this machine."""
    plain = re.sub(r"```.*?```|`[^`\n]*`|^ {4}[^\n]*$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {link.rstrip(".,;:") for link in re.findall(r"https?://[^\s)>\"']+", plain)}


def test_outside_links_are_of_the_form_and_in_the_site() -> None:
    """Whether they lead anywhere is for `make links`, which sees the pages of the site: they must all be there."""
    repository = DOCS.parent
    site = {page: outside_links(page.read_text(encoding="utf-8")) for page in DOCS.rglob("*.md")}
    site[repository / "CHANGELOG.md"] = outside_links((repository / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert "../CHANGELOG.md" in (DOCS / "changelog.md").read_text(encoding="utf-8")
    seen = set().union(*site.values())
    assert len(seen) > 5
    assert [link for link in seen if not re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/[\w./~%#?=&+-]*)?", link)] == []
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        assert outside_links((repository / name).read_text(encoding="utf-8")) <= seen, name


def code_of(notebook: Path) -> list[str]:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Their cells in order, in one namespace; `make site` executes them in Jupyter and shows what they print."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(code_of(notebook)):
        exec(compile(cell, f"{notebook.name}, cell {number + 1}", "exec"), names)
    assert capsys.readouterr().out
    if notebook.stem == "inside-a-layer":  # its picture shows what its text says
        assert names["selected"][30.0].max() < 0.3
        assert names["selected"][1.0].max() > 0.6


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_notebooks_are_found() -> None:
    assert len(NOTEBOOKS) >= 2


def section(title: str) -> str:
    """A section of the first page."""
    text = (DOCS / "start.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def type_commands(text: str, folder: Path) -> tuple[list[str], str]:
    """Type the commands of console blocks as a reader does, in ``folder``; return their names and what they print."""
    blocks = re.findall(r"```console\n(.*?)```", text.replace("\\\n", ""), flags=re.DOTALL)
    typed = [line for block in blocks for line in block.splitlines() if line.startswith("dynaconv ")]
    printed = ""
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent / "src")}
    for line in typed:
        command = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
        printed += done.stdout
    return [line.split()[1] for line in typed], printed


@pytest.mark.slow
@pytest.mark.timeout(1800)  # several programs, each of which imports torch: minutes where much else computes
def test_the_commands_for_a_trained_network_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained: predict, cost and export with a checkpoint of the clone. (Its Python: test_documents.py.)"""
    text = section("A trained network")
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0], {})  # writes the pictures
    (tmp_path / "checkpoints").symlink_to(DOCS.parent / "checkpoints")
    names, printed = type_commands(text, tmp_path)
    assert names == ["predict", "cost", "export"]
    assert re.findall(r"^pictures/(\w+)\.png,", printed, flags=re.MULTILINE) == ["flower", "temple"]
    assert (tmp_path / "trained.onnx").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_that_train_run(tmp_path: Path) -> None:
    text = section("Train one") + section("The question that matters")
    names, _ = type_commands(text, tmp_path)
    assert names == ["train", "eval", "inspect", "compare"]
    assert (tmp_path / "runs/first/best.safetensors").is_file()
    assert (tmp_path / "runs/first/inspect/inspect.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("myst_nb", reason="the site needs the extra docs, which needs Python 3.11")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--keep-going",
        "--fresh-env",
        "--quiet",
        "-b",
        "html",
    ]
    made = subprocess.run([*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    assert (tmp_path / "api/layers.html").read_text(encoding="utf-8").count("DynamicConv2d") > 3
