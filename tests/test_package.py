"""The package as a whole: what importing it costs, the command without its extras, what the repository may hold."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dynaconv
from dynaconv import cli
from dynaconv.__main__ import EXTRA_OF_MODULE, main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
IMPORT_NAMES = {"pillow": "PIL", "scikit-learn": "sklearn", "faster-coco-eval": "faster_coco_eval"}
IMPORT_NAMES |= {"prometheus-client": "prometheus_client", "python-multipart": "python_multipart"}

# Run in an interpreter that has none of the extras, by refusing to find them.
WITHOUT_EXTRAS = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {extras!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds this checkout's dynaconv, as pytest does."""
    path = [str(REPOSITORY / "src")]
    start = f"import sys; sys.path[:0] = {path!r}\n"
    return subprocess.run([sys.executable, "-c", start + code, *arguments], capture_output=True, text=True, check=False)


def without_extras(*but: str) -> str:
    """Code after which no extra can be imported. Without numpy, torch 2.11 itself warns on standard error."""
    return WITHOUT_EXTRAS.format(extras=set(EXTRA_OF_MODULE) - set(but))


def test_importing_the_package_imports_not_even_torch() -> None:
    done = python("import dynaconv; print(int('torch' in sys.modules), dynaconv.__version__)")
    assert done.stdout.split() == ["0", dynaconv.__version__], done.stderr


def test_public_names_are_attributes_of_the_package() -> None:
    done = python(
        "import dynaconv\n"
        "names = [name for name in dir(dynaconv) if not name.startswith('_')]\n"
        "for name in (*dynaconv.public.__all__, 'layers', 'ops'): getattr(dynaconv, name)\n"
        "namespace = {}\n"
        "exec('from dynaconv import *', namespace)\n"
        "assert set(dynaconv.public.__all__) <= set(namespace) & set(names)\n"
        "assert not hasattr(dynaconv, 'nonsense')\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_room_can_be_imported_first_and_by_any_road() -> None:
    # A room that imports another as `from dynaconv import layers` must not load the public names amid its own import.
    done = python("from dynaconv.conversion import layer; import dynaconv; assert dynaconv.dynamize and layer")
    assert done.returncode == 0, done.stderr


def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_version_is_one_that_packaging_accepts() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", dynaconv.__version__)


def test_import_needs_torch_alone() -> None:
    done = python(without_extras("numpy") + "import dynaconv; dynaconv.mix; print(dynaconv.__version__)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == dynaconv.__version__


def test_import_brings_no_extra_and_is_quick_beside_torch() -> None:
    # Processor time, not the clock: other work on the machine must not decide.
    done = python(
        "import json, time\n"
        "start = time.process_time()\n"
        "import torch\n"
        "after_torch, before = time.process_time(), set(sys.modules)\n"
        "import dynaconv\n"
        "dynaconv.mix\n"
        "end = time.process_time()\n"
        "new = sorted({name.partition('.')[0] for name in set(sys.modules) - before})\n"
        "print(json.dumps([after_torch - start, end - after_torch, new]))\n"
    )
    assert done.returncode == 0, done.stderr
    torch_seconds, own_seconds, new_modules = json.loads(done.stdout)
    assert not set(new_modules) & set(EXTRA_OF_MODULE), new_modules
    assert own_seconds < 0.5 * torch_seconds, f"torch took {torch_seconds:.2f} s, dynaconv {own_seconds:.2f} s more"


@pytest.mark.parametrize(
    ("package", "extra"), [("typer", "train"), ("datasets", "data"), ("uvicorn", "serve"), ("wandb", "wandb")]
)
def test_command_without_its_extra_says_which_to_install(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "main", failing_import(f"{package}.some.part"))
    assert main() == 2
    expected = f"dynaconv: {package} is not installed and this needs it; pip install 'dynaconv[{extra}]'\n"
    assert capsys.readouterr() == ("", expected)


def test_command_does_not_hide_a_broken_import_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", failing_import("dynaconv.nothing"))
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        main()


def failing_import(name: str) -> Callable[[], int]:
    def fails() -> int:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return fails


def test_compare_without_typer_says_which_extra_to_install() -> None:
    done = python(
        without_extras("numpy")
        + "from dynaconv.__main__ import main\n"
        + "sys.argv = ['dynaconv', 'compare', 'resnet10t']\n"
        + "sys.exit(main())"
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "pip install 'dynaconv[train]'" in done.stderr


def test_every_optional_package_is_known_to_the_command() -> None:
    for extra, requirements in project()["optional-dependencies"].items():
        if extra in ("dev", "docs"):  # no command needs them
            continue
        for requirement in requirements:
            name = re.split(r"[<>=!~; ]", requirement)[0]
            assert EXTRA_OF_MODULE.get(IMPORT_NAMES.get(name, name)) == extra, requirement


def test_every_declared_package_is_used() -> None:
    """By an import of ours, or by what is named here as using it."""
    by_others = {"datasets": "timm's reader of hfds/", "pip": "make_venv.py"}
    by_others |= {"setuptools": "the build", "import-linter": "make lint", "mypy": "make lint", "ruff": "make lint"}
    by_others |= dict.fromkeys(("furo", "ipykernel", "myst-nb", "sphinx"), "make site")
    by_others |= {"wheel": "make wheels"}
    by_others |= {"pre-commit": "the hooks", "pytest-timeout": "pyproject.toml", "pytest-xdist": "make test"}
    files = [path for room in ("src", "tests") for path in (REPOSITORY / room).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    extras = project()["optional-dependencies"]
    names = {re.split(r"[<>=!~; ]", requirement)[0] for extra in extras.values() for requirement in extra}
    unused = [
        name
        for name in names - set(by_others)
        if not re.search(rf"^\s*(from|import) {IMPORT_NAMES.get(name, name).replace('-', '_')}\b", text, re.MULTILINE)
    ]
    assert unused == []


def test_requirements_pin_every_package_and_name_no_place() -> None:
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 50
    odd = [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.+]+( ; [\w.'<>=!() *-]+)?", line)]
    assert odd == []


def test_requirements_cover_what_the_project_asks_for() -> None:
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines}
    extras = project()["optional-dependencies"]
    asked = [*project()["dependencies"], *(one for extra in extras if extra != "wandb" for one in extras[extra])]
    missing = {re.split(r"[<>=]", requirement)[0].strip().lower().replace("_", "-") for requirement in asked} - pinned
    assert missing == set()


def test_no_committed_file_names_a_path_of_one_machine() -> None:
    listing = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout: cannot tell what is committed")
    # A folder that belongs to one machine or person, at the start of an absolute path.
    private = re.compile(rb"(?<![\w.~/$}-])/(?:home|root|Users|work|tmp|workspace)/[\w.-]+")
    found = []
    for name in filter(None, listing.stdout.split("\0")):
        path = REPOSITORY / name
        if path.is_file():
            found += [f"{name}: {match.decode()}" for match in private.findall(path.read_bytes())]
    assert found == []


def test_package_is_typed_and_licensed() -> None:
    assert (Path(dynaconv.__file__).parent / "py.typed").is_file()
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("room", ["conversion", "layers"])
def test_a_room_can_be_imported_first(room: str) -> None:
    """Each of them is imported by the public names, which must not be loaded in its middle."""
    done = python(f"import dynaconv.{room} as room; print(room.__name__)")
    assert done.stdout.split() == [f"dynaconv.{room}"], done.stderr


def test_no_function_takes_the_place_of_a_module_of_its_name() -> None:
    """``import dynaconv.counting.rules as rules`` must give the module, whatever the package exports."""
    hidden = []
    for found in pkgutil.walk_packages(dynaconv.__path__, "dynaconv."):
        if found.name == "dynaconv.__main__":
            continue
        module = importlib.import_module(found.name)
        package, _, name = found.name.rpartition(".")
        if getattr(sys.modules[package], name) is not module:
            hidden.append(found.name)
    assert not hidden


def test_the_version_is_the_same_everywhere() -> None:
    """In CITATION.cff, and as the newest section of the changelog."""
    cited = re.search(r"^version: (.*)$", (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited[1] == dynaconv.__version__
    sections = re.findall(r"^## \[(.*?)\]", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert sections[1] == dynaconv.__version__
