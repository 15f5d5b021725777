"""Banks as they go into a file: as plain matrices, in float32 or in a reduced precision.

A reduced bank is stored as :func:`dynaconv.freeze` stores it: ``"bfloat16"``, or ``"int8"`` with one scale for every
output channel of every expert. In a traced program for ONNX it is one operator, ``dynaconv::bank_values``, that
:mod:`~dynaconv.export.onnx_banks` writes as nodes; torch's exporter would compute the values and store those.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynaconv.inference import FrozenLayer
from dynaconv.inference.bank import ALONG, read, reduce_bank

_LIBRARY = torch.library.Library("dynaconv", "FRAGMENT")
_LIBRARY.define("bank_values(Tensor bank, Tensor? scale) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))


def _values(bank: Tensor, scale: Tensor | None) -> Tensor:
    """``(K, out, n)``, and scales ``(K, out, 1)`` of int8, to float32 ``(K, out * n)``."""
    values = bank.float()
    return (values if scale is None else values * scale).flatten(1)


def _fake(bank: Tensor, scale: Tensor | None) -> Tensor:
    return bank.new_empty(bank.shape[0], bank.shape[1] * bank.shape[2], dtype=torch.float32)


_LIBRARY.impl("bank_values", _values, "CPU")
torch.library.register_fake("dynaconv::bank_values", _fake, lib=_LIBRARY)


class StoredBankLayer(FrozenLayer):
    """A frozen layer with a reduced bank ``(K, out, n)``, whose float32 values are computed in the program."""

    as_operator = False

    def mixed_kernels(self, routing: Tensor) -> Tensor:
        find_values = torch.ops.dynaconv.bank_values.default if self.as_operator else _values
        values = find_values(self.bank, self.scale)
        mixed: Tensor = routing.to(self.dtype) @ values
        return mixed


def reduce_banks(network: nn.Module, bank_dtype: str | None) -> int:
    """Store the float32 banks of frozen layers, in place, as ``freeze(bank_dtype=...)`` does; returns how many."""
    layers = [layer for layer in network.modules() if isinstance(layer, FrozenLayer) and layer.bank_dtype is None]
    if bank_dtype is None:
        return 0
    for layer in layers:
        layer.bank, layer.scale = reduce_bank(layer.bank, bank_dtype, along=ALONG[layer.layout])
        layer.bank_dtype = bank_dtype
    return len(layers)


def with_plain_banks(network: nn.Module, *, as_operators: bool = False) -> nn.Module:
    """Change the banks of frozen layers, in place, to ``(K, out * in/groups * taps)``, as every format reads them.

    A reduced bank becomes ``(K, out, in/groups * taps)`` with scales ``(K, out, 1)``, the numbers unchanged; with
    ``as_operators``, a program has it behind the operator ``dynaconv::bank_values``.
    """
    for layer in network.modules():
        if not isinstance(layer, FrozenLayer):
            continue
        if layer.bank_dtype is None:
            layer.bank = layer.weight.detach().flatten(1).contiguous()
        else:
            out, scale = layer.kernel_shape[0], layer.scale
            layer.bank = read(layer.bank, layer.layout, layer.kernel_shape).flatten(2).contiguous()
            layer.scale = None if scale is None else scale.flatten(1)[:, :out, None].contiguous()
            layer.__class__ = StoredBankLayer
            layer.__dict__["as_operator"] = as_operators
        layer.layout = "rows"
    return network
