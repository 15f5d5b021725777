"""``dynaconv eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import Given, takes
from dynaconv.cli.terminal import prepare, sentences, width


@takes(
    on=options.ON,
    opening=options.DATA.only("workers", "bad_images", "max_bad_images", "data_root", "eval_split").default(workers=2),
)
def evaluate(
    *,
    run: Annotated[Path, Argument(help="A run's folder (its best weights) or a .safetensors file.")],
    data: Annotated[str, Option(help="As in 'dynaconv train'; its evaluation split is measured.")],
    everything: Annotated[bool, Option("--all", help="Measure every image below a folder of classes.")] = False,
    batch_size: options.BatchSize = 64,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    on: Given,
    opening: Given,
) -> None:
    """Measure a trained network on a data set. Several processes (torchrun) give the number of one."""
    from dynaconv.data import BadImages, default_cap
    from dynaconv.tasks.classification import Preprocess
    from dynaconv.tasks.classification.prediction import evaluation_source, plain_batches
    from dynaconv.train.accelerator import make_accelerator
    from dynaconv.train.evaluation import evaluate as measure
    from dynaconv.train.run_folder.weights import load_trained
    from dynaconv.train.settings import TrainSettings

    settings = TrainSettings.of(on)
    trained = load_trained(run, settings)
    source = evaluation_source(
        data,
        trained.classes,
        everything=everything,
        root=opening.get("data_root"),
        eval_split=opening.get("eval_split"),
    )
    accelerator = make_accelerator(settings)
    prepare(threads, accelerator.is_main_process)
    policy = BadImages(opening["bad_images"], opening.get("max_bad_images", default_cap(len(source))))
    batches = plain_batches(
        source,
        Preprocess(**trained.about["preprocess"]),
        batch_size=batch_size,
        workers=opening["workers"],
        bad_images=policy,
        processes=accelerator.num_processes,
        process=accelerator.process_index,
        device=accelerator.device,
    )
    metrics = measure(trained.model.to(accelerator.device), batches, trained.task, accelerator)
    batches.close()
    if accelerator.is_main_process:
        measured = {"weights": str(trained.path), "data": data, "images": len(source), **metrics}
        print(
            json.dumps(measured, indent=2) if as_json else sentences(_sentence(measured, len(policy.reasons)), width())
        )


def _sentence(measured: dict[str, object], skipped: int) -> str:
    left_out = f" ({skipped} unreadable ones left out)" if skipped else ""
    return (
        f"top-1 {100 * float(str(measured['top1'])):.2f} %, top-5 {100 * float(str(measured['top5'])):.2f} %, "
        f"loss {float(str(measured['eval_loss'])):.4f} on {measured['images']} images{left_out} of {measured['data']}, "
        f"weights {measured['weights']}"
    )
