"""Measure the rows of docs/performance.md, write docs/performance.json, and say what got slower since the last commit.

    make bench                             every case but the compiled ones; some minutes each at most
    make bench BENCH_FLAGS=--quick         batch 1 of three networks; a few minutes
    make bench BENCH_FLAGS="--only train"  the cases with that word in their name
    make bench BENCH_FLAGS=--layers        single layers on small maps alone; two minutes

Cases that were not run keep their earlier figures in the file. Every case is written as soon as it is measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from benchmark_changes import SLOWER, changes, other_machines
from benchmark_layers import LAYERS, QUICK_LAYERS, LayerCase, line, measure_layer

from dynaconv.bench import BenchResult, BenchSettings, bench
from dynaconv.kernels.cpu import keep_freed_memory
from dynaconv.timing import environment

REPOSITORY = Path(__file__).resolve().parents[1]
FIGURES = "docs/performance.json"


def _batch_1(model: str, **more: Any) -> BenchSettings:
    return BenchSettings(model=model, rounds=20, warmup=3, **more)


def _larger(model: str, mode: str, batch: int) -> BenchSettings:
    return BenchSettings(model=model, mode=mode, batch=batch, rounds=6, warmup=1)


# All at 224 pixels, one thread, on the processor: the rows of the table of targets that a CPU measures in minutes.
QUICK = [_batch_1("dy_mobilenetv2_100"), _batch_1("condconv_efficientnet_b0"), _batch_1("dy_resnet18")]
CASES = [
    *QUICK,
    _batch_1("dy_mobilenetv2_100", bank_dtype="bfloat16"),
    _batch_1("dy_mobilenetv2_100", bank_dtype="int8"),
    _batch_1("dy_resnet18", bank_dtype="bfloat16"),
    _batch_1("dy_mobilenetv2_075"),
    _batch_1("dy_mobilenetv2_050"),
    _batch_1("dy_mobilenetv2_035"),
    _larger("dy_mobilenetv2_100", "infer", 32),
    _larger("condconv_efficientnet_b0", "infer", 16),
    _larger("dy_resnet18", "infer", 32),
    _larger("dy_mobilenetv2_100", "train", 32),
    _larger("condconv_efficientnet_b0", "train", 16),
    _larger("dy_resnet18", "train", 32),
]
COMPILED = [  # compiling alone takes minutes
    _batch_1("dy_mobilenetv2_100", compile=True),
    _batch_1("dy_mobilenetv2_100", compile=True, bank_dtype="int8"),
]


def main(words: list[str] | None = None) -> int:
    """Return the exit code: 0 measured, 1 a case could not run or (where asked for) got slower."""
    options = _options(words)
    keep_freed_memory()  # as the command does
    cases = _chosen(options)
    before = _committed(options.against)  # read first: a file that cannot be read must not cost the measurements
    now, failed = _measure(cases, options.out)
    failed += _measure_layers(_chosen_layers(options), options.out)
    slower = _report(before, now, options.against)
    return 1 if failed or (options.fail_if_slower and slower) else 0


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="batch 1 of three networks only")
    parser.add_argument("--layers", action="store_true", help="the single layers only")
    parser.add_argument("--compiled", action="store_true", help="the compiled cases too")
    parser.add_argument("--only", metavar="WORD", help="the cases with that word in their name")
    parser.add_argument("--clock", default="wall", choices=["wall", "processor"], help="as dynaconv bench's")
    parser.add_argument("--rounds", type=int, help="instead of every case's own")
    parser.add_argument("--size", type=int, help="pixels instead of 224, to try this tool")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--out", type=Path, default=REPOSITORY / FIGURES, help=f"default: {FIGURES}")
    parser.add_argument("--against", default="HEAD", metavar="COMMIT", help="whose figures to compare with")
    parser.add_argument("--fail-if-slower", action="store_true", help="exit 1 when a case got slower")
    options = parser.parse_args(words)
    for name in ("rounds", "size"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; expected at least 1")
    if not _chosen(options) and not _chosen_layers(options):
        parser.error(f"no case has {options.only!r} in its name; they are: {'; '.join(map(name_of, CASES + COMPILED))}")
    return options


def _chosen(options: argparse.Namespace) -> list[BenchSettings]:
    cases = QUICK if options.quick else CASES + COMPILED if options.compiled else CASES
    if options.layers:
        return []
    given = {"rounds": options.rounds, "size": options.size}
    change: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    change |= {"clock": options.clock, "memory": not options.no_memory}
    return [replace(case, **change) for case in cases if not options.only or options.only in name_of(case)]


def _chosen_layers(options: argparse.Namespace) -> list[LayerCase]:
    if options.compiled:
        return []
    layers = QUICK_LAYERS if options.quick else LAYERS
    return [case for case in layers if not options.only or options.only in case.name]


def name_of(case: BenchSettings) -> str:
    """The name of a case in the file and in the report."""
    forms = ["compiled"] * case.compile + ([f"{case.bank_dtype} bank"] if case.bank_dtype else [])
    return ", ".join([case.model, case.mode, f"batch {case.batch}", *forms])


def record(case: BenchSettings, result: BenchResult, commit: str | None) -> dict[str, Any]:
    """What the file keeps of one case."""
    facts = result.environment
    return {
        "settings": asdict(case),
        "ratio_to_static": round(result.ratio_to_static, 3),
        "ratio_to_static_quartiles": facts["ratio_to_static_quartiles"],
        "speedup_over_usual": round(result.speedup_over_usual, 3),
        "speedup_over_timm": None if result.timm_ms is None else round(result.timm_ms / result.ours_ms, 3),
        "peak_memory_ratio": None if result.peak_memory_ratio is None else round(result.peak_memory_ratio, 3),
        "peak_memory_mib": facts["peak_memory_mib"],
        "milliseconds": facts["milliseconds"],
        "environment": {name: facts[name] for name in environment()},
        "commit": commit,
    }


def _measure(cases: list[BenchSettings], out: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The records of the cases that ran, written one by one among those that the file holds; and who failed."""
    kept = _read(out).get("cases", {})
    now: dict[str, dict[str, Any]] = {}
    failed = []
    commit = _commit()
    for index, case in enumerate(cases, 1):
        name = name_of(case)
        try:
            result = bench(case)
        except (RuntimeError, ValueError) as error:  # the other cases are worth their time all the same
            print(f"[{index}/{len(cases)}] {name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        finally:
            torch.compiler.reset()
        now[name] = record(case, result, commit)
        _write(out, cases={**kept, **now})
        low, high = now[name]["ratio_to_static_quartiles"]
        print(
            f"[{index}/{len(cases)}] {name}: {result.ratio_to_static:.2f} times the best static "
            f"(quartiles {low:.2f} to {high:.2f}), {result.speedup_over_usual:.2f} times as fast as the usual form",
            flush=True,
        )
    return now, failed


def _measure_layers(cases: list[LayerCase], out: Path) -> list[str]:
    """Measure single layers with one thread, write each as soon as it is measured, and return who failed."""
    threads, failed, commit = torch.get_num_threads(), [], _commit()
    torch.set_num_threads(1)
    for index, case in enumerate(cases, 1):
        try:
            found = measure_layer(case)
        except RuntimeError as error:
            print(f"[{index}/{len(cases)}] {error}", file=sys.stderr, flush=True)
            failed.append(case.name)
            continue
        layers = {**_read(out).get("layers", {}), case.name: {**found, "environment": environment(), "commit": commit}}
        _write(out, layers=layers)
        print(f"[{index}/{len(cases)}] {line(case.name, found)}", flush=True)
    torch.set_num_threads(threads)
    return failed


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _write(path: Path, **parts: Any) -> None:
    path.write_text(json.dumps({"cases": {}, **_read(path), **parts}, indent=2) + "\n", encoding="utf-8")


def _report(before: dict[str, Any] | None, now: dict[str, dict[str, Any]], commit: str) -> bool:
    """Print the comparison; return whether something got slower."""
    if before is None:
        print(f"\n{commit} holds no {FIGURES}: nothing to compare with.")
        return False
    found = changes(before, now)
    print(f"\nTimes over the best static, {commit} -> now:")
    for difference in other_machines(before, now):
        print(f"  another machine, so compare with care: {difference}")
    for change in found:
        print(f"  {change}")
    return any(change.verdict == SLOWER for change in found)


def _committed(commit: str) -> dict[str, Any] | None:
    text = _git("show", f"{commit}:{FIGURES}")
    cases: dict[str, Any] | None = None if text is None else json.loads(text)["cases"]
    return cases


def _commit() -> str | None:
    name = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", "src")
    return name if name is None else name.strip() + (" with changes" if changed else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # the project without its history, on a machine without git
        return None
    return None if done.returncode else done.stdout


if __name__ == "__main__":
    sys.exit(main())
