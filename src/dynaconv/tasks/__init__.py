"""The tasks that networks are trained for. Each has its data sets, transforms, loss, metrics and drawing.

The loop and the run folder (:mod:`dynaconv.train`) use a task only by the protocol
:class:`~dynaconv.tasks.task.Task`. A new task is a package here and a line in :data:`TASKS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from dynaconv.errors import UserError, suggest

TASKS = {
    "classification": "dynaconv.tasks.classification",
    "detection": "dynaconv.tasks.detection",
    "keypoints": "dynaconv.tasks.keypoints",
}
"""The package of every task; its ``TASK`` is the task's class."""

FAMILIES = {"ssd300_": "detection", "keypoints_": "keypoints"}
"""How the names of networks begin that are for one task alone, and which one it is."""


def task_class(name: str) -> Any:
    """The class of the task called ``name``; its package is imported now.

    Raises:
        UserError: there is no such task.
    """
    if name not in TASKS:
        raise UserError(f"There is no task {name!r}. {suggest(name, TASKS)}")
    return import_module(TASKS[name]).TASK


def task_of_model(name: str | None) -> str:
    """The task that a network of this name is for; classification, unless its family is another task's.

    >>> task_of_model("mobilenetv2_050")
    'classification'
    """
    found = (task for prefix, task in FAMILIES.items() if (name or "").startswith(prefix))
    return next(found, "classification")


def call_with_options(function: Callable[..., Any], what: str, *arguments: Any, **options: Any) -> Any:
    """``function(*arguments, **options)`` without the options that are ``None``.

    Args:
        what: whose function it is, for the error, e.g. "the task classification".

    Raises:
        UserError: it does not take one of the options.
    """
    given = {name: value for name, value in options.items() if value is not None}
    known = inspect.signature(function).parameters
    for name in given:
        if name not in known:
            raise UserError(f"{what[0].upper()}{what[1:]} has no option {name!r}. {suggest(name, known)}")
    return function(*arguments, **given)
