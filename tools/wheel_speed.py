"""Are the kernels that a wheel brings as fast as those compiled on this machine, and what is lost without either?

    python tools/wheel_speed.py --out figures.json       # some minutes; on a machine that does nothing else

Three forms of a network run in turns in one process, on one thread: with the library of the wheel (compiled here as
`make wheels` does it), with one compiled by ``-march=native`` as a clone has it, and by torch alone, as in a container
with neither. Their outputs are compared first. Ratios are taken within a round; the figure is their median, with its
95 % interval from the order statistics.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from build_wheels import compile_into

import dynaconv
from dynaconv.kernels.cpu import build, built, instruction_set, why_not
from dynaconv.timing import clock_of, environment, interleave, quartiles, ratios

FORMS = ("wheel", "compiled", "neither")
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
# Name of the case: network, batch, image size, whether it trains.
CASES: dict[str, tuple[str, int, int, bool]] = {
    "dy_mobilenetv2_100, frozen, batch 1": ("dy_mobilenetv2_100", 1, 224, False),
    "dy_mobilenetv2_100, frozen, batch 8": ("dy_mobilenetv2_100", 8, 224, False),
    "dy_mobilenetv2_100, training, batch 8": ("dy_mobilenetv2_100", 8, 128, True),
    "dy_resnet18, frozen, batch 1": ("dy_resnet18", 1, 224, False),
    "condconv_mobilenetv1_050, training, batch 8": ("condconv_mobilenetv1_050", 8, 128, True),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--seconds", type=float, default=90, help="no further round of a case after this long")
    parser.add_argument("--case", action="append", choices=[*CASES], help="default: all")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dynaconv.keep_freed_memory()
    figures: dict[str, Any] = {"environment": environment(), "cases": {}}
    with tempfile.TemporaryDirectory() as temporary:
        library = Path(temporary) / "built"
        if "wheel" in arguments.forms:
            compile_into(library, "x86_64")
        with mock.patch.object(built, "FOLDER", library):
            build._load.cache_clear()
            for form in arguments.forms:
                with kernels_of(form):
                    figures[form] = why_not() or instruction_set()
            for name in arguments.case or CASES:
                found = measure(*CASES[name], arguments.forms, arguments.rounds, arguments.seconds)
                figures["cases"][name] = found
                print(name, json.dumps(found), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


@contextlib.contextmanager
def kernels_of(form: str) -> Iterator[None]:
    """Inside the context all calls use the library of this form, or none."""
    if form == "wheel":
        yield  # `built.FOLDER` is the wheel's
    elif form == "compiled":
        with build.compiled_with("-march=native"):
            yield
    else:
        with mock.patch.object(build, "_load", return_value="switched off for a measurement"):
            yield


def measure(
    name: str, batch: int, size: int, trains: bool, forms: Sequence[str], rounds: int, seconds: float
) -> dict[str, Any]:
    """Milliseconds of every form, and the ratio of each to the compiled one."""
    actions = [action_of(form, name, batch, size, trains) for form in forms]
    outputs = [action() for action in actions]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], **CLOSE)
    times = dict(
        zip(forms, interleave(actions, rounds=rounds, warmup=3, seconds=seconds, clock=clock_of("cpu")), strict=True)
    )
    found: dict[str, Any] = {form: {"ms": round(statistics.median(own), 3)} for form, own in times.items()}
    for form in times:
        if form != "compiled" and "compiled" in times:
            each = ratios(times[form], times["compiled"])
            found[form] |= {
                "ratio": round(statistics.median(each), 4),
                "interval": [round(edge, 4) for edge in interval_of_median(each)],
                "quartiles": [round(edge, 4) for edge in quartiles(each)],
            }
    return {**found, "rounds": len(times[forms[0]])}


def action_of(form: str, name: str, batch: int, size: int, trains: bool) -> Callable[[], torch.Tensor]:
    """One call of a frozen network, which returns its output, or one training step, which returns the loss."""
    import timm

    import dynaconv.models

    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=100, drop_rate=0.0, drop_path_rate=0.0)  # rounds are equal
    network.to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch)
    if not trains:
        with kernels_of(form):
            frozen = dynaconv.freeze(network.eval(), input_size=(3, size, size))

    def infer() -> torch.Tensor:
        with kernels_of(form), torch.inference_mode():
            return frozen(x)

    def step() -> torch.Tensor:  # no update
        with kernels_of(form):
            network.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x), labels)
            loss.backward()
        return loss.detach()

    return step if trains else infer


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median: the order statistics that a binomial of 1/2 leaves out on each side."""
    ordered, count = sorted(values), len(values)
    probability, below = 0.0, 0
    term = 0.5**count
    while probability + term <= 0.025:
        probability += term
        term *= (count - below) / (below + 1)
        below += 1
    lowest = max(below - 1, 0)
    return ordered[lowest], ordered[count - 1 - lowest]


if __name__ == "__main__":
    sys.exit(main())
