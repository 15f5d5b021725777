"""The output folder of a run: lock, checks before the first step, checkpoints, weights, logs, picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

import dynaconv
from dynaconv.errors import RunError, UserError
from dynaconv.files import write_text
from dynaconv.tasks.task import Metric
from dynaconv.train.records import EpochRecord
from dynaconv.train.run_folder.checkpoint import Checkpoints
from dynaconv.train.run_folder.lock import FolderLock
from dynaconv.train.run_folder.weights import BEST, LAST, save_weights
from dynaconv.train.settings import LoopSettings
from dynaconv.train.state import TrainState


@contextmanager
def run_error_on_full_disk(path: Path) -> Iterator[None]:
    """Turn the error of a file that cannot be written into one line that says what to do.

    Raises:
        RunError: the disk is full, or the folder was made unwritable during the run.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write {path}: {error.strerror or error}. The checkpoints before it are whole. Free some space, or "
            "make the folder writable, and go on with --resume auto."
        ) from error


CHECKPOINTS = "checkpoints"
RECIPE = "run.json"
RESUME = ("auto", "never")


class RunFolder:
    """One run's folder. Only the first process writes.

    Layout::

        run.json               the model, the data, the resolved settings, the versions
        checkpoints/           epoch_0003_step_0000000.pt and its .sha256: the last few and the best
        best.safetensors       weights for inference, of the best epoch; last.safetensors of the last
        log.csv, curves.png    one row per epoch; the learning curves
        tensorboard/

    Args:
        about: what is needed to use the weights: model, classes, preprocessing.
        facts: what must be the same when the run is resumed.
        metrics: of the records, for the picture.
    """

    def __init__(
        self,
        folder: Path,
        settings: LoopSettings,
        about: dict[str, Any],
        facts: dict[str, Any],
        resume: str,
        metrics: Sequence[Metric] = (),
    ) -> None:
        self.metrics = metrics
        self._lock: FolderLock | None = None
        self.path, self.settings, self.about, self.facts, self.resume = folder, settings, about, facts, resume
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, settings.keep)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Create the folder, lock it, and check that it can be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise UserError(f"Cannot write to --out {self.path}: {error.strerror or error}.") from error
        with FolderLock(self.path) as self._lock:
            self.checkpoints.clean()
            if self.resume == "never" and any(self.checkpoints.newest_first()):
                raise UserError(
                    f"{self.path} already holds a run. Go on with it by --resume auto, or choose another --out."
                )
            yield

    def check_space(self, state: TrainState) -> None:
        """Raise an error if the disk has no space for the checkpoints of the run.

        One more than will be kept, because a new checkpoint is written before the oldest is removed.
        """
        need = checkpoint_bytes(state) * (self.settings.keep + 2)
        free = shutil.disk_usage(self.path).free
        if free < need:
            raise UserError(
                f"--out {self.path} has {free / 1e6:,.0f} MB free, and the checkpoints will take about "
                f"{need / 1e6:,.0f} MB. Free some space, choose another --out, or keep fewer (--keep)."
            )

    def write_recipe(self) -> None:
        """The resolved recipe, beside the checkpoints."""
        with run_error_on_full_disk(self.path / RECIPE):
            write_text(self.path / RECIPE, json.dumps(self.recipe(), indent=2) + "\n")

    def recipe(self) -> dict[str, Any]:
        """The run as a recipe (``--recipe run.json`` repeats it), and its result."""
        import timm
        import torch

        about = dict(self.about)
        recipe = {**about.pop("recipe", {}), "settings": self.settings.model_dump(mode="json")}
        versions = {"dynaconv": dynaconv.__version__, "torch": torch.__version__, "timm": timm.__version__}
        return {"recipe": recipe, **about, **self.facts, "versions": versions}

    def save(self, state: dict[str, Any], best: bool, evaluated: nn.Module) -> Path:
        """Write a checkpoint, and the inference weights if this epoch is the best so far."""
        if self._lock is not None:
            self._lock.check()
        position, history = state["position"], state["history"]
        if best:
            self._save_weights(BEST, evaluated, history[-1])
        whole = {**state, "facts": self.facts, "about": self.about, "settings": self.settings.model_dump(mode="json")}
        return self.checkpoints.save(whole, position["epoch"], position["step"], best)

    def finish(self, history: list[EpochRecord], evaluated: nn.Module) -> None:
        """Write the last weights and, if requested, the picture."""
        if self._lock is not None:
            self._lock.check()
        self._save_weights(LAST, evaluated, history[-1].plain())
        if self.settings.curves:
            from dynaconv.train.run_folder.logs import draw_curves

            with run_error_on_full_disk(self.path / "curves.png"):
                draw_curves(history, self.metrics, self.path / "curves.png")

    def _save_weights(self, name: str, model: nn.Module, record: dict[str, Any]) -> None:
        about = {**self.about, "epoch": record["epoch"], "metrics": record["metrics"]}
        with run_error_on_full_disk(self.path / name):
            save_weights(self.path / name, model, about)


def checkpoint_bytes(state: TrainState) -> int:
    """The approximate size of a checkpoint with the optimizer's moments (two per parameter at most)."""
    model = sum(tensor.nbytes for tensor in state.model.state_dict().values())
    moments = 2 * sum(parameter.nbytes for parameter in state.model.parameters() if parameter.requires_grad)
    return model * (1 if state.ema is None else 2) + moments + 100_000
