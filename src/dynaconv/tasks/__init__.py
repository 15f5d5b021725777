"""What a network is trained for: each task its data sets, transforms, loss, metrics and drawing.

The loop and the run folder (:mod:`dynaconv.train`) know a task by the protocol :class:`~dynaconv.tasks.task.Task`
alone. A new task is a package here and a line in :data:`TASKS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dynaconv.errors import UserError, suggest

TASKS = {"classification": "dynaconv.tasks.classification"}
"""The package of every task; its ``TASK`` is the task's class."""


def task_class(name: str) -> Any:
    """The class of the task called ``name``; its package is imported now.

    Raises:
        UserError: there is no such task.
    """
    if name not in TASKS:
        raise UserError(f"There is no task {name!r}. {suggest(name, TASKS)}")
    return import_module(TASKS[name]).TASK
