"""Find the blocks of a network: the layers of a block can share one router."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dynaconv.conversion.observe import Key, Observation

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_blocks(model: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """For every layer name the name of its block; ``""`` if it belongs to none.

    A block is the innermost module around a layer that defines its own forward (not a plain container). If that module
    contains only one of the layers and is an attribute of a larger module, not an element of a list, it is taken for a
    conv-norm-activation helper, and the search goes on with the larger module. The whole network is never a block.
    """
    return {name: _block_of(model, name, names) for name in names}


def _block_of(model: nn.Module, name: str, names: Sequence[str]) -> str:
    block = _with_own_forward(model, _parent(name))
    while block and _holds(block, names) == 1 and not isinstance(model.get_submodule(_parent(block)), _CONTAINERS):
        above = _with_own_forward(model, _parent(block))
        if not above:
            break
        block = above
    return block


def _with_own_forward(model: nn.Module, name: str) -> str:
    while name and isinstance(model.get_submodule(name), _CONTAINERS):
        name = _parent(name)
    return name


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _holds(block: str, names: Sequence[str]) -> int:
    return sum(name.startswith(f"{block}.") for name in names)


def feature_map(model: nn.Module, block: str, dims: int, seen: Observation) -> tuple[Key, int] | str:
    """Which argument of a block a shared router can read, and its channels; or why there is none.

    It is the first argument of shape ``(batch, channels, *space)``. Some blocks take a time or text embedding too, also
    before it.

    Args:
        dims: of the layers that share the router: 1, 2 or 3 for convolutions, 0 for linear layers.
    """
    if not block:
        return "it stands in no block"
    if hasattr(model.get_submodule(block), "router"):
        return f"{block} has an attribute 'router' already"
    calls = seen.calls.get(block, [])
    if len(calls) != 1:
        return f"{block} runs {len(calls)} times in one forward"
    shapes = calls[0]
    if not shapes:
        return f"the input of {block} is not one tensor"
    for key, shape in shapes.items():
        # Three dimensions without a convolution are (batch, tokens, features): the channels are not the second one.
        if len(shape) == dims + 2 if dims else len(shape) >= 2 and len(shape) != 3:
            return key, shape[1]
    return f"the inputs of {block} have shapes {', '.join(map(str, shapes.values()))}, not (batch, channels, *space)"
