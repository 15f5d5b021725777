"""``dynaconv serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import Given, choice, takes
from dynaconv.cli.terminal import prepare


@takes(limits=options.SERVING)
def serve(
    *,
    checkpoint: Annotated[
        Path, Argument(help="A run's folder (its best weights), weights, a file of dynaconv.save, or an .onnx file.")
    ],
    classes: Annotated[
        Path | None, Option(help="Names of the classes, one in each line, or a list in JSON; for a file without them.")
    ] = None,
    image_size: Annotated[int | None, Option(min=1, help="What the network of a file of dynaconv.save sees.")] = None,
    no_freeze: Annotated[bool, Option("--no-freeze", help="Serve the network as it was trained, slower.")] = False,
    bank_dtype: Annotated[
        str | None, choice("bfloat16", "int8", help="Store the frozen bank as bfloat16 or int8.")
    ] = None,
    device: Annotated[str, choice(*options.DEVICES, help="auto, cpu, cuda, cuda:1 (the second GPU) or mps.")] = "cpu",
    threads: options.Threads = None,
    limits: Given,
) -> None:
    """Serve a trained network over HTTP: POST /predict, /healthz, /metrics, and a page to drop pictures on.

    Concurrent requests are put into batches. It listens on this machine alone unless --host says otherwise, and has
    neither passwords nor encryption: for others, put a proxy with both before it.
    """
    from dynaconv.cli.export import read_classes
    from dynaconv.serve.loading import load_served
    from dynaconv.serve.server import listen, run, url_of
    from dynaconv.serve.service import Service
    from dynaconv.serve.settings import ServeSettings

    settings = ServeSettings.of(limits)
    prepare(threads)
    listening = listen(settings.host, settings.port)
    try:
        served = load_served(
            checkpoint,
            frozen=not no_freeze,
            bank_dtype=bank_dtype,
            device=device,
            classes=None if classes is None else read_classes(classes),
            image_size=image_size,
        )
    except BaseException:
        listening.close()
        raise
    print(f"loaded {served.source}: {served.describe()}", flush=True)
    url = url_of(listening)
    run(Service(served, settings), listening, lambda: print(f"serving at {url} (Ctrl-C ends it)", flush=True))
