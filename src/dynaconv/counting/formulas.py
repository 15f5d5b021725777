"""The formula table: how many multiply-adds an operation costs, from the shapes of its arguments.

A fused multiply-add counts as one. Biases, normalisation, activations, pooling and additions cost no multiply-adds
(:mod:`dynaconv.counting.free` lists them); an operation that stands in neither table is an error, never a silent zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from dynaconv.torch_private import OpOverload, OpOverloadPacket

aten = torch.ops.aten

Formula = Callable[[tuple[Any, ...], dict[str, Any], Any], int]
"""``formula(args, kwargs, result) -> multiply-adds``; the tensors among them have shapes and no values."""


def _convolution(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """``batch * positions * Cin / groups * Cout * prod(k)``; a transposed convolution's positions are its input's."""
    x, weight, transposed = args[0], args[1], args[6]
    positions = (x if transposed else result).shape[2:]
    return x.shape[0] * math.prod(positions) * weight.numel()


def _matrix_product(left: int, right: int) -> Formula:
    """``(..., n, m) @ (m, p)`` or ``@ (m,)`` costs ``... * n * m * p``; ``left``, ``right``: argument positions."""

    def formula(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
        columns = args[right].shape[-1] if args[right].dim() > 1 else 1
        return args[left].numel() * columns

    return formula


def _attention(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """``query (B, H, L, E)``, ``key (B, h, S, E)``, ``value (B, h, S, V)``: ``B * H * L * S * (E + V)``."""
    query, key, value = args[:3]
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _recurrent_layer(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Input ``(T, B, in)`` or ``(B, T, in)``; weights ``(gates * H, in)``, ``(gates * H, H)``: both, at every step."""
    sequence, from_input, from_state = args[:3]
    return sequence.shape[0] * sequence.shape[1] * (from_input.numel() + from_state.numel())


FORMULAS: dict[OpOverloadPacket, Formula] = {
    aten.convolution: _convolution,
    aten.mm: _matrix_product(0, 1),
    aten.addmm: _matrix_product(1, 2),
    aten.addmm_: _matrix_product(1, 2),
    aten.bmm: _matrix_product(0, 1),
    aten.baddbmm: _matrix_product(1, 2),
    aten.baddbmm_: _matrix_product(1, 2),
    aten.addbmm: _matrix_product(1, 2),
    aten.mv: _matrix_product(0, 1),
    aten.addmv: _matrix_product(1, 2),
    aten.dot: _matrix_product(0, 1),
    aten.vdot: _matrix_product(0, 1),
    aten.mkldnn_rnn_layer: _recurrent_layer,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
}

_registered: dict[OpOverloadPacket, Formula] = {}


def register_rule(op: OpOverload | OpOverloadPacket | str, formula: Formula) -> None:
    """Teach the counter an operation, or replace what it knows of one.

    Args:
        op: the operation, as ``torch.ops.namespace.name`` or, as the counter's error spells it, ``"namespace::name"``.
            A rule holds for all overloads of a name.
        formula: ``formula(args, kwargs, result) -> multiply-adds`` for all examples that the tensors hold. Only the
            tensors' shapes and dtypes may be read. For an operation without multiply-adds: ``lambda *_: 0``.

    Raises:
        TypeError: ``op`` is no operation, or ``formula`` cannot be called.
        ValueError: PyTorch does not know an operation of that name.

    >>> register_rule("aten::_trilinear", lambda args, kwargs, result: result.numel())
    """
    if not callable(formula):
        raise TypeError(
            f"formula is {formula!r}: expected a function (args, kwargs, result) -> multiply-adds, "
            "such as `lambda args, kwargs, result: result.numel()`."
        )
    _registered[_packet(op)] = formula


def formula_of(op: OpOverload) -> Formula | None:
    """Answer the formula of an operation; the user's own rules go before the built-in ones."""
    packet = op.overloadpacket
    return _registered.get(packet) or FORMULAS.get(packet)


def _packet(op: OpOverload | OpOverloadPacket | str) -> OpOverloadPacket:
    if isinstance(op, OpOverload):
        return op.overloadpacket
    if isinstance(op, OpOverloadPacket):
        return op
    if not isinstance(op, str):
        raise TypeError(f"op is {op!r}: expected torch.ops.<namespace>.<name> or the string '<namespace>::<name>'.")
    namespace, separator, name = op.partition("::")
    found = getattr(getattr(torch.ops, namespace), name.partition(".")[0], None) if separator and name else None
    if not isinstance(found, OpOverloadPacket):
        raise ValueError(
            f"op is {op!r}: PyTorch knows no such operation. Expected '<namespace>::<name>', such as 'aten::mm'; "
            "an operation of an extension exists only after the extension was imported."
        )
    return found
