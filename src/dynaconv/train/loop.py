"""The training loop: steps and epochs. One loop for every task."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch
from torch import nn

from dynaconv.errors import RunError, UserError
from dynaconv.tasks.task import Batch, Task, TaskData
from dynaconv.train.accelerator import copy_buffers_from_first_process
from dynaconv.train.evaluation import WATCHED_BATCHES, RoutingWatch, evaluate
from dynaconv.train.progress import Progress
from dynaconv.train.records import EpochRecord
from dynaconv.train.regularisation import RoutingPenalties
from dynaconv.train.run_folder.saver import Saver
from dynaconv.train.settings import LoopSettings
from dynaconv.train.signals import Stopped, StopSignals
from dynaconv.train.state import BufferGuard, TrainState, weights_are_finite

AGREE_EVERY = 4  # steps between the processes' agreements on whether one of them was asked to stop


class Loop:
    """One run in one process.

    Args:
        state: model, optimizer, schedules, position.
        prepared: the model as accelerate wrapped it, for training.
        optimizer: the optimizer as accelerate wrapped it.
        saver: saves and logs.
    """

    def __init__(
        self,
        state: TrainState,
        prepared: nn.Module,
        optimizer: Any,
        accelerator: Any,
        task: Task,
        data: TaskData,
        settings: LoopSettings,
        progress: Progress,
        signals: StopSignals,
        saver: Saver,
    ) -> None:
        self.state, self.prepared, self.optimizer, self.accelerator = state, prepared, optimizer, accelerator
        self.task, self.settings, self.progress, self.signals = task, settings, progress, signals
        self.saver = saver
        share = {
            "processes": accelerator.num_processes,
            "process": accelerator.process_index,
            "device": accelerator.device,
        }
        self.data = data
        self.train_batches = data.training_batches(settings, **share)
        self.eval_batches = data.evaluation_batches(**share)
        self.guard = BufferGuard(state.model)
        self._parameters = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
        # Stays on the device: reading it waits for the device. One sum from first to last, so that a resumed run adds
        # in the same order.
        self._loss_sum = torch.tensor(state.position.loss_sum, dtype=torch.float64, device=accelerator.device)
        self._penalties = RoutingPenalties(state.model, settings)
        self._penalty_sums = {
            name: torch.tensor(state.position.penalties.get(name, 0.0), dtype=torch.float64, device=accelerator.device)
            for name in self._penalties.names
        }
        self._step_penalties: dict[str, torch.Tensor] = {}
        self._looks = 0
        self._watch = RoutingWatch()

    @property
    def evaluated(self) -> nn.Module:
        """The model to evaluate and save: that with the averaged weights if there is one."""
        return self.state.model if self.state.ema is None else self.state.ema.module

    def run(self) -> None:
        """Train from the present position to the last epoch."""
        position = self.state.position
        metrics = self.task.metrics_shown
        self.progress.start(self.settings.epochs, len(self.train_batches), position.epoch, position.step, metrics)
        try:
            while position.epoch < self.settings.epochs:
                self.train_epoch()
                self.finish_epoch()
        finally:
            self.progress.close()
            self.train_batches.close()
            self.eval_batches.close()

    def train_epoch(self) -> None:
        """The remaining steps of the present epoch."""
        position = self.state.position
        self.train_batches.set_epoch(position.epoch, first_batch=position.step)
        self.prepared.train()
        began = time.perf_counter()
        for batch in self.train_batches:
            size = self.train_step(batch)
            position.step += 1
            position.total_steps += 1
            now = time.perf_counter()
            position.seconds, began = position.seconds + now - began, now
            self._report(size)
            if self._asked_to_stop():
                self._stop()
            if position.step % self.settings.checkpoint_every == 0 and position.step < len(self.train_batches):
                self.save()
                began = time.perf_counter()

    def train_step(self, batch: Batch) -> int:
        """One optimizer step; return its number of examples. If a gradient is not finite, the step is undone."""
        state = self.state
        self.guard.remember()
        size = self.task.size(batch)
        loss = self._gradients(self.task.prepare(batch), size)
        if self._clip_gradients():
            self.optimizer.step()
            self._add_loss(loss, size)
            state.position.dropped_in_row = 0
            if state.ema is not None:
                state.ema.update(state.model, step=state.position.total_steps + 1)
        else:
            self._drop_step()
        self.optimizer.zero_grad(set_to_none=True)
        self._step_schedules()
        return size

    def _gradients(self, batch: Batch, size: int) -> torch.Tensor:
        parts = self.task.split(batch, self.settings.accumulate)
        total = torch.zeros((), device=self.accelerator.device)
        self._step_penalties = {}
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.prepared):
                share = self.task.size(part) / size
                with self.accelerator.autocast(), _blame_batch_of_one(self.task.size(part)), self._penalties.watching():
                    loss = self.task.loss(self.prepared, part) * share
                self.accelerator.backward(self._with_penalties(loss, share))
            total += loss.detach()
        return total

    def _with_penalties(self, loss: torch.Tensor, share: float) -> torch.Tensor:
        """A part's loss with what regularisation adds; the loss itself where there is none."""
        if not self._penalties.names:
            return loss
        terms = self._penalties.terms()
        for name, term in terms.items():
            self._step_penalties[name] = self._step_penalties.get(name, 0.0) + term.detach() * share
        return loss + self._penalties.added(terms) * share

    def _clip_gradients(self) -> bool:
        """Whether the gradient's norm is finite (all processes see the same one). Waits for the device."""
        self.accelerator.unscale_gradients(self.optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = math.isfinite(norm.item())
        if finite and self.settings.clip_grad is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.settings.clip_grad, norm)
        return finite

    def _drop_step(self) -> None:
        position, scaler = self.state.position, self.state.scaler
        self.guard.restore()
        if scaler is not None:
            self.optimizer.step()  # with fp16 this only lowers the loss scale, as it should
        position.dropped += 1
        position.dropped_in_row += 1
        if position.dropped_in_row >= self.settings.nan_patience:
            raise RunError(
                f"Loss or gradient was not finite for {position.dropped_in_row} steps in a row (epoch "
                f"{position.epoch}, up to step {position.step + 1}). The weights are those before these "
                "steps, and so is the last checkpoint. Try a lower --lr, --clip-grad 1, "
                "--warmup-epochs, or --amp no; and look at the data."
            )

    def _step_schedules(self) -> None:
        state = self.state
        state.position.lr = self._lr()
        state.schedule.step_update(state.position.total_steps + 1)
        if self.settings.temperature_per == "step":
            self._step_temperature()

    def _step_temperature(self) -> None:
        self.state.temperature.step()
        if self.state.ema_temperature is not None:
            self.state.ema_temperature.step()

    def finish_epoch(self) -> None:
        """Evaluate, write the record, move on to the next epoch, save."""
        state, position = self.state, self.state.position
        record = self._record()
        state.history.append(record)
        state.schedule.step(position.epoch + 1)
        if self.settings.temperature_per == "epoch":
            self._step_temperature()
        position.begin_epoch(position.epoch + 1)
        self._loss_sum.zero_()
        for value in self._penalty_sums.values():
            value.zero_()
        self.save(best=self._is_best(record))
        self.progress.epoch(record)
        self.saver.epoch(state)

    def _record(self) -> EpochRecord:
        position = self.state.position
        last = position.epoch == self.settings.epochs - 1
        began = time.perf_counter()
        metrics: dict[str, float] = {}
        entropy: dict[str, float] = {}
        if last or (position.epoch + 1) % self.settings.eval_every == 0:
            metrics, entropy = self.evaluate()
        images = position.step * self.train_batches.whole
        self._read_losses()
        return EpochRecord(
            epoch=position.epoch,
            train_loss=self._mean(position.loss_sum),
            metrics=metrics,
            lr=position.lr,
            temperature=self._temperature(),
            images_per_second=images / position.seconds if position.seconds else 0.0,
            train_seconds=position.seconds,
            eval_seconds=time.perf_counter() - began,
            dropped_steps=position.dropped,
            bad_images=len(self.data.bad_images.reasons),
            routing_entropy=entropy,
            penalties={name: self._mean(value) for name, value in position.penalties.items()},
        )

    def evaluate(self) -> tuple[dict[str, float], dict[str, float]]:
        """Metrics of the evaluation split, over all processes; and the routers' entropies."""
        model = self.evaluated
        copy_buffers_from_first_process(self.accelerator, model)
        with self._watch.over(model):
            metrics = evaluate(
                model, self.eval_batches, self.task, self.accelerator, after_batch=self._after_evaluation_batch
            )
        return metrics, self._watch.entropies()

    def _after_evaluation_batch(self, batch: int, batches: int) -> None:
        if batch == WATCHED_BATCHES:
            self._watch.stop()
        self.progress.evaluating(self.state.position.epoch, batch, batches)
        if self._asked_to_stop():
            self._stop()

    def _is_best(self, record: EpochRecord) -> bool:
        metric = next(metric for metric in self.task.metrics_shown if metric.name == self.task.best)
        value = record.metrics.get(metric.name, math.nan)
        earlier = [old.metrics[metric.name] for old in self.state.history[:-1] if metric.name in old.metrics]
        if not math.isfinite(value) or not all(metric.better(value, old) for old in earlier if math.isfinite(old)):
            return False
        return weights_are_finite(self.evaluated)

    def _asked_to_stop(self) -> bool:
        """Whether to stop now. All processes must stop at the same step, so they exchange this now and then."""
        asked = self.signals.received is not None
        if self.accelerator.num_processes == 1:
            return asked
        if asked:
            self.accelerator.set_trigger()
        # One count over the whole run: an epoch, or an evaluation, may have fewer than AGREE_EVERY of them.
        self._looks += 1
        return self._looks % AGREE_EVERY == 0 and self.accelerator.check_trigger()

    def _stop(self) -> None:
        raise Stopped(self.signals.received or SIGTERM, self.save())

    def save(self, best: bool = False) -> Path | None:
        """Write a checkpoint of this moment; all processes together."""
        self._read_losses()
        return self.saver.save(self.state, self.evaluated, best)

    def _report(self, images: int) -> None:
        position = self.state.position
        loss = None
        if position.total_steps % self.settings.log_every == 0:
            self._read_losses()
            loss = position.loss_sum / position.examples if position.examples else math.nan
            self.saver.step(position.total_steps, {"train_loss": loss, "lr": position.lr})
        self.progress.step(position.epoch, position.step, images * self.accelerator.num_processes, loss)

    def _add_loss(self, loss: torch.Tensor, size: int) -> None:
        self.state.position.examples += size
        self._loss_sum += loss * size
        for name, value in self._step_penalties.items():
            self._penalty_sums[name] += value * size

    def _read_losses(self) -> None:
        self.state.position.loss_sum = float(self._loss_sum)
        self.state.position.penalties = {name: float(value) for name, value in self._penalty_sums.items()}

    def _mean(self, whole: float) -> float:
        """A sum over this process's examples of the epoch so far, as the mean over the examples of all processes."""
        position = self.state.position
        sums = torch.tensor([whole, position.examples], dtype=torch.float64, device=self.accelerator.device)
        loss, examples = self.accelerator.reduce(sums).tolist()
        return loss / examples if examples else math.nan

    def _lr(self) -> float:
        return float(max(group["lr"] for group in self.state.optimizer.param_groups))

    def _temperature(self) -> float | None:
        from dynaconv.routing.temperature import temperatures

        found = next(temperatures(self.state.model), None)
        return None if found is None else float(found)


@contextmanager
def _blame_batch_of_one(size: int) -> Iterator[None]:
    """Turn torch's ValueError for batch norm on one example at one position (no statistics) into a message."""
    try:
        yield
    except ValueError as error:
        if size > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "One example in a forward pass leaves batch norm one value per channel, and it needs at least two in "
            "training. Take a larger batch_size, fewer processes, or a lower accumulate."
        ) from error
