"""Everything that only a GPU can show, in one command of less than nine minutes: `make gpu-check OUT=folder`.

    laws      the laws of the mixing operation over strategy `triton`, on the device
    kernels   every Triton kernel against the reference: float32, float16 and bfloat16, forward and backward
    layers    single layers beside their static twins: triton, and what the plan chooses
    networks  the rows of docs/performance.md for one GPU, in the form of docs/performance.json

Every part runs in a process of its own with its own share of the time; what it has found so far stands in
<OUT>/<part>.json. Without a GPU it says so and exits 0. It needs torch, timm and triton, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
for folder in ("src", "tests", "tools"):
    if str(REPOSITORY / folder) not in sys.path:
        sys.path.insert(0, str(REPOSITORY / folder))

SECONDS = {"laws": 70, "kernels": 150, "layers": 90, "networks": 200}  # 510 in all
Result = dict[str, Any]


def main(words: list[str] | None = None) -> int:
    """Return the exit code: 0 all is well or there is no GPU, 1 a law, a kernel or a part failed."""
    options = _options(words)
    if options.part:
        run_part(options.part, options.device, options.quick, options.out)
        return 0
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("gpu-check: torch finds no GPU here, so there is nothing to check.")
        return 0
    from dynaconv.timing import environment

    options.out.mkdir(parents=True, exist_ok=True)
    report: Result = {"environment": environment(), "device": options.device, "quick": options.quick, "parts": {}}
    for part, seconds in SECONDS.items():
        began = time.monotonic()
        state = _in_a_process(part, seconds, options)
        found = read(options.out / f"{part}.json")
        report["parts"][part] = {"state": state, "seconds": round(time.monotonic() - began, 1), "results": len(found)}
        report[part] = found
        (options.out / "gpu-check.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"{part:<9} {state}: {summary(found)}", flush=True)
    cases = {one["name"]: one["record"] for one in report["networks"] if "record" in one}
    (options.out / "performance.json").write_text(json.dumps({"cases": cases}, indent=2) + "\n", encoding="utf-8")
    print(f"written: {options.out}/gpu-check.json and performance.json")
    wrong = [one["name"] for part in SECONDS for one in report[part] if one.get("error")]
    for name in wrong:
        print(f"  wrong: {name}")
    failed = [part for part, told in report["parts"].items() if told["state"].startswith("failed")]
    return 1 if wrong or failed else 0


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "gpu-check", help="folder of the results")
    parser.add_argument("--device", default="cuda", help="such as cuda:1")
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)  # tiny cases, to try this tool
    parser.add_argument("--part", choices=list(SECONDS), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def _in_a_process(part: str, seconds: float, options: argparse.Namespace) -> str:
    """Run one part; what it has written when its time is over stands."""
    (options.out / f"{part}.json").unlink(missing_ok=True)
    command = [sys.executable, __file__, "--part", part, "--device", options.device, "--out", str(options.out)]
    command += ["--quick"] * options.quick
    environment = dict(os.environ)
    if options.device == "cpu" and part in ("laws", "kernels"):
        environment["TRITON_INTERPRET"] = "1"
    try:
        done = subprocess.run(command, timeout=seconds, env=environment, capture_output=True, text=True, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after its {seconds} s"
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        return f"failed with exit code {done.returncode}"
    return "done"


def run_part(part: str, device: str, quick: bool, out: Path) -> None:
    """Run one part in this process; every result is written as soon as it is known."""
    import torch

    torch.manual_seed(0)
    results: list[Result] = []
    for result in PARTS[part](device, quick):
        results.append(result)
        partial = out / f".{part}.json"
        partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, out / f"{part}.json")


def read(path: Path) -> list[Result]:
    """Return what a part has written; nothing where it did not come so far."""
    found: list[Result] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def summary(found: list[Result]) -> str:
    """Return one sentence about a part."""
    wrong = sum(bool(one.get("error")) for one in found)
    return f"{len(found)} results" + (f", {wrong} WRONG" if wrong else "")


def checked(name: str, check: Callable[[], object]) -> Result:
    """Return a result whose ``error`` says why a check failed."""
    began = time.monotonic()
    try:
        check()
        error = None
    except Exception as problem:  # an assertion, or whatever a kernel or its compiler raises
        error = f"{type(problem).__name__}: {str(problem)[:800]}"
    return {"name": name, "error": error, "seconds": round(time.monotonic() - began, 3)}


def laws(device: str, quick: bool) -> Iterator[Result]:
    """The laws over fixed cases: pytest and hypothesis, which draw more of them, need not be there."""
    from kernels.cuda.triton_cases import QUICK, THOROUGH

    cases = [QUICK[0], QUICK[5]] if quick else [*QUICK, *THOROUGH]
    for case in cases:
        for law in LAWS:
            yield checked(f"{law.__name__}, {case}", lambda law=law, case=case: law(case, device))  # type: ignore[misc]


def _mixed(case: Any, made: dict[str, Any]) -> Any:
    from dynaconv.ops import mix

    return mix(made["x"], made["bank"], made["routing"], made.get("bias"), geometry=case.geometry, strategy="triton")


def _tensors(case: Any, device: str) -> dict[str, Any]:
    import torch

    return {name: value.to(device) for name, value in case.tensors(torch.float32).items()}


def _near(actual: Any, expected: Any) -> None:
    import torch

    from kernels.cuda.triton_cases import assert_near

    assert_near(actual, expected, torch.float32, "output")


def no_example_leaks_into_another(case: Any, device: str) -> None:
    made = _tensors(case, device)
    y = _mixed(case, made)
    for name in ("x", "routing"):
        made[name][1:] = float("nan")
    _near(_mixed(case, made)[:1], y[:1].cpu())


def one_hot_routing_is_one_expert(case: Any, device: str) -> None:
    import torch

    made = _tensors(case, device)
    chosen = torch.arange(case.batch, device=device) % case.experts
    made["routing"] = torch.eye(case.experts, device=device)[chosen]
    y = _mixed(case, made)
    for index, expert in enumerate(chosen.tolist()):
        one = {
            "x": made["x"][index : index + 1],
            "bank": made["bank"][expert : expert + 1],
            "routing": torch.ones(1, 1, device=device),
        }
        if "bias" in made:
            one["bias"] = made["bias"][expert : expert + 1]
        _near(y[index : index + 1], _mixed(case, one).cpu())


def output_is_linear_in_the_routing(case: Any, device: str) -> None:
    import torch

    made = _tensors(case, device)
    other = torch.randn_like(made["routing"])
    expected = 2 * _mixed(case, made) - 3 * _mixed(case, {**made, "routing": other})
    _near(_mixed(case, {**made, "routing": 2 * made["routing"] - 3 * other}), expected.cpu())


def order_of_experts_does_not_matter(case: Any, device: str) -> None:
    made = _tensors(case, device)
    turned = {name: value if name == "x" else value.flip(1 if name == "routing" else 0) for name, value in made.items()}
    _near(_mixed(case, turned), _mixed(case, made).cpu())


def equal_experts_are_one(case: Any, device: str) -> None:
    import torch

    made = _tensors(case, device)
    made["routing"] = made["routing"].softmax(dim=1)
    for name in ("bank", "bias"):
        if name in made:
            made[name] = made[name][:1].expand_as(made[name]).contiguous()
    one = {name: value[:1] if name in ("bank", "bias") else value for name, value in made.items()}
    one["routing"] = torch.ones(case.batch, 1, device=device)
    _near(_mixed(case, made), _mixed(case, one).cpu())


LAWS = (
    no_example_leaks_into_another,
    one_hot_routing_is_one_expert,
    output_is_linear_in_the_routing,
    order_of_experts_does_not_matter,
    equal_experts_are_one,
)


def kernels(device: str, quick: bool) -> Iterator[Result]:
    """Every kernel against the reference in float64, its output and every gradient."""
    import torch

    from kernels.cuda.triton_cases import PARTLY, QUICK, THOROUGH, check

    cases = [QUICK[0], QUICK[6]] if quick else [*QUICK, *THOROUGH, *PARTLY]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for case in cases:
            name = f"{case}, {str(dtype).removeprefix('torch.')}"
            yield checked(name, lambda case=case, dtype=dtype: check(case, dtype, device))  # type: ignore[misc]


# Channels in and out, kernel, pixels a side, groups: of DY-MobileNetV2, DY-ResNet-18 and CondConv-EfficientNet-B0.
LAYERS = (
    (96, 576, 1, 14, 1),
    (576, 96, 1, 14, 1),
    (576, 576, 3, 14, 576),
    (960, 160, 1, 7, 1),
    (64, 64, 3, 56, 1),
    (256, 256, 3, 14, 1),
    (1152, 1152, 5, 7, 1152),
)


def layers(device: str, quick: bool) -> Iterator[Result]:
    """One layer, static and mixed of 4 experts in two ways, in turns; milliseconds and ratios to static."""
    shapes = [(8, 8, 1, 4, 1)] if quick else LAYERS
    for shape in shapes:
        for batch in (2,) if quick else (1, 256):
            for train in (False, True):
                name = f"{shape[0]}->{shape[1]}, {shape[2]}x{shape[2]}, {shape[3]} px, groups {shape[4]}, batch {batch}"
                name += ", training" if train else ", inference"
                record: Result = {}
                result = checked(
                    name,
                    lambda shape=shape, batch=batch, train=train, record=record: record.update(  # type: ignore[misc]
                        time_layer(shape, batch, train, device, quick)
                    ),
                )
                yield {**result, **record}


def time_layer(shape: tuple[int, ...], batch: int, train: bool, device: str, quick: bool) -> Result:
    """Time one layer's forms in turns, under bfloat16's autocast on a GPU, in channels_last."""
    import torch
    from torch.nn.functional import conv2d

    from dynaconv.ops import Geometry, mix
    from dynaconv.timing import interleave, quartiles, ratios

    inputs, outputs, kernel, pixels, groups = shape
    x = torch.randn(batch, inputs, pixels, pixels, device=device).to(memory_format=torch.channels_last)
    bank = torch.randn(4, outputs, inputs // groups, kernel, kernel, device=device) * 0.05
    routing = torch.full((batch, 4), 0.25, device=device)
    leaves = [x, bank, routing] if train else []
    for leaf in leaves:
        leaf.requires_grad_()
    geometry = Geometry(dims=2, padding=kernel // 2, groups=groups)
    strategies = {"plan's choice": "auto", "grouped": "grouped"} | ({} if device == "cpu" else {"triton": "triton"})
    forms: dict[str, Callable[[], Any]] = {
        "static": lambda: conv2d(x, bank[0], padding=kernel // 2, groups=groups),
        **{
            name: lambda strategy=strategy: mix(x, bank, routing, geometry=geometry, strategy=strategy)  # type: ignore[misc]
            for name, strategy in strategies.items()
        },
    }

    def step(form: Callable[[], Any]) -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"), torch.set_grad_enabled(train):
            y = form()
        if train:
            torch.autograd.grad(y.float().square().mean(), leaves, allow_unused=True)

    actions = [lambda form=form: step(form) for form in forms.values()]  # type: ignore[misc]
    times = interleave(actions, rounds=2 if quick else 20, warmup=1 if quick else 3, device=device, seconds=5)
    return {
        "milliseconds": {name: round(statistics.median(own), 4) for name, own in zip(forms, times, strict=True)},
        "ratio_to_static": {
            name: round(statistics.median(ratios(own, times[0])), 3) for name, own in zip(forms, times, strict=True)
        },
        "ratio_to_static_quartiles": {
            name: [round(edge, 3) for edge in quartiles(ratios(own, times[0]))]
            for name, own in zip(forms, times, strict=True)
        },
    }


def networks(device: str, quick: bool) -> Iterator[Result]:
    """The rows of docs/performance.md for one GPU; equal outputs are checked before anything is timed."""
    from benchmarks import name_of, record

    from dynaconv.bench import BenchSettings, bench

    rows = [("dy_mobilenetv2_100", "infer"), ("dy_mobilenetv2_100", "train"), ("dy_resnet18", "infer")]
    rows += [("dy_resnet18", "train"), ("condconv_efficientnet_b0", "infer"), ("condconv_efficientnet_b0", "train")]
    for batch in (256, 1):
        for model, mode in rows if batch > 1 else rows[::2]:
            case = BenchSettings(model=model, mode=mode, batch=batch, device=device, dtype="bfloat16", rounds=10)
            if quick:
                case = replace(case, batch=2, dtype="float32", rounds=1, warmup=0, size=32, memory=False)
            made: Result = {}
            result = checked(
                f"{name_of(case)}, {case.dtype}, one GPU",
                lambda case=case, made=made: made.update(record=record(case, bench(case), None)),  # type: ignore[misc]
            )
            yield {**result, **made}
            if quick:
                return


PARTS: dict[str, Callable[[str, bool], Iterator[Result]]] = {
    "laws": laws,
    "kernels": kernels,
    "layers": layers,
    "networks": networks,
}

if __name__ == "__main__":
    sys.exit(main())
