"""``dynaconv cost``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli.assignments import assignments
from dynaconv.errors import UserError, blame_input, suggest

if TYPE_CHECKING:
    from torch import nn

FORMATS = ("table", "json", "csv")


def cost(
    model: Annotated[str, Argument(help="A network of this package or of timm ('dynaconv list', timm.list_models()).")],
    input: Annotated[
        str | None, Option(help="Size of one example, such as 3x224x224. Default: the network's own.")
    ] = None,
    rule: Annotated[str, Option(help="madds, tf (CondConv paper) or dy (dynamic-convolution paper).")] = "madds",
    format: Annotated[str, Option(help="table, json or csv.")] = "table",
    arg: Annotated[
        list[str] | None, Option(help="An argument of the network, such as experts=8 or static=True; repeatable.")
    ] = None,
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
        report = count(network, size or _own_size(network), rule=rule)
    if format == "json":
        print(report.to_json())
    elif format == "csv":
        print(report.to_csv(), end="")
    else:
        print(report.table(all_layers=all_layers))


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


def _own_size(network: nn.Module) -> tuple[int, ...]:
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    size = tuple(config.get("input_size") or (3, 224, 224))
    return (getattr(network, "in_chans", size[0]), *size[1:])
