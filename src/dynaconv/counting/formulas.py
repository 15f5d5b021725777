"""The formula table: how many multiply-adds an operation costs, from the shapes of its arguments.

A fused multiply-add counts as one. Biases, normalisation, activations, pooling and additions cost no multiply-adds
(:func:`is_free` lists them). An operation that is in neither table is an error and never counts as zero in silence.
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
    """Register the cost formula of an operation, or replace it.

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
    """Return the formula of an operation; the user's own rules go before the built-in ones."""
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


# The operations that cost no multiply-adds. PyTorch's tags identify most of them: pointwise operations, views,
# reductions. Operations without a tag are listed by name; a name includes the in-place form (``name_``).
_FREE_TAGS = tuple(
    getattr(torch.Tag, name)
    for name in ("pointwise", "reduction", "view_copy", "inplace_view")
    if hasattr(torch.Tag, name)
)

_REDUCTIONS = """
    all any amax amin aminmax argmax argmin count_nonzero cumsum cumprod logsumexp max mean median min norm
    linalg_vector_norm prod std std_mean sum var var_mean
"""

_NORMALISATION = """
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update
    _batch_norm_no_update batch_norm_update_stats cudnn_batch_norm miopen_batch_norm native_layer_norm
    native_group_norm _fused_rms_norm rms_norm renorm _weight_norm_interface
"""

_POOLING = """
    avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d max_pool1d_with_indices
    max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    max_pool2d max_pool3d max_unpool2d max_unpool3d fractional_max_pool2d fractional_max_pool3d
"""

_ACTIVATION = """
    _softmax _log_softmax _safe_softmax softmax glu prelu _prelu_kernel native_dropout rrelu_with_noise hardswish
    hardsigmoid leaky_relu log_sigmoid_forward
"""

_RESAMPLING = """
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d grid_sampler_3d
"""

_MOVING = """
    constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d as_strided cat stack clone copy _to_copy _unsafe_view _reshape_alias _reshape_copy contiguous
    lift lift_fresh lift_fresh_copy roll flip rot90 repeat repeat_interleave index index_select gather scatter
    scatter_add scatter_reduce index_put index_add index_copy index_fill masked_select masked_scatter embedding
    _embedding_bag im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle tril triu
    unfold_backward slice_scatter select_scatter diagonal_scatter as_strided_scatter _pin_memory set resize
    take put diag_embed alias_copy _conj_physical resolve_conj resolve_neg unsafe_split
    split_with_sizes_copy unbind_copy
"""

_MAKING = """
    arange linspace logspace empty empty_like empty_strided empty_permuted new_empty new_empty_strided new_full
    new_ones new_zeros full full_like ones ones_like zeros zeros_like zero fill eye scalar_tensor rand rand_like
    randn randn_like randint randperm uniform normal bernoulli exponential tril_indices
    triu_indices complex polar
"""

_CHOOSING = "topk sort argsort kthvalue isin floor_divide _unique2 unique_dim nonzero searchsorted bucketize one_hot"

_ASKING = """
    _local_scalar_dense item equal is_same_size sym_size sym_stride sym_numel sym_storage_offset size stride numel dim
    is_contiguous is_strides_like_format is_non_overlapping_and_dense detach _assert_async _assert_scalar
    _assert_tensor_metadata _functional_assert_async _fused_sdp_choice
"""

_FREE_NAMES = frozenset(
    " ".join(
        [_REDUCTIONS, _NORMALISATION, _POOLING, _ACTIVATION, _RESAMPLING, _MOVING, _MAKING, _CHOOSING, _ASKING]
    ).split()
)


def is_free(op: OpOverload) -> bool:
    """Whether ``op`` is known to cost no multiply-adds."""
    if op.namespace == "prim":  # queries such as prim::device, which compute nothing
        return True
    namespace, _, name = op._schema.name.partition("::")
    if op.is_view or _is_tagged(op.overloadpacket):
        return True
    if namespace != "aten":
        return False
    twin = name.removesuffix("_")  # not every version of PyTorch tags the in-place form too
    return (
        name in _FREE_NAMES or twin in _FREE_NAMES or (twin != name and _is_tagged(getattr(torch.ops.aten, twin, None)))
    )


def _is_tagged(packet: OpOverloadPacket | None) -> bool:
    if packet is None:
        return False
    return any(tag in getattr(packet, overload).tags for overload in packet.overloads() for tag in _FREE_TAGS)
