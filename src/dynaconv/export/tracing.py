"""From a network to a program of torch.export, with a free batch and, where the network allows, a free size."""

from __future__ import annotations

import torch
from torch import nn

from dynaconv.errors import UserError
from dynaconv.export.prepared import example, quiet
from dynaconv.export.source import Source


def trace(
    network: nn.Module, source: Source, input: str, batch: int | None, free_size: bool
) -> torch.export.ExportedProgram:
    """The program of a network, with a free batch if ``batch`` is None and, where the network allows, a free size.

    Raises:
        UserError: it cannot be traced, or only for one batch size.
    """
    images = example(source, input, 3 if batch is None else batch)
    free = torch.export.Dim
    side = free.AUTO if free_size else free.STATIC
    shapes = {0: free.DYNAMIC if batch is None else free.STATIC, 1: free.STATIC, 2: side, 3: side}
    with quiet(), torch.no_grad():
        try:
            return torch.export.export(network, (images,), dynamic_shapes=(shapes,))
        except Exception as error:  # torch raises its own kinds, and the network's
            first = str(error).strip().splitlines()
            raise UserError(
                f"{source.name} cannot be traced by torch.export{' with a free batch' if batch is None else ''}: "
                f"{type(error).__name__}: {first[0] if first else ''}"
            ) from error


def has_free_size(program: torch.export.ExportedProgram) -> bool:
    """Whether both sides of the image are free in a program."""
    return all(not isinstance(side, int) for side in _input_shape(program)[2:])


def program_batch(program: torch.export.ExportedProgram) -> int:
    """The batch that a program is fixed to; 1 where it is free."""
    batch = _input_shape(program)[0]
    return batch if isinstance(batch, int) else 1


def _input_shape(program: torch.export.ExportedProgram) -> torch.Size:
    """Of the images that a program takes; a free side is no whole number."""
    user = set(program.graph_signature.user_inputs)
    images = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in user)
    shape: torch.Size = images.meta["val"].shape
    return shape
