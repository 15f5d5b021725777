"""``dynaconv eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def evaluate(
    run: Annotated[Path, Argument(help="A run's folder (its best weights) or a .safetensors file.")],
    data: Annotated[str, Option(help="As in 'dynaconv train'; its evaluation split is measured.")],
    everything: Annotated[bool, Option("--all", help="Measure every image below a folder of classes.")] = False,
    batch_size: Annotated[int, Option(min=1, help="Images at a time.")] = 64,
    workers: Annotated[int, Option(min=0, help="Loader processes.")] = 2,
    amp: Annotated[str, Option(help="Mixed precision: no, bf16 or fp16.")] = "no",
    device: Annotated[str, Option(help="auto or cpu.")] = "auto",
    bad_images: Annotated[str, Option(help="Unreadable images: 'error' or 'skip'.")] = "error",
    max_bad_images: Annotated[int | None, Option(help="How many may be skipped. Default 1 %, at least 10.")] = None,
    data_root: Annotated[Path | None, Option(help="Folder of torch/ and hfds/ data sets.")] = None,
    eval_split: Annotated[str | None, Option()] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a trained network on a data set. Several processes (torchrun) give the number of one."""
    from dynaconv.cli.logging import log_to_terminal
    from dynaconv.data.bad_images import BadImages, default_cap
    from dynaconv.data.open_evaluation import evaluation_source, plain_batches
    from dynaconv.train.accelerator import make_accelerator
    from dynaconv.train.classification import Classification
    from dynaconv.train.loop import evaluate as measure
    from dynaconv.train.settings import TrainSettings
    from dynaconv.train.trained import load_trained

    settings = TrainSettings.of({"amp": amp, "device": device})
    trained = load_trained(run)
    source = evaluation_source(data, trained.classes, everything=everything, root=data_root, eval_split=eval_split)
    accelerator = make_accelerator(settings)
    log_to_terminal(accelerator.is_main_process)
    policy = BadImages(bad_images, default_cap(len(source)) if max_bad_images is None else max_bad_images)
    batches = plain_batches(
        source,
        trained.preprocess,
        batch_size=batch_size,
        workers=workers,
        bad_images=policy,
        processes=accelerator.num_processes,
        process=accelerator.process_index,
        device=accelerator.device,
    )
    task = Classification(len(trained.classes))
    metrics = measure(trained.model.to(accelerator.device), batches, task, accelerator)
    batches.close()
    if accelerator.is_main_process:
        answer = {"weights": str(trained.path), "data": data, "images": len(source), **metrics}
        print(json.dumps(answer, indent=2) if as_json else _sentence(answer, len(policy.reasons)))


def _sentence(answer: dict[str, object], skipped: int) -> str:
    left_out = f" ({skipped} unreadable ones left out)" if skipped else ""
    return (
        f"top-1 {100 * float(str(answer['top1'])):.2f} %, top-5 {100 * float(str(answer['top5'])):.2f} %, "
        f"loss {float(str(answer['eval_loss'])):.4f} on {answer['images']} images{left_out} of {answer['data']}, "
        f"weights {answer['weights']}"
    )
