"""``dynaconv cost``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import assignments, choice
from dynaconv.cli.terminal import sentences, table, width
from dynaconv.errors import UserError, blame_input, suggest

if TYPE_CHECKING:
    from torch import nn

    from dynaconv.counting import CostReport

FORMATS = ("table", "json", "csv")


def cost(
    model: Annotated[str, Argument(help=f"A network: {options.NETWORKS}.")],
    input: Annotated[
        str | None, Option(help="Size of one example, such as 3x224x224. Default: the network's own.")
    ] = None,
    rule: Annotated[
        str, choice("madds", "tf", "dy", help="madds, tf (CondConv paper) or dy (dynamic-convolution paper).")
    ] = "madds",
    format: Annotated[str, choice(*FORMATS, help="table, json or csv.")] = "table",
    arg: options.Arg = None,
    all_layers: Annotated[bool, Option("--all", help="Also list the layers that cost nothing.")] = False,
    method: Annotated[
        str | None, choice("dynamic", "condconv", help="Count its dynamic twin: 'dynamic' or 'condconv'.")
    ] = None,
    experts: Annotated[int | None, Option(min=1, help="Experts K of the twin. Default: the paper's 4 or 8.")] = None,
    weights: options.Weights = None,
) -> None:
    """Count what one example costs, layer by layer: multiply-adds (mixing and routing apart), parameters, memory."""
    import dynaconv.models
    from dynaconv.counting import RULES, parse_input_size
    from dynaconv.counting import cost as count

    if format not in FORMATS:
        raise UserError(f"The format is {format!r}; expected table, json or csv. {suggest(format, FORMATS)}")
    if rule not in RULES:
        raise UserError(f"The rule is {rule!r}. {suggest(rule, RULES)}")
    with blame_input():
        size = None if input is None else parse_input_size(input)
    if experts is not None and method is None:
        raise UserError("--experts is for the dynamic twin: give --method dynamic or condconv, or --arg experts=K")
    network = build_on_meta(model, assignments("--arg", arg)) if weights is None else _with_weights(model, arg, weights)
    with blame_input():
        if method is not None:
            from dynaconv.conversion import dynamize

            network = dynamize(network, method=method, experts=experts, input_size=size, inplace=True)
        report = count(dynaconv.models.countable(network), size or _own_size(network), rule=rule)
    if format == "json":
        print(report.to_json())
    elif format == "csv":
        print(report.to_csv(), end="")
    else:
        print(_fitted(report, all_layers))


def _fitted(report: CostReport, all_layers: bool) -> str:
    """The report's own table where it fits the terminal."""
    from dynaconv.counting.table import summary, table_cells

    columns, whole = width(), report.table(all_layers=all_layers)
    if columns is None or max(map(len, whole.splitlines())) <= columns:
        return whole
    header, rows = table_cells(report.to_dict(), all_layers=all_layers)
    lines = table(header, rows, right=range(3, len(header)), columns=columns)
    return "\n\n".join([lines, sentences("\n".join(summary(report.to_dict())), columns)])


def build_on_meta(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a network without its numbers, or with them where it cannot do without; mistakes are the user's."""
    import torch

    from dynaconv.tasks.sources import make_network, source_of

    if source_of(name) == "saved":
        return make_network(name, {}, arguments)
    try:
        with torch.device("meta"):
            return make_network(name, {}, arguments)
    except UserError:
        if source_of(name) != "function":
            raise
        return make_network(name, {}, arguments)  # it may need numbers to be built


def _with_weights(name: str, arg: list[str] | None, weights: Path) -> nn.Module:
    from dynaconv.tasks.network import ModelSpec, build_model

    return build_model(ModelSpec(name=name, args=assignments("--arg", arg)), None, weights=weights)


def _own_size(network: nn.Module) -> tuple[int, ...]:
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    size = tuple(config.get("input_size") or (3, 224, 224))
    return (getattr(network, "in_chans", size[0]), *size[1:])
