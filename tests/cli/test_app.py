"""The command as a whole: quick help, completion, mistakes in one line, options that stand in one place."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dynaconv.cli import COMMANDS, load, main, options
from dynaconv.cli.app import SYNONYMS, nearest
from dynaconv.cli.defaults import find_default, find_defaults

SOURCES = Path(__file__).resolve().parents[2] / "src"


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m dynaconv`` as typed, with the names of the modules that it imported on the standard error."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dynaconv", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCES), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


HEAVY = {"torch", "timm", "numpy", "torchvision", "accelerate", "matplotlib", "scipy"}


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = command("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert not imported(done) & HEAVY
    # 0.2 s of processor time on a machine of 2022; torch alone would take 2
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


@pytest.mark.parametrize("name", ["train", "compare", "cost", "predict"])
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = command(name, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "--help" in done.stdout
    assert not imported(done) & HEAVY
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_kept_defaults_are_those_of_the_settings() -> None:
    """``python -m dynaconv.cli.defaults`` writes the file again."""
    kept = json.loads((SOURCES / "dynaconv" / "cli" / "defaults.json").read_text())
    assert kept == find_defaults()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("dynaconv com", {"compare"}),
        (
            "dynaconv train --e",
            {"--expert-diversity", "--expert-dropout", "--experts", "--epochs", "--ema", "--eval-split"},
        ),
        ("dynaconv bench --mode ", {"infer", "train"}),
        ("dynaconv cost --format j", {"json"}),
    ],
)
def test_completion(typed: str, expected: set[str]) -> None:
    words = typed.count(" ")
    done = command(_DYNACONV_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(words))
    assert set(done.stdout.split()) == expected
    assert not imported(done) & HEAVY


def test_the_completion_script_can_be_shown() -> None:
    done = command("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr[-500:]
    assert "_DYNACONV_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "--learning-rate", "1"], "'--lr'"),
        (["train", "--batch", "8"], "'--batch-size'"),
        (["train", "--epocs", "8"], "'--epochs'"),
        (["train", "--num_workers", "8"], "'--workers'"),
        (["compare", "--wd", "8"], "'--weight-decay'"),
        (["bench", "--img-size", "8"], "'--image-size'"),
        (["bench", "--bs", "8"], "'--batch-size'"),
        (["eval", "--fp16"], "'--amp'"),
        (["predict", "--topk", "3"], "'--top'"),
        (["cost", "--frmat", "csv"], "'--format'"),
        (["evl", "run"], "'eval'"),
        (["--verson"], "'--version'"),
    ],
)
def test_a_mistyped_word_gets_the_nearest_one(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, "one line"
    assert f"Did you mean {meant}?" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["eval"], "Missing argument 'run'"),
        (["cost", "resnet18", "--format"], "requires an argument"),
        (["bench", "x", "--rounds", "many"], "--rounds"),
        (["bench", "x", "--rounds", "0"], "--rounds"),
        (["--nonsense"], "No such option: --nonsense. 'dynaconv --help' explains."),
    ],
)
def test_other_mistakes_are_one_line(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert text.lower() in err.lower()


def test_without_a_word_it_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    alone = capsys.readouterr().out
    assert main(["help"]) == main(["-h"]) == 0
    assert "Commands:" in alone
    assert capsys.readouterr().out == 2 * alone
    assert main(["help", "list"]) == 0
    assert "dynaconv list" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: dynaconv {name} " in capsys.readouterr().out


def test_what_was_not_typed_is_left_to_the_settings() -> None:
    seen = {}

    @options.takes(training=options.TRAINING, opening=options.DATA.default(workers=3))
    def one(training: options.Given, opening: options.Given, word: str = "x") -> None:
        seen.update(training=training, opening=opening, word=word)

    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(one)
    app(["--epochs", "0", "--no-compile", "--word", "y"], standalone_mode=False)
    assert seen == {
        "training": {"epochs": 0, "compile": False},
        "opening": {"workers": 3, "bad_images": "error"},
        "word": "y",
    }


@pytest.mark.parametrize(
    "group", [options.TRAINING, options.KEEPING, options.NETWORK, options.SIZES, options.ON], ids=range(5)
)
def test_every_option_of_a_setting_is_a_setting(group: options.Group) -> None:
    assert group.defaults is not None
    for name in group.options:
        find_default(group.defaults, name)


def test_help_shows_the_settings_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for name, expected in (("train", ("0.05", "sgd")), ("compare", ("0.003", "adamw"))):
        assert main([name, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        for value in expected:
            assert f"[default: {value}]" in text


def test_options_mean_what_they_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of option of train, as it stood in run.json before options were shared."""
    words = "--epochs 3 --lr 0.1 --optimizer adamw --mixup 0.2 --no-tensorboard --channels-last --seed 4 --ema 0.9"
    words += " --experts 2 --method dynamic --share block --drop-path 0.1 --batch-size 7 --image-size 16 --keep 5"
    assert main(["train", "test_resnet", "--data", "digits", *words.split(), "--show"]) == 0
    shown = json.loads(capsys.readouterr().out)
    settings = shown["settings"]
    assert (settings["epochs"], settings["lr"], settings["opt"], settings["mixup"]) == (3, 0.1, "adamw", 0.2)
    assert (settings["tensorboard"], settings["channels_last"], settings["compile"]) == (False, True, False)
    assert (settings["seed"], settings["ema"], settings["keep"]) == (4, 0.9, 5)
    assert (shown["model"]["experts"], shown["model"]["method"], shown["model"]["share"]) == (2, "dynamic", "block")
    assert (shown["model"]["drop_path"], shown["batch_size"], shown["image_size"]) == (0.1, 7, 16)


def test_a_word_has_one_meaning() -> None:
    words = [word for same in SYNONYMS for word in same]
    assert len(words) == len(set(words))
    assert nearest("--nothing-like-it", ["--lr"]) is None


def test_an_unknown_command_is_a_mistake() -> None:
    from dynaconv.errors import UserError

    with pytest.raises(UserError, match=r"no command 'benhc'\. Did you mean 'bench'"):
        load("benhc")
