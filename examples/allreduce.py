"""What K-fold parameters cost when many GPUs add up their gradients: a model, not a measurement.

Every GPU computes a step on its share of the batch; the gradients are summed over all GPUs in buckets while the
backward pass still runs (torch's DistributedDataParallel). What the sum takes beyond the backward pass is waited for:
it is called exposed here. The parameters are counted from the networks; speeds of GPUs and wires are assumptions,
stated below. docs/allreduce.md explains the arithmetic and reads the result.

    python examples/allreduce.py                                 the tables
    python examples/allreduce.py --picture docs/allreduce.png    and the picture
    python examples/allreduce.py --dynamic-speed 1               if dynamic layers cost no time
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
GRADIENT_BYTES = 4  # float32, also under mixed precision
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # torch's, in bytes
BACKWARD = 2 / 3  # of a step's time: the backward pass computes twice what the forward pass does
WEAK_SHARE = 32  # images of each GPU when the batch grows with the GPUs (8 GPUs: the 256 of Chen et al. 2020)
STRONG_BATCH = 4096  # images of all GPUs when it does not


@dataclass(frozen=True, kw_only=True)
class Network:
    """Sizes are counted; speeds are assumptions.

    Attributes:
        tensors: elements of every parameter, from the input to the output.
        images_per_second: of one GPU that trains with large batches.
        shortest_step: seconds that a step takes however few images it has (kernels must be launched).
    """

    name: str
    tensors: tuple[int, ...]
    images_per_second: float
    shortest_step: float

    @property
    def gradient_bytes(self) -> int:
        return GRADIENT_BYTES * sum(self.tensors)

    def step_seconds(self, images: float) -> float:
        """Forward and backward pass of one GPU on ``images`` images, nothing summed."""
        return max(images / self.images_per_second, self.shortest_step)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes of 8 GPUs; all of it assumptions.

    Attributes:
        inside: bytes/s of one GPU to its neighbours in the node.
        between: bytes/s of a whole node to the other nodes.
        inside_latency, between_latency: seconds of one hop.
        call: seconds to start one collective.
    """

    name: str
    between: float
    between_latency: float
    inside: float = 200e9
    inside_latency: float = 3e-6
    call: float = 20e-6
    node: int = 8


FAST = Cluster(name="400 Gbit/s between nodes", between=50e9, between_latency=5e-6)
SLOW = Cluster(name="25 Gbit/s between nodes", between=3.125e9, between_latency=20e-6)

# name: timm's name, whether it is the static twin, the twin's images/s and its shortest step.
NETWORKS: dict[str, tuple[str, bool, float, float]] = {
    "MobileNetV2 static": ("dy_mobilenetv2_100", True, 2500, 0.015),
    "DY-MobileNetV2 K=4": ("dy_mobilenetv2_100", False, 2500, 0.015),
    "CondConv-MobileNetV2 K=8": ("condconv_mobilenetv2_100", False, 2500, 0.015),
    "ResNet-18 static": ("dy_resnet18", True, 3000, 0.008),
    "DY-ResNet-18 K=4": ("dy_resnet18", False, 3000, 0.008),
}
# A dynamic network is assumed to train at half its static twin's speed: timm's published benchmark has 889 against 1752
# images/s for EfficientNet-B0 with and without CondConv (8 experts, training, RTX 3090).
DYNAMIC_SPEED = 0.5


def ring(size: float, members: int, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce: every member sends ``2 (n - 1) / n`` of ``size`` bytes, in ``2 (n - 1)`` hops."""
    return 2 * (members - 1) * (size / members / bandwidth + latency)


def sum_seconds(size: float, gpus: int, cluster: Cluster) -> float:
    """Seconds to sum ``size`` bytes over all GPUs: inside every node, then between the nodes, then spread inside.

    Sum and spread inside together are a ring inside; between the nodes every GPU sums its share, and the 8 shares,
    ``size`` bytes in all, go over the node's wire.
    """
    if gpus == 1:
        return 0.0
    inside = ring(size, min(gpus, cluster.node), cluster.inside, cluster.inside_latency)
    if gpus <= cluster.node:
        return cluster.call + inside
    return 3 * cluster.call + inside + ring(size, gpus // cluster.node, cluster.between, cluster.between_latency)


def buckets(network: Network) -> Iterator[tuple[float, int]]:
    """For every bucket the share of the backward pass after which it is full, and its bytes.

    Gradients appear from the output to the input, one tensor after the other at even intervals (an assumption).
    """
    full, limit = 0, FIRST_BUCKET
    for done, elements in enumerate(reversed(network.tensors), start=1):
        full += GRADIENT_BYTES * elements
        if full >= limit or done == len(network.tensors):
            yield done / len(network.tensors), full
            full, limit = 0, BUCKET


@dataclass(frozen=True)
class Step:
    """Seconds of one step: computing, summing (all buckets), and the part of the summing that is waited for."""

    computing: float
    summing: float
    exposed: float

    @property
    def efficiency(self) -> float:
        """Images per second and GPU, as a share of a GPU's that is alone with as many images."""
        return self.computing / (self.computing + self.exposed)


def simulate(network: Network, gpus: int, images: float, cluster: Cluster) -> Step:
    """One step: buckets are summed one after the other, each when it is full and the one before is done."""
    computing = network.step_seconds(images)
    end, summing = 0.0, 0.0
    for share, size in buckets(network):
        full = computing * (1 - BACKWARD + BACKWARD * share)
        seconds = sum_seconds(size, gpus, cluster)
        end = max(end, full) + seconds
        summing += seconds
    return Step(computing, summing, max(0.0, end - computing))


def images_that_hide(network: Network, gpus: int, cluster: Cluster, share: float = 0.05) -> float:
    """The fewest images per GPU with which no more than ``share`` of the step is waited for."""
    images = 1
    while simulate(network, gpus, images, cluster).exposed > share / (1 - share) * network.step_seconds(images):
        images += 1
        if images > 4096:
            return inf
    return images


def networks(dynamic_speed: float = DYNAMIC_SPEED) -> list[Network]:
    """The networks above with their parameters counted."""
    made = []
    for name, (model, static, images_per_second, shortest) in NETWORKS.items():
        speed = 1.0 if static else dynamic_speed
        made.append(
            Network(
                name=name,
                tensors=parameter_sizes(model, static),
                images_per_second=speed * images_per_second,
                shortest_step=shortest / speed,
            )
        )
    return made


@cache
def parameter_sizes(model: str, static: bool) -> tuple[int, ...]:
    """Elements of every parameter; nothing is computed, nothing allocated."""
    import timm
    import torch

    import dynaconv.models  # noqa: F401 - makes the papers' networks known to timm

    with torch.device("meta"):
        return tuple(parameter.numel() for parameter in timm.create_model(model, static=static).parameters())


def table(made: Sequence[Network]) -> str:
    """Traffic, and what is waited for, per network and cluster."""
    lines = ["A model, not a measurement.", "", "The sum itself, 1,024 GPUs, nothing hidden"]
    lines.append(f"{'':26}{'parameters':>12}{'gradients':>12}{FAST.name:>27}{SLOW.name:>27}")
    for network in made:
        millions, megabytes = sum(network.tensors) / 1e6, network.gradient_bytes / 1e6
        sums = (1000 * simulate(network, 1024, WEAK_SHARE, cluster).summing for cluster in (FAST, SLOW))
        lines.append(
            f"{network.name:26}{millions:>10.1f} M{megabytes:>9.1f} MB" + "".join(f"{time:>24.1f} ms" for time in sums)
        )
    for cluster in (FAST, SLOW):
        lines += ["", f"Share of the step that is waited for, {cluster.name}"]
        lines += _shares("32 images per GPU; GPUs:", made, cluster, lambda gpus: WEAK_SHARE)
        lines += _shares("4,096 images in all; GPUs:", made, cluster, lambda gpus: STRONG_BATCH / gpus)
    lines += ["", "Images per GPU with which at most 5 % of the step is waited for, 1,024 GPUs"]
    lines.append(f"{'':26}{FAST.name:>27}{SLOW.name:>27}")
    for network in made:
        hiding = (images_that_hide(network, 1024, cluster) for cluster in (FAST, SLOW))
        lines.append(f"{network.name:26}" + "".join(f"{images:>27.0f}" for images in hiding))
    return "\n".join(lines)


def _shares(title: str, made: Sequence[Network], cluster: Cluster, images: Callable[[int], float]) -> list[str]:
    lines = [f"{title:26}" + "".join(f"{gpus:>7}" for gpus in GPUS)]
    for network in made:
        shares = (1 - simulate(network, gpus, images(gpus), cluster).efficiency for gpus in GPUS)
        lines.append(f"{network.name:26}" + "".join(f"{100 * share:>5.0f} %" for share in shares))
    return lines


def draw(path: Path) -> None:
    """Share of the time that is spent computing against the number of GPUs, with 32 images on each.

    Columns: the wire between the nodes. Rows: the speed of dynamic layers, as assumed, and if they cost no time.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import PercentFormatter

    figure, axes = plt.subplots(2, 2, figsize=(11, 8), sharex=True, sharey=True, layout="constrained")
    speeds = {"dynamic networks compute at half speed": DYNAMIC_SPEED, "dynamic networks compute at full speed": 1.0}
    for row, (assumption, speed) in zip(axes, speeds.items(), strict=True):
        made = networks(speed)
        for axis, cluster in zip(row, (FAST, SLOW), strict=True):
            for network, style in zip(made, STYLES, strict=True):
                shares = [simulate(network, gpus, WEAK_SHARE, cluster).efficiency for gpus in GPUS]
                label = f"{network.name}, {network.gradient_bytes / 1e6:.0f} MB of gradients"
                axis.plot(GPUS, shares, label=label, linewidth=1.8, markersize=4.5, **style)
            axis.set_title(f"{cluster.name}, {assumption}", fontsize=10)
            axis.axvline(cluster.node, color="0.75", linewidth=0.8, zorder=0)
            axis.annotate(
                "one node", (cluster.node, 0.02), (-4, 0), textcoords="offset points", ha="right", color="0.45"
            )
            axis.grid(axis="y", color="0.9")
            axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("GPUs, 32 images on each")
    axes[0, 0].set_xscale("log", base=2)
    axes[0, 0].set_xticks(GPUS, [f"{gpus:,}" for gpus in GPUS])
    axes[0, 0].set_ylim(0, 1.03)
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.supylabel("time spent computing, not waiting for gradients", fontsize=10)
    figure.suptitle("A model, not a measurement: what the sum of the gradients costs (assumptions in the text)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


BLUE, ORANGE = "#1f6fb4", "#d2691e"  # one colour for each architecture, one dash for each K
STYLES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": BLUE, "linestyle": "--", "marker": "s"},
    {"color": BLUE, "linestyle": ":", "marker": "^"},
    {"color": ORANGE, "linestyle": "-", "marker": "o"},
    {"color": ORANGE, "linestyle": "--", "marker": "s"},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="write the picture there")
    parser.add_argument(
        "--dynamic-speed",
        type=float,
        default=DYNAMIC_SPEED,
        help="training speed of a dynamic network, as a share of its static twin's",
    )
    options = parser.parse_args()
    print(table(networks(options.dynamic_speed)))
    if options.picture is not None:
        draw(options.picture)


if __name__ == "__main__":
    main()
