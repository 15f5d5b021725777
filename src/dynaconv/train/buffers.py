"""A forward pass on a bad batch spoils batch norm's running statistics; a dropped step must leave no trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dynaconv.torch_private import copy_each_


class BufferGuard:
    """Remembers a model's buffers before a step and puts them back after a dropped one."""

    def __init__(self, model: nn.Module) -> None:
        self._groups: list[tuple[list[Tensor], list[Tensor]]] = []
        for buffers in _same_kind(list(model.buffers())):
            self._groups.append((buffers, [buffer.clone() for buffer in buffers]))

    def remember(self) -> None:
        for buffers, copies in self._groups:
            copy_each_(copies, buffers)

    def restore(self) -> None:
        for buffers, copies in self._groups:
            copy_each_(buffers, copies)


def _same_kind(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Groups of one device and dtype, which is what the foreach operations are quick on."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.device, tensor.dtype].append(tensor)
    return list(groups.values())
