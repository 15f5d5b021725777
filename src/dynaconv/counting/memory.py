"""Peak activation memory: which tensors are alive at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef


class LiveMemory:
    """Bytes of the activations alive now, and the most there were at once.

    An activation is a storage that a tensor of the forward pass points to and that belongs to no parameter or buffer.
    It lives from the operation that makes it until nothing refers to it any more, exactly as PyTorch's allocators see
    it: views and in-place results add nothing, a module's input stays while the module runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        weights = [*model.parameters(), *model.buffers()]
        # Held, not only named: the address of a storage that is gone may be given to another.
        self._weights = {ref.cdata: ref for ref in (StorageWeakRef(weight.untyped_storage()) for weight in weights)}

    def hold(self, made: Any, *, transient: int = 0) -> None:
        """Take note of the tensors in ``made``; ``transient`` bytes are alive now and gone right after."""
        for tensor in tensors_in(made):
            storage = tensor.untyped_storage()
            ref = StorageWeakRef(storage)
            if ref.cdata not in self._weights:
                self._live[ref.cdata] = (ref, storage.nbytes())
        self._live = {key: (ref, size) for key, (ref, size) in self._live.items() if not ref.expired()}
        self.peak = max(self.peak, transient + sum(size for _, size in self._live.values()))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
