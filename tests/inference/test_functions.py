"""Networks of the user's own functions: found by name, and every mistake is one sentence."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from torch import nn

from dynaconv.errors import UserError
from dynaconv.inference.functions import call_function, find_function, is_function_name

FILE = """
from torch import nn
import helper_of_net

class Net(nn.Linear):
    pass

def build(num_classes=3, width=4):
    return Net(width, num_classes)

def needs(width, depth):
    return Net(width, depth)

def nothing():
    Net(1, 1)

def fails():
    return helper_of_net.fail()

def anything(**options):
    return Net(options["width"], 1)

ready = Net(1, 1)
number = 7
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_net_of_tests.py").write_text(FILE)
    (tmp_path / "helper_of_net.py").write_text("def fail():\n    raise RuntimeError('no luck')\n")
    monkeypatch.chdir(tmp_path)
    return "my_net_of_tests.py"


def built(name: str, **given: int) -> nn.Module:
    return call_function(name, find_function(name), given, {"num_classes": 5})


@pytest.mark.parametrize("place", ["my_net_of_tests.py", "./my_net_of_tests.py", "my_net_of_tests"])
def test_a_function_of_a_file_or_module_gets_what_it_takes(file: str, place: str) -> None:
    network = built(f"{place}:build", width=2)
    assert (network.in_features, network.out_features) == (2, 5)
    assert built(f"{place}:anything", width=6).in_features == 6
    assert type(built(f"{place}:build")) is type(network), "the file is run once while it stays the same"


def test_a_changed_file_is_run_again(file: str) -> None:
    built(f"{file}:build")
    Path(file).write_text("from torch import nn\ndef build():\n    return nn.Linear(9, 9)\n")
    assert built(f"{file}:build").in_features == 9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_net_of_tests.py", r"names no function; expected .*has Net, build, needs"),
        ("my_net_of_tests.py:", "names no function"),
        ("my_net_of_test.py:build", r"There is no file my_net_of_test.py .*Did you mean 'my_net_of_tests.py'"),
        ("none/of_it.py:build", r"There is no file none/of_it.py"),
        ("my_net_of_tests.py:bild", r"has no function 'bild'. Did you mean 'build'"),
        ("my_net_of_tests.py:needs", r"needs the arguments width, depth: give --arg width=VALUE --arg depth=VALUE"),
        ("my_net_of_tests.py:nothing", r"returned NoneType; expected a torch.nn.Module \(is a `return` missing"),
        ("my_net_of_tests.py:fails", r"failed at .*helper_of_net.py, line 2: RuntimeError: no luck"),
        ("my_net_of_tests.py:ready", r"is a network itself \(Net\); expected a function"),
        ("my_net_of_tests.py:number", r"is int; expected a function"),
        ("my_net_of_test:build", r"There is no module 'my_net_of_test'.*Did you mean 'my_net_of_tests'"),
        ("torch.nn.nowhere:build", r"There is no module 'torch.nn.nowhere'"),
    ],
)
def test_mistakes(file: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(name)


def test_an_unknown_argument_is_named(file: str) -> None:
    with pytest.raises(UserError, match=r"takes no argument 'widht'. Did you mean 'width'"):
        built(f"{file}:build", widht=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library_at_all\n", "No module named 'no_such_library_at_all'"),
        ("def build(:\n", "SyntaxError"),
        ("1 / 0\n", r"at .*broken_of_tests.py, line 1: ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_imported(file: str, text: str, message: str) -> None:
    Path("broken_of_tests.py").write_text(text)
    with pytest.raises(UserError, match=message):
        find_function("broken_of_tests.py:build")


def test_a_file_that_may_not_be_read() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "net.py").write_text("def build(): ...")
    (folder / "net.py").chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(UserError, match=r"net\.py cannot be read: Permission denied"):
            find_function(f"{folder / 'net.py'}:build")
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_names_of_functions() -> None:
    assert not any(map(is_function_name, ("resnet18", "hf-hub:timm/resnet18", "local-dir:/data/x", "runs/x", "a/b:c")))
