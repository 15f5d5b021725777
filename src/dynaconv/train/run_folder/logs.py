"""CSV, TensorBoard, on request Weights & Biases; and the learning curves as a picture."""

from __future__ import annotations

import csv
import io
import itertools
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynaconv.files import write_text, write_whole
from dynaconv.tasks.task import Metric
from dynaconv.train.records import EpochRecord
from dynaconv.train.settings import LoopSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_numbers_of_files = itertools.count()  # several in one process and second


class Logs:
    """Writes a run's logs. The CSV is written anew from the whole history, so a resumed run has no row twice."""

    def __init__(self, folder: Path, settings: LoopSettings, first_step: int, recipe: dict[str, Any]) -> None:
        self._csv = folder / "log.csv"
        self._wandb = _wandb(folder, recipe) if settings.wandb else None  # first: it may be absent, and nothing is open
        self._board = Board(folder / "tensorboard", first_step) if settings.tensorboard else None

    def step(self, step: int, values: dict[str, float]) -> None:
        """Values after an optimizer step."""
        self._send(step, {f"step/{name}": value for name, value in values.items()})

    def epoch(self, step: int, history: list[EpochRecord]) -> None:
        """The last record of ``history`` is new."""
        write_text(self._csv, as_csv(history))
        self._send(step, _numbers(history[-1]))

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _send(self, step: int, values: dict[str, float]) -> None:
        if self._board is not None:
            self._board.add(step, values)
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
    values |= {f"penalty/{name}": value for name, value in record.penalties.items()}
    if record.routing_entropy:
        entropies = record.routing_entropy
        values["routing_entropy"] = sum(entropies.values()) / len(entropies)
        values |= {f"routing_entropy/{name}": value for name, value in entropies.items()}
    return values


class Board:
    """An event file of TensorBoard.

    Written at once, in this thread: the writer that comes with TensorBoard has a thread of its own, and an error in it
    (a full disk) is printed there as a traceback, while the run goes on, or raised by some later call.

    Args:
        folder: made if it is not there.
        first_step: points of later steps in older files are those of a run that was stopped; they are hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / _event_file(), "wb", buffering=0)  # noqa: SIM115 - closed by close()
        self._records = RecordWriter(file)
        try:
            self._write(file_version="brain.Event:2")
            self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))
        except OSError:
            file.close()
            raise

    def add(self, step: int, values: dict[str, float]) -> None:
        """Points of one step, on the disk when this returns."""
        for name, value in values.items():
            point = self._summary.Value(tag=name, simple_value=value)
            self._write(step=step, summary=self._summary(value=[point]))
        self._records.flush()

    def _write(self, **event: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **event).SerializeToString())

    def close(self) -> None:
        self._records.close()


def _event_file() -> str:
    return f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers_of_files)}"


def _wandb(folder: Path, recipe: dict[str, Any]) -> Any:
    import wandb

    return wandb.init(dir=str(folder), config=recipe, resume="allow")


def draw_curves(history: list[EpochRecord], metrics: Sequence[Metric], path: Path) -> None:
    """Losses, metrics in percent, and learning rate with the mean routing entropy, over the epochs."""
    from dynaconv.figures import new_figure, style, with_grid

    with new_figure(10.4, 3.3) as figure:
        loss, shares, schedule = figure.subplots(1, 3)
        epochs = [record.epoch + 1 for record in history]
        drawn = [record.train_loss for record in history]
        loss.plot(epochs, drawn, color=style(0).colour, marker=style(0).marker, markersize=4, label="training")
        places = {id(loss): 1, id(shares): 0}
        for metric in metrics:
            evaluated = [record for record in history if metric.name in record.metrics]
            if not evaluated:
                continue
            values = [record.metrics[metric.name] * (100 if metric.percent else 1) for record in evaluated]
            axes = shares if metric.percent else loss
            colour, marker, dash = style(places[id(axes)])
            places[id(axes)] += 1
            label = "evaluation" if metric.label == "loss" else metric.label
            at = [record.epoch + 1 for record in evaluated]
            axes.plot(at, values, color=colour, marker=marker, linestyle=dash, markersize=4, label=label)
        loss.set_ylabel("loss")
        shares.set_ylabel("evaluation, %")
        rates = [record.lr for record in history]
        alone = style(0).marker if len(rates) == 1 else ""  # a line of one point would not be seen
        schedule.plot(
            epochs,
            rates,
            color=style(0).colour,
            linestyle=style(0).dash,
            marker=alone,
            markersize=4,
            label="learning rate",
        )
        schedule.set_ylabel("learning rate")
        _routing(schedule, history)
        for axes in (loss, shares, schedule):
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            if len(epochs) == 1:
                axes.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
            with_grid(axes)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False, handlelength=2.6)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=150, format="png")
    write_whole(path, lambda file: file.write(picture.getvalue()))


def _routing(schedule: Axes, history: list[EpochRecord]) -> None:
    """The routers' mean entropy, on an axis of its own to the right of the learning rate's, in its legend."""
    from dynaconv.figures import style

    routed = [record for record in history if record.routing_entropy]
    if not routed:
        return
    colour, marker, dash = style(2)
    means = [sum(record.routing_entropy.values()) / len(record.routing_entropy) for record in routed]
    axes = schedule.twinx()
    axes.spines["right"].set_visible(True)
    at = [record.epoch + 1 for record in routed]
    axes.plot(at, means, color=colour, marker=marker, linestyle=dash, markersize=4)
    schedule.plot([], [], color=colour, marker=marker, linestyle=dash, markersize=4, label="routing entropy")
    axes.set_ylabel("mean routing entropy / log K")
    axes.set_ylim(0, 1.05)
