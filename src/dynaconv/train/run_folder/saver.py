"""Saving, logging and resuming of a run, for the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from dynaconv.errors import UserError, shortened
from dynaconv.tasks.task import TaskData
from dynaconv.train.records import EpochRecord
from dynaconv.train.run_folder.checkpoint import DamagedCheckpoint, damage_of, read_checkpoint
from dynaconv.train.run_folder.folder import RunFolder, run_error_on_full_disk
from dynaconv.train.run_folder.logs import Logs
from dynaconv.train.run_folder.weights import differences
from dynaconv.train.settings import LATER, OPERATIONAL
from dynaconv.train.state import TrainState, random_state, restore_random_state

log = logging.getLogger(__name__)

BESIDE_STATE = ("processes", "bad_images", "facts", "about", "settings", "best_checkpoint")
"""What a checkpoint holds beside :meth:`TrainState.capture`."""


class Saver:
    """Saves, logs and resumes one run; with ``folder=None`` it does nothing but call ``on_epoch``.

    :meth:`begin` and :meth:`save` are called by all processes together; the first one writes.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        data: TaskData,
        accelerator: Any,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        self.folder, self.data, self.accelerator, self.on_epoch = folder, data, accelerator, on_epoch
        self.checkpoint: Path | None = None
        self._logs: Logs | None = None

    def begin(self, state: TrainState, evaluated: nn.Module) -> None:
        """Load the last undamaged checkpoint, or write the first one: so disk errors show before the first step."""
        if self.folder is None:
            return
        self.checkpoint = self._last_checkpoint()
        if self.checkpoint is not None:
            self._restore(state, self.checkpoint)
        elif self.accelerator.is_main_process:
            self.folder.check_space(state)
        if self.accelerator.is_main_process:
            self.folder.write_recipe()
            with self._writing("tensorboard"):
                recipe = self.folder.recipe()
                self._logs = Logs(self.folder.path, self.folder.settings, state.position.total_steps, recipe)
            if state.history:
                with self._writing("log.csv"):
                    self._logs.epoch(state.position.total_steps, state.history)
        if self.checkpoint is None:
            self.save(state, evaluated, best=False)

    def save(self, state: TrainState, evaluated: nn.Module, best: bool) -> Path | None:
        """Write a checkpoint of the run, with the random states of all processes."""
        if self.folder is None:
            return None
        from accelerate.utils import gather_object

        own = {
            "random": random_state(self.accelerator.device),
            "loss_sum": state.position.loss_sum,
            "examples": state.position.examples,
            "penalties": state.position.penalties,
        }
        processes = gather_object([own])
        if self.accelerator.is_main_process:
            whole = {**state.capture(), "processes": processes, "bad_images": self.data.bad_images.state_dict()}
            self.checkpoint = self.folder.save(whole, best, evaluated)
        self.accelerator.wait_for_everyone()
        return self.checkpoint

    def step(self, step: int, values: dict[str, float]) -> None:
        """Log values after an optimizer step."""
        if self._logs is not None:
            with self._writing("tensorboard"):
                self._logs.step(step, values)

    def epoch(self, state: TrainState) -> None:
        """An epoch is done and saved."""
        if self._logs is not None:
            with self._writing("log.csv"):
                self._logs.epoch(state.position.total_steps, state.history)
        if self.on_epoch is not None:
            self.on_epoch(state.history[-1])

    def finish(self, state: TrainState, evaluated: nn.Module) -> None:
        """The run is done."""
        if self.folder is not None and self.accelerator.is_main_process:
            self.folder.finish(state.history, evaluated)

    def close(self) -> None:
        """Close the logs. If they cannot be written, that is logged, so that it does not hide another error."""
        if self._logs is not None:
            try:
                self._logs.close()
            except OSError as error:
                log.warning("the last lines of the logs could not be written: %s", error.strerror or error)

    def _writing(self, name: str) -> AbstractContextManager[None]:
        assert self.folder is not None
        return run_error_on_full_disk(self.folder.path / name)

    def _last_checkpoint(self) -> Path | None:
        """The checkpoint from which all processes continue; the first process chooses it. All must see ``out``."""
        assert self.folder is not None
        from accelerate.utils import broadcast_object_list

        found = None
        if self.accelerator.is_main_process and self.folder.resume == "auto":
            found = self.folder.checkpoints.find_last()
        chosen: list[Path | None] = [found]
        broadcast_object_list(chosen)
        return chosen[0]

    def _restore(self, state: TrainState, path: Path) -> None:
        assert self.folder is not None
        try:
            saved = read_checkpoint(path)
        except DamagedCheckpoint as damage:
            raise UserError(f"{path} cannot be used: {damage}. {self._older(path)}") from damage
        try:
            foreign = set(saved) - {*state.capture(), *BESIDE_STATE}
            if foreign:
                raise KeyError(f"unknown {', '.join(sorted(map(str, foreign)))}")
            check_resumable(saved, self.folder, state.model, path)
            self.folder.checkpoints.best = saved["best_checkpoint"]
            state.restore(saved)
            self.data.bad_images.load_state_dict(saved["bad_images"])
            self._restore_own(state, saved["processes"])
        except UserError:
            raise
        except Exception as error:  # what is wrong in a whole file may fail in any way
            raise UserError(
                f"{path} is whole, but not what this version of dynaconv writes ({type(error).__name__}: {error}). "
                f"{self._older(path)}"
            ) from error
        log.info("going on from %s: epoch %d, step %d", path, state.position.epoch, state.position.step)

    def _older(self, path: Path) -> str:
        assert self.folder is not None
        older = [other.name for other in self.folder.checkpoints.newest_first() if other.name < path.name]
        good = next((name for name in older if damage_of(path.with_name(name)) is None), None)
        if good is None:
            return "There is no other checkpoint to go on from: begin anew with another --out."
        return f"Remove it to go on from the one before it, {good}."

    def _restore_own(self, state: TrainState, processes: list[dict[str, Any]]) -> None:
        now, index = self.accelerator.num_processes, self.accelerator.process_index
        if len(processes) == now:
            own = processes[index]
            state.position.loss_sum, state.position.examples = own["loss_sum"], own["examples"]
            state.position.penalties = own.get("penalties", {})
            restore_random_state(own["random"], self.accelerator.device)
            return
        log.warning(
            "the checkpoint was written by %d processes and %d go on: random numbers (dropout, mixup) will be others "
            "than in a run that was never stopped; order and schedules stay",
            *(len(processes), now),
        )
        first = index == 0
        state.position.loss_sum = sum(own["loss_sum"] for own in processes) if first else 0.0
        state.position.examples = sum(own["examples"] for own in processes) if first else 0
        state.position.penalties = {
            name: sum(own["penalties"][name] for own in processes) if first else 0.0
            for name in processes[0].get("penalties", {})
        }


def check_resumable(saved: dict[str, Any], folder: RunFolder, model: nn.Module, path: Path) -> None:
    """Raise UserError naming what differs between a checkpoint and the run that wants to go on from it."""
    here = folder.settings.model_dump(mode="json")
    wrong = [
        f"{what} is {_short(saved['facts'].get(what))} there and {_short(now)} here"
        for what, now in folder.facts.items()
        if saved["facts"].get(what) != now
    ]
    wrong += [
        f"{name} is {saved['settings'].get(name)!r} there and {now!r} here"
        for name, now in here.items()
        if name not in OPERATIONAL and saved["settings"].get(name) != now
    ]
    wrong += [  # what is left out of the settings is off
        f"{name} is {there!r} there and off here"
        for name, there in saved["settings"].items()
        if name in LATER and name not in here
    ]
    wrong += differences(model, saved["model"])
    if wrong:
        raise UserError(
            f"This run is not the one that wrote {path}: {shortened(wrong)}. Repeat the first command to "
            f"resume it, or begin a new run from its weights with --finetune {path} and another --out."
        )


def _short(value: Any) -> str:
    text = f"{len(value)} ({', '.join(map(str, value[:3]))}, ...)" if isinstance(value, list) else repr(value)
    return text if len(text) < 80 else text[:77] + "..."
