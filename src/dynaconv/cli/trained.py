"""The trained network of ``eval``, ``predict`` and ``inspect``: of a run, or by a network's name with weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynaconv.cli.export import read_classes
from dynaconv.errors import UserError

if TYPE_CHECKING:
    from dynaconv.tasks.task import TaskOptions
    from dynaconv.train.run_folder.weights import Trained


def find_trained(
    run: str,
    options: TaskOptions,
    *,
    data: str | None = None,
    opening: Mapping[str, Any] | None = None,
    model: str | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    image_size: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    classes: Path | None = None,
) -> Trained:
    """The network of a run, or the one of that name.

    Args:
        data, opening: the data set whose classes are those of a network by name.
        classes: a file with their names instead.

    Raises:
        UserError: nothing there, or options that do not belong together.
    """
    from dynaconv.train.named import is_named, load_named
    from dynaconv.train.run_folder.weights import load_trained

    if not is_named(run) and (Path(run).exists() or not (weights or pretrained)):
        given = {"--weights": weights, "--pretrained": pretrained, "--image-size": image_size, "--arg": arguments}
        for option, value in ({**given, "--classes": classes}).items():
            if value:
                raise UserError(f"{run} is a run, which has its own weights and settings; {option} is for a network")
        return load_trained(Path(run), options, model)
    if model is not None:
        raise UserError(f"--model names the function behind a run's weights, and {run} is a network; leave it out")
    names, preprocess = read_classes(classes) if classes is not None else None, None
    if data is not None:
        from dynaconv.tasks.classification.datasets import open_data

        opened = open_data(data, **dict(opening or {}))
        names, preprocess = opened.classes, opened.preprocess
    return load_named(
        run,
        classes=names,
        arguments=arguments,
        weights=weights,
        pretrained=pretrained,
        image_size=image_size,
        preprocess=preprocess,
        options=options,
    )
