"""``dynaconv cost``."""

from __future__ import annotations

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
    model: Annotated[str, Argument(help="A network of this package or of timm ('dynaconv list', timm.list_models()).")],
    input: Annotated[
        str | None, Option(help="Size of one example, such as 3x224x224. Default: the network's own.")
    ] = None,
    rule: Annotated[
        str, choice("madds", "tf", "dy", help="madds, tf (CondConv paper) or dy (dynamic-convolution paper).")
    ] = "madds",
    format: Annotated[str, choice(*FORMATS, help="table, json or csv.")] = "table",
    arg: options.Arg = None,
    all_layers: Annotated[bool, Option("--all", help="Also list the layers that cost nothing.")] = False,
) -> None:
    """Count what one example costs, layer by layer: multiply-adds (mixing and routing apart), parameters, memory."""
    from dynaconv.counting import RULES, parse_input_size
    from dynaconv.counting import cost as count

    if format not in FORMATS:
        raise UserError(f"The format is {format!r}; expected table, json or csv. {suggest(format, FORMATS)}")
    if rule not in RULES:
        raise UserError(f"The rule is {rule!r}. {suggest(rule, RULES)}")
    with blame_input():
        size = None if input is None else parse_input_size(input)
    network = build_on_meta(model, assignments("--arg", arg))
    with blame_input():
        report = count(_countable(network), size or _own_size(network), rule=rule)
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
    """Build a network without its numbers; every mistake in name or arguments is the user's."""
    import timm
    import torch

    import dynaconv.models

    if not timm.is_model(name.partition(".")[0]):
        known = [*dynaconv.models.ZOO, *timm.list_models()]
        raise UserError(f"There is no network {name!r}. {suggest(name, known)}")
    try:
        with torch.device("meta"):
            network: nn.Module = timm.create_model(name, **arguments)
    except Exception as error:  # each of timm's networks raises its own
        raise UserError(f"{name} cannot be built: {type(error).__name__}: {error}") from error
    return network


def _countable(network: Any) -> nn.Module:
    """A detector without its post-processing, which depends on the values found; every other network as it is."""
    part: nn.Module = network.raw() if hasattr(network, "raw") else network
    return part


def _own_size(network: nn.Module) -> tuple[int, ...]:
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    size = tuple(config.get("input_size") or (3, 224, 224))
    return (getattr(network, "in_chans", size[0]), *size[1:])
