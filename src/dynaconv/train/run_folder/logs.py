"""CSV, TensorBoard, on request Weights & Biases; and the learning curves as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynaconv.files import write_text
from dynaconv.tasks.task import Metric
from dynaconv.train.records import EpochRecord
from dynaconv.train.settings import LoopSettings


class Logs:
    """Writes a run's logs. The CSV is written anew from the whole history, so a resumed run has no row twice."""

    def __init__(self, folder: Path, settings: LoopSettings, first_step: int, recipe: dict[str, Any]) -> None:
        self._csv = folder / "log.csv"
        self._board = _tensorboard(folder, first_step) if settings.tensorboard else None
        self._wandb = _wandb(folder, recipe) if settings.wandb else None

    def step(self, step: int, values: dict[str, float]) -> None:
        """Values after an optimizer step."""
        self._send(step, {f"step/{name}": value for name, value in values.items()})

    def epoch(self, step: int, history: list[EpochRecord]) -> None:
        """The last record of ``history`` is new."""
        write_text(self._csv, as_csv(history))
        self._send(step, _numbers(history[-1]))
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _send(self, step: int, values: dict[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(values, step=step)


def as_csv(history: list[EpochRecord]) -> str:
    """One row per epoch; the columns are those of all rows."""
    rows = [{"epoch": record.epoch, **_numbers(record)} for record in history]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _numbers(record: EpochRecord) -> dict[str, float]:
    values: dict[str, float] = {"train_loss": record.train_loss, **record.metrics, "lr": record.lr}
    if record.temperature is not None:
        values["temperature"] = record.temperature
    values |= {
        "images_per_second": record.images_per_second,
        "train_seconds": record.train_seconds,
        "eval_seconds": record.eval_seconds,
        "dropped_steps": record.dropped_steps,
        "bad_images": record.bad_images,
    }
    if record.routing_entropy:
        entropies = record.routing_entropy
        values["routing_entropy"] = sum(entropies.values()) / len(entropies)
        values |= {f"routing_entropy/{name}": value for name, value in entropies.items()}
    return values


def _tensorboard(folder: Path, first_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)


def _wandb(folder: Path, recipe: dict[str, Any]) -> Any:
    import wandb

    return wandb.init(dir=str(folder), config=recipe, resume="allow")


def draw_curves(history: list[EpochRecord], metrics: Sequence[Metric], path: Path) -> None:
    """Losses, metrics in percent, and learning rate with the mean routing entropy, over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # no display is needed, and no global state of pyplot touched
    loss, shares, schedule = figure.subplots(1, 3)
    epochs = [record.epoch + 1 for record in history]
    loss.plot(epochs, [record.train_loss for record in history], label="training", marker=".")
    for metric in metrics:
        evaluated = [record for record in history if metric.name in record.metrics]
        at = [record.epoch + 1 for record in evaluated]
        values = [record.metrics[metric.name] * (100 if metric.percent else 1) for record in evaluated]
        label = "evaluation" if metric.label == "loss" else metric.label
        (shares if metric.percent else loss).plot(at, values, label=label, marker=".")
    loss.set_title("loss")
    shares.set_title("evaluation, %")
    for axes in (loss, shares):
        if axes.get_legend_handles_labels()[0]:
            axes.legend()

    schedule.plot(epochs, [record.lr for record in history], color="tab:gray", label="learning rate")
    schedule.set_title("learning rate")
    _routing(schedule.twinx(), history)
    for axes in (loss, shares, schedule):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=150)


def _routing(axes: object, history: list[EpochRecord]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    routed = [record for record in history if record.routing_entropy]
    if not routed:
        axes.set_axis_off()
        return
    means = [sum(record.routing_entropy.values()) / len(record.routing_entropy) for record in routed]
    axes.plot([record.epoch + 1 for record in routed], means, color="tab:red", marker=".")
    axes.set_ylabel("mean routing entropy / log K", color="tab:red")
    axes.set_ylim(0, 1.05)
