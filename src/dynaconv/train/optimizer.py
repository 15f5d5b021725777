"""timm's optimizers and schedules, from the settings."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from dynaconv.errors import UserError, suggest
from dynaconv.train.settings import LoopSettings


def build_optimizer(model: nn.Module, settings: LoopSettings) -> Optimizer:
    """timm's optimizer of that name over the parameters that want gradients."""
    from timm.optim import create_optimizer_v2, list_optimizers

    known = [str(name) for name in list_optimizers()]
    if settings.opt.lower() not in known:
        raise UserError(f"timm knows no optimizer {settings.opt!r}. {suggest(settings.opt, known)}")
    try:
        return create_optimizer_v2(
            model,
            opt=settings.opt,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            filter_bias_and_bn=not settings.decay_all,
            **settings.opt_args,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{settings.opt} does not take opt_args {settings.opt_args}: {error}") from error


def build_schedule(optimizer: Optimizer, settings: LoopSettings, steps_per_epoch: int) -> Any:
    """timm's learning-rate schedule over ``settings.epochs`` epochs."""
    from timm.scheduler import create_scheduler_v2

    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=settings.sched,
        num_epochs=settings.epochs,
        decay_epochs=settings.decay_epochs,
        decay_milestones=list(settings.milestones),
        decay_rate=settings.decay_rate,
        min_lr=settings.min_lr,
        warmup_lr=settings.warmup_lr,
        warmup_epochs=settings.warmup_epochs,
        step_on_epochs=settings.sched_per == "epoch",
        updates_per_epoch=steps_per_epoch,
    )
    return schedule
