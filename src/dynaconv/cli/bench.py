"""``dynaconv bench``: one measurement, the paper's Table 12, or a sweep with its picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import assignments, choice
from dynaconv.cli.terminal import prepare, sentences, table, width
from dynaconv.errors import UserError, blame_input

LARGEST_SIDE, MOST_IMAGES = 16_384, 1_000_000

if TYPE_CHECKING:
    from dynaconv.bench import BenchResult, BenchSettings
    from dynaconv.bench.sweep import Point
    from dynaconv.bench.table12 import Row


def bench(
    model: Annotated[
        str | None,
        Argument(help=f"One of this package's networks, or any other, which is made dynamic: {options.NETWORKS}."),
    ] = None,
    mode: Annotated[
        str, choice("infer", "train", help="infer (ours is frozen) or train (forward and backward).")
    ] = "infer",
    batch: Annotated[int, Option("--batch", "--batch-size", min=1, max=MOST_IMAGES, help="Images at a time.")] = 1,
    threads: Annotated[int, Option(min=1, max=options.MOST_THREADS, help="Threads of torch.")] = 1,
    device: Annotated[str, choice(*options.DEVICES, help="auto, cpu, cuda, cuda:1 (the second GPU) or mps.")] = "cpu",
    dtype: Annotated[
        str, choice("float32", "bfloat16", "float16", help="float32; bfloat16 or float16 run under autocast.")
    ] = "float32",
    compile: Annotated[bool, Option("--compile", help="Also try every form compiled (slow to start).")] = False,
    bank_dtype: Annotated[
        str | None, choice("bfloat16", "int8", help="Store the frozen bank as bfloat16 or int8.")
    ] = None,
    size: Annotated[
        int | None, Option("--size", "--image-size", min=1, max=LARGEST_SIDE, help="Pixels a side. Default 224.")
    ] = None,
    rounds: Annotated[int, Option(min=1, help="How often every form runs; medians are printed.")] = 20,
    warmup: Annotated[int, Option(min=0, help="Rounds before those that count.")] = 3,
    clock: Annotated[
        str, choice("wall", "processor", help="wall; or processor, for a machine that others use (one thread only).")
    ] = "wall",
    runtime: Annotated[
        str | None,
        choice("onnx", "openvino", "aoti", help="Exported, in onnx (ONNX Runtime), openvino or aoti (AOTInductor)."),
    ] = None,
    arg: options.Arg = None,
    no_memory: Annotated[bool, Option("--no-memory", help="Leave the memory measurement out.")] = False,
    table12: Annotated[
        bool, Option("--table12", help="Table 12 of Chen et al. 2020 beside ours: four widths, one thread, batch 1.")
    ] = False,
    sweep: Annotated[
        str | None,
        choice(
            *("experts", "batch", "width", "size", "threads"),
            help="How the cost grows: one benchmark per value of experts, batch, width, size or threads.",
        ),
    ] = None,
    values: Annotated[str | None, Option(help="Of the sweep, separated by commas. Width: percent of full.")] = None,
    figure: Annotated[list[Path] | None, Option(help="Draw the sweep into a file, .png or .pdf; repeatable.")] = None,
    weights: options.Weights = None,
    as_json: options.AsJson = False,
) -> None:
    """Time a network against its static twin at its best, the usual form (groups = batch) and timm's CondConv.

    All run in turns in one process, after a warm-up; outputs must be equal, or nothing is printed.
    """
    from dynaconv.bench import BenchSettings
    from dynaconv.bench import bench as measure

    prepare()
    _check_words(sweep, values, figure, table12)
    if table12:
        from dynaconv.bench.table12 import table12 as measure_table

        rows = measure_table(rounds=rounds, compile=compile, size=size)
        print(json.dumps([row.plain() for row in rows], indent=2) if as_json else _table(rows))
        return
    if model is None:
        raise UserError("Expected the name of a network, such as dy_mobilenetv2_100, or --table12.")
    with blame_input():
        settings = BenchSettings(
            model=model,
            mode=mode,
            batch=batch,
            threads=threads,
            device=device,
            dtype=dtype,
            compile=compile,
            bank_dtype=bank_dtype,
            size=size,
            rounds=rounds,
            warmup=warmup,
            clock=clock,
            model_args=assignments("--arg", arg),
            memory=not no_memory,
            weights=None if weights is None else str(weights),
        )
    if runtime is not None:
        if sweep is not None:
            raise UserError("--runtime and --sweep are two measurements; ask for one at a time.")
        _run_runtime(settings, runtime, as_json)
        return
    if sweep is not None:
        _run_sweep(settings, sweep, values, figure or [], as_json)
        return
    with blame_input():
        result = measure(settings)
    print(json.dumps(result.plain(), indent=2) if as_json else sentences(_text(result), width()))


def _run_runtime(settings: BenchSettings, runtime: str, as_json: bool) -> None:
    from dynaconv.bench.runtimes import bench_runtime

    with blame_input():
        result = bench_runtime(settings, runtime)
    if as_json:
        print(json.dumps(result.plain(), indent=2))
        return
    facts = result.environment
    lines = [f"{result.model}, batch {result.batch}, {result.size} pixels, {result.threads} threads, float32:"]
    for name, milliseconds in result.milliseconds.items():
        line = f"  {name:<38}{milliseconds:>8.2f} ms"
        if name in result.ratio_to_static:
            low, high = result.quartiles[name]
            line += f"  {result.ratio_to_static[name]:.2f} of static (quartiles {low:.2f} to {high:.2f})"
        lines.append(line)
    lines += [f"  {name}: left out, {reason}" for name, reason in result.left.items()]
    lines.append(f"  largest relative error: {max(result.errors.values()):.1e}")
    lines.append(f"  on {facts['processor']}, {facts['cores']} cores, load {facts['load_average']}")
    print(sentences("\n".join(lines), width()))


def _text(result: BenchResult) -> str:
    facts = result.environment
    low, high = facts["ratio_to_static_quartiles"]
    lines = [f"{result.model}, {result.mode}, batch {result.batch}, {result.threads} threads, {result.dtype}:"]
    lines += [f"  {name:<34}{milliseconds:>10.2f} ms" for name, milliseconds in facts["milliseconds"].items()]
    lines.append(f"  ours / best static: {result.ratio_to_static:.2f} (quartiles {low:.2f} to {high:.2f})")
    lines.append(f"  usual form / ours: {result.speedup_over_usual:.2f}")
    if result.peak_memory_ratio is not None:
        lines.append(f"  peak memory, ours / static: {result.peak_memory_ratio:.2f}")
    lines.append(
        f"  on {facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, load {facts['load_average']}"
    )
    return "\n".join(lines)


def _table(rows: list[Row]) -> str:
    from dynaconv.bench.table12 import HEADER

    cells = [row.cells() for row in rows]
    return table(HEADER, cells, right=range(1, len(HEADER)), columns=width())


def _check_words(sweep: str | None, values: str | None, figures: list[Path] | None, table12: bool) -> None:
    """Raise an error for options that would be ignored, and for figures that could not be written at the end."""
    if sweep is None and (values is not None or figures):
        raise UserError(
            "--values and --figure belong to a sweep; expected --sweep experts, batch, width, size or threads."
        )
    if sweep is not None and table12:
        raise UserError("--table12 and --sweep are two measurements; ask for one at a time.")
    for path in figures or []:
        _check_figure(path)


def _run_sweep(settings: BenchSettings, what: str, values: str | None, figures: list[Path], as_json: bool) -> None:
    """Measure, print every row when it is measured, draw; with JSON, the rows go to the standard error."""
    from dynaconv.bench.sweep import HEADER, LEGEND, WIDTHS, sweep

    rows = sys.stderr if as_json else sys.stdout
    columns = width()
    narrow = columns is not None and columns < sum(WIDTHS)
    points: list[Point] = []
    with blame_input():
        for point in sweep(settings, what, _numbers(values)):
            header = (what, *HEADER)
            if not points:
                print(sentences(LEGEND, columns), file=rows)
                if not narrow:
                    print(_set(header), file=rows)
            line = table(header, [point.cells()], columns=1) if narrow else _set(point.cells())
            print(line, file=rows, flush=True)
            points.append(point)
        if as_json:
            print(json.dumps([point.plain() for point in points], indent=2))
        for path in figures:
            from dynaconv.bench.figure import save

            save(points, path)


def _set(cells: Sequence[str]) -> str:
    """One row of the sweep's table; its widths are fixed, for rows come one by one."""
    from dynaconv.bench.sweep import WIDTHS

    parts = [
        cell.rjust(size) if place else cell.ljust(size)
        for place, (cell, size) in enumerate(zip(cells, WIDTHS, strict=True))
    ]
    return "".join(parts).rstrip()


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--values is {text!r}; expected whole numbers separated by commas, such as 1,2,4") from None


def _check_figure(path: Path) -> None:
    from importlib.util import find_spec

    if path.suffix not in (".png", ".pdf"):
        raise UserError(f"--figure is {str(path)!r}; expected a file that ends in .png or .pdf")
    if not path.parent.is_dir():
        raise UserError(f"--figure is {str(path)!r}, and there is no folder {str(path.parent)!r}; make it first")
    if find_spec("matplotlib") is None:
        raise UserError("--figure needs matplotlib, which is not installed; install the extra: dynaconv[train]")
