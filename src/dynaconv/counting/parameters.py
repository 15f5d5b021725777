"""Parameters as stored, by row of the report and by what they are for."""

from __future__ import annotations

from torch import nn

from dynaconv.counting.ledger import Ledger
from dynaconv.counting.protocol import is_counted
from dynaconv.counting.report import ParameterCount


def count_parameters(model: nn.Module, ledgers: dict[nn.Module, Ledger]) -> ParameterCount:
    """Write every parameter into the ledger of its row, once, and answer the sums."""
    seen: set[int] = set()
    total = trainable = experts = routers = 0
    for name, module in model.named_modules():
        row, routing = _row_of(model, name)
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            size = parameter.numel()
            ledgers[row].parameters += size
            total += size
            trainable += size if parameter.requires_grad else 0
            routers += size if routing else 0
            experts += size if is_counted(module) and not routing else 0
    return ParameterCount(total=total, trainable=trainable, experts=experts, routers=routers)


def _row_of(model: nn.Module, name: str) -> tuple[nn.Module, bool]:
    """Answer the module whose row holds the parameters of the module called ``name``, and whether it serves routing.

    Folded as operations are: a router's parameters stand with its dynamic layer, or else with the outermost router.
    """
    path = [model]
    for part in name.split(".") if name else []:
        path.append(path[-1].get_submodule(part))
    outermost = next((place for place, module in enumerate(path) if getattr(module, "is_router", False)), None)
    if outermost is None:
        return path[-1], False
    layer = next((module for module in reversed(path[:outermost]) if is_counted(module)), path[outermost])
    return layer, True
