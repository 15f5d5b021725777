"""The learning curves as a picture."""

from __future__ import annotations

from pathlib import Path

from dynaconv.train.record import EpochRecord


def draw_curves(history: list[EpochRecord], path: Path) -> None:
    """Loss, accuracy, and learning rate with the mean routing entropy, over the epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # no display is needed, and no global state of pyplot touched
    loss, accuracy, schedule = figure.subplots(1, 3)
    epochs = [record.epoch + 1 for record in history]
    evaluated = [record for record in history if record.metrics]
    at = [record.epoch + 1 for record in evaluated]

    loss.plot(epochs, [record.train_loss for record in history], label="training", marker=".")
    if evaluated and "eval_loss" in evaluated[0].metrics:
        loss.plot(at, [record.metrics["eval_loss"] for record in evaluated], label="evaluation", marker=".")
    loss.set_title("loss")
    loss.legend()

    for name in [name for name in (evaluated[0].metrics if evaluated else {}) if name != "eval_loss"]:
        accuracy.plot(at, [100 * record.metrics[name] for record in evaluated], label=name, marker=".")
    accuracy.set_title("evaluation, %")
    accuracy.legend()

    schedule.plot(epochs, [record.lr for record in history], color="tab:gray", label="learning rate")
    schedule.set_title("learning rate")
    _routing(schedule.twinx(), history)
    for axes in (loss, accuracy, schedule):
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
