"""``dynaconv bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from dynaconv.cli.assignments import assignments
from dynaconv.errors import UserError, blame_input

if TYPE_CHECKING:
    from dynaconv.bench import BenchResult
    from dynaconv.bench.table12 import Row


def bench(
    model: Annotated[str | None, Argument(help="A network of the zoo, or any of timm (made dynamic).")] = None,
    mode: Annotated[str, Option(help="infer (ours is frozen) or train (forward and backward).")] = "infer",
    batch: Annotated[int, Option(min=1, help="Images at a time.")] = 1,
    threads: Annotated[int, Option(min=1, help="Threads of torch.")] = 1,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, Option(help="float32; bfloat16 or float16 run under autocast.")] = "float32",
    compile: Annotated[bool, Option("--compile", help="Also try every form compiled (slow to start).")] = False,
    bank_dtype: Annotated[str | None, Option(help="Store the frozen bank as bfloat16 or int8.")] = None,
    size: Annotated[int | None, Option(min=1, help="Pixels a side. Default 224.")] = None,
    rounds: Annotated[int, Option(min=1, help="How often every form runs; medians are printed.")] = 20,
    warmup: Annotated[int, Option(min=0, help="Rounds before those that count.")] = 3,
    clock: Annotated[str, Option(help="wall; or processor, for a machine that others use (one thread only).")] = "wall",
    arg: Annotated[list[str] | None, Option(help="An argument of the network, such as experts=8; repeatable.")] = None,
    no_memory: Annotated[bool, Option("--no-memory", help="Leave the memory measurement out.")] = False,
    table12: Annotated[
        bool, Option("--table12", help="Table 12 of Chen et al. 2020 beside ours: four widths, one thread, batch 1.")
    ] = False,
    sweep: Annotated[
        str | None,
        Option(help="How the cost grows: one benchmark per value of experts, batch, width, size or threads."),
    ] = None,
    values: Annotated[str | None, Option(help="Of the sweep, separated by commas. Width: percent of full.")] = None,
    figure: Annotated[list[Path] | None, Option(help="Draw the sweep into a file, .png or .pdf; repeatable.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a network against its static twin at its best, the usual form (groups = batch) and timm's CondConv.

    All run in turns in one process, after a warm-up; outputs must be equal, or nothing is printed.
    """
    from dynaconv.bench import BenchSettings
    from dynaconv.bench import bench as measure
    from dynaconv.cli.bench_sweep import check_words, run_sweep

    check_words(sweep, values, figure, table12)
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
        )
    if sweep is not None:
        run_sweep(settings, sweep, values, figure or [], as_json)
        return
    with blame_input():
        answer = measure(settings)
    print(json.dumps(answer.plain(), indent=2) if as_json else _text(answer))


def _text(answer: BenchResult) -> str:
    facts = answer.environment
    low, high = facts["ratio_to_static_quartiles"]
    lines = [f"{answer.model}, {answer.mode}, batch {answer.batch}, {answer.threads} threads, {answer.dtype}:"]
    lines += [f"  {name:<34}{milliseconds:>10.2f} ms" for name, milliseconds in facts["milliseconds"].items()]
    lines.append(f"  ours / best static: {answer.ratio_to_static:.2f} (quartiles {low:.2f} to {high:.2f})")
    lines.append(f"  usual form / ours: {answer.speedup_over_usual:.2f}")
    if answer.peak_memory_ratio is not None:
        lines.append(f"  peak memory, ours / static: {answer.peak_memory_ratio:.2f}")
    lines.append(
        f"  on {facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, load {facts['load_average']}"
    )
    return "\n".join(lines)


def _table(rows: list[Row]) -> str:
    from dynaconv.bench.table12 import HEADING

    return "\n".join([HEADING, *map(str, rows)])
