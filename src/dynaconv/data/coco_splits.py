"""Which annotation files of a folder are for training and which for evaluation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dynaconv.data.coco import Category, Coco
from dynaconv.data.coco_file import read_coco
from dynaconv.errors import UserError

TRAIN_WORDS = ("train", "training")
EVALUATION_WORDS = ("val", "validation", "valid", "eval", "test")


def open_coco(
    name: str | Path, *, keypoints: bool, train_split: str | None = None, eval_split: str | None = None
) -> tuple[Coco, Coco]:
    """The training and the evaluation part of a data set in COCO's format.

    Args:
        name: a folder with annotation files in it, in ``annotations/`` or in a folder per split; or one annotation
            file, of which a fixed 20 % of the pictures is held out. ``coco/`` before it is allowed.
        keypoints: prefer files whose name speaks of keypoints to the others; or the others to them.
        train_split, eval_split: a file's name without ``.json``, or a word of it (``val2017``, ``val``); found by the
            usual words if ``None``.

    Raises:
        UserError: nothing there, or a split that cannot be told.
    """
    path = _path(name)
    if path.is_file():
        return _two_parts(path)
    train = _find(path, TRAIN_WORDS, keypoints, train_split, "train")
    evaluation = _find(path, EVALUATION_WORDS, keypoints, eval_split, "eval")
    if train is None:
        raise UserError(_no_split(path, "train"))
    if evaluation is None:
        return _two_parts(train)
    if train == evaluation:
        raise UserError(f"{train} is given for training and for evaluation; expected two files.")
    first = read_coco(train)
    return first, read_coco(evaluation, known=first.categories)


def open_coco_part(
    name: str | Path, *, keypoints: bool, split: str | None = None, known: Sequence[Category] | None = None
) -> Coco:
    """The evaluation part alone, whole; of one annotation file everything. See :func:`open_coco`."""
    path = _path(name)
    if path.is_dir():
        found = _find(path, EVALUATION_WORDS, keypoints, split, "eval")
        if found is None:
            raise UserError(_no_split(path, "eval"))
        path = found
    return read_coco(path, known=known)


def _path(name: str | Path) -> Path:
    path = Path(str(name).removeprefix("coco/") if not Path(name).exists() else name).expanduser()
    if not path.exists():
        raise UserError(
            f"There is no {path}. Expected a folder with annotation files in COCO's format, such as "
            "instances_train.json and instances_val.json, or one such file."
        )
    return path


def _two_parts(path: Path) -> tuple[Coco, Coco]:
    whole = read_coco(path)
    if len(whole.pictures) < 2:
        raise UserError(f"{path} has {len(whole.pictures)} pictures; expected at least two, to hold some out.")
    return whole.held_out()


def _files(root: Path) -> list[Path]:
    return sorted([*root.glob("*.json"), *root.glob("*/*.json")])


def _words(root: Path, path: Path) -> set[str]:
    """What a file's name and its folder's speak of: ``annotations/instances_val2017.json`` of val2017, val ..."""
    names = [*path.stem.lower().replace(".", "_").split("_"), path.relative_to(root).parts[0].lower()]
    return {path.stem.lower(), *names, *(re.sub(r"\d+$", "", name) for name in names)}


def _find(root: Path, usual: Sequence[str], keypoints: bool, asked: str | None, option: str) -> Path | None:
    words = usual if asked is None else (asked.lower().removesuffix(".json"),)
    for word in words:  # in their order: val before test
        found = [path for path in _files(root) if word in _words(root, path)]
        found = [path for path in found if ("keypoints" in path.stem.lower()) == keypoints] or found
        if len(found) > 1:
            raise UserError(
                f"{root} has several files for {word!r}: {', '.join(path.name for path in found)}. "
                f"Choose with --{option}-split and a file's name."
            )
        if found:
            return found[0]
    if asked is not None:
        raise UserError(f"--{option}-split {asked}: there is no such annotation file in {root}. {_there(root)}")
    return None


def _no_split(root: Path, option: str) -> str:
    usual = TRAIN_WORDS if option == "train" else EVALUATION_WORDS
    return (
        f"{root} has no annotation file that speaks of {', '.join(usual)}. {_there(root)} "
        f"Choose with --{option}-split and a file's name, or pass the file itself."
    )


def _there(root: Path) -> str:
    names = [str(path.relative_to(root)) for path in _files(root)]
    return f"There: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}." if names else "It has no JSON files."
