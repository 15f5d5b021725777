"""timm's optimizers and schedules, from the settings."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dynaconv.errors import UserError, suggest
from dynaconv.train.settings import LoopSettings


def build_optimizer(model: nn.Module, settings: LoopSettings) -> Optimizer:
    """timm's optimizer of that name over the parameters that want gradients."""
    from timm.optim import create_optimizer_v2, list_optimizers

    known = [str(name) for name in list_optimizers()]
    if settings.opt.lower() not in known:
        raise UserError(f"timm knows no optimizer {settings.opt!r}. {suggest(settings.opt, known)}")
    try:
        optimizer: Optimizer = create_optimizer_v2(
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
    if not {"fused", "foreach"} & set(settings.opt_args):
        _fuse(optimizer)
    return optimizer


def _fuse(optimizer: Optimizer) -> None:
    """On a CPU torch's own optimizers update a parameter in one pass over memory, instead of one per operation.

    What it brings is measured in docs/performance.md, step 24.
    """
    if type(optimizer) not in (Adam, AdamW, SGD):
        return
    for group in optimizer.param_groups:
        of_cpu = all(weight.device.type == "cpu" and weight.is_floating_point() for weight in group["params"])
        if of_cpu and group.get("fused") is None:
            group["fused"] = True


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
    if settings.sched == "multistep":
        # timm compares milestones with t + 1: per epoch the rate would fall a whole epoch before its milestone
        schedule.decay_t = [milestone + 1 for milestone in schedule.decay_t]
    return schedule
