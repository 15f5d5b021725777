"""Training runs in processes of their own, forked from one that has imported everything: a start takes no time."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from dynaconv.errors import RunError, UserError
from dynaconv.train import fit
from train.tiny import digits, settings, tiny

PRELOAD = ["train.forked", "timm", "accelerate", "torchmetrics.classification", "tensorboard.compat.proto.event_pb2"]


def start(out: object, *, environment: dict[str, str] | None = None, **options: Any) -> BaseProcess:
    """Begin ``fit`` on the tests' digits in a new process; ``options`` as in :func:`run`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=run, args=(str(out), environment or {}, options))
    process.start()
    return process


def start_two(out: object, **options: Any) -> list[BaseProcess]:
    """The same as two processes of one run, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(out, environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **options) for rank in range(2)
    ]


def run(out: str, environment: dict[str, str], options: dict[str, Any]) -> None:
    """Exit as the command line would: 0, 1, 2, 130, 143."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    model = tiny(**options.get("model", {}))
    try:
        fit(
            model,
            digits(**options.get("data", {})),
            settings(**options.get("settings", {})),
            out=out,
            resume=options.get("resume", "auto"),
            progress=options.get("progress"),
        )
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
