"""``dynaconv eval``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from dynaconv.cli import options
from dynaconv.cli.options import Given, assignments, takes
from dynaconv.cli.terminal import prepare, sentences, width
from dynaconv.cli.trained import find_trained

if TYPE_CHECKING:
    from dynaconv.tasks.task import Task


@takes(
    on=options.ON,
    opening=options.DATA.only("workers", "bad_images", "max_bad_images", "data_root", "eval_split").default(workers=2),
)
def evaluate(
    *,
    run: options.Run,
    data: Annotated[str, Option(help="As in 'dynaconv train'; its evaluation split is measured.")],
    everything: Annotated[bool, Option("--all", help="Measure every image below a folder of classes.")] = False,
    batch_size: options.BatchSize = 64,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    data_arg: options.DataArg = None,
    model: options.Model = None,
    weights: options.Weights = None,
    pretrained: options.Published = False,
    image_size: options.ImageSize = None,
    arg: options.Arg = None,
    on: Given,
    opening: Given,
) -> None:
    """Measure a trained network on a data set. Several processes (torchrun) give the number of one."""
    from dynaconv.tasks import call_with_options
    from dynaconv.tasks.task import TaskOptions
    from dynaconv.train.accelerator import make_accelerator
    from dynaconv.train.evaluation import evaluate as measure
    from dynaconv.train.layout import with_layout
    from dynaconv.train.settings import LoopSettings

    settings = LoopSettings.of(on)
    if "data_root" in opening:
        opening["root"] = opening.pop("data_root")
    accelerator = make_accelerator(settings)
    prepare(threads, accelerator.is_main_process)
    settings = with_layout(settings, accelerator.device)
    trained = find_trained(
        run,
        TaskOptions(channels_last=settings.channels_last),
        data=data,
        opening={name: opening[name] for name in ("root", "eval_split") if name in opening},
        model=model,
        weights=weights,
        pretrained=pretrained,
        image_size=image_size,
        arguments=assignments("--arg", arg),
    )
    batches = call_with_options(
        trained.task.labelled_batches,
        f"the task {trained.task.name}",
        data,
        batch_size=batch_size,
        processes=accelerator.num_processes,
        process=accelerator.process_index,
        device=accelerator.device,
        everything=everything or None,
        **opening,
        **assignments("--data-arg", data_arg),
    )
    metrics = measure(trained.model.to(accelerator.device), batches, trained.task, accelerator)
    batches.close()
    if accelerator.is_main_process:
        measured = {"weights": str(trained.path), "data": data, "images": batches.size, **metrics}
        text = _sentence(measured, trained.task, len(batches.bad_images.reasons))
        print(json.dumps(measured, indent=2) if as_json else sentences(text, width()))


def _sentence(measured: dict[str, Any], task: Task, skipped: int) -> str:
    left_out = f" ({skipped} unreadable ones left out)" if skipped else ""
    values = ", ".join(f"{metric.label} {metric.text(measured[metric.name])}" for metric in task.metrics_shown)
    return f"{values} on {measured['images']} images{left_out} of {measured['data']}, weights {measured['weights']}"
