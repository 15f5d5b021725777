"""CSV, TensorBoard, and on request Weights & Biases."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from dynaconv.train.files import write_text
from dynaconv.train.record import EpochRecord
from dynaconv.train.settings import TrainSettings


class Logs:
    """Writes a run's logs. The CSV is written anew from the whole history, so a resumed run has no row twice."""

    def __init__(self, folder: Path, settings: TrainSettings, first_step: int, recipe: dict[str, Any]) -> None:
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
