"""The operations that cost no multiply-adds.

PyTorch's own tags tell most of them: pointwise operations, views, reductions. What carries no tag is listed here by
name, which stands for its in-place form (``name_``) too.
"""

from __future__ import annotations

import torch

from dynaconv.torch_private import OpOverload, OpOverloadPacket

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
    if op.namespace == "prim":  # questions such as prim::device, which compute nothing
        return True
    namespace, _, name = op._schema.name.partition("::")
    if op.is_view or _is_tagged(op.overloadpacket):
        return True
    if namespace != "aten":
        return False
    twin = name.removesuffix("_")  # not every PyTorch tags an in-place form like its twin
    return (
        name in _FREE_NAMES or twin in _FREE_NAMES or (twin != name and _is_tagged(getattr(torch.ops.aten, twin, None)))
    )


def _is_tagged(packet: OpOverloadPacket | None) -> bool:
    if packet is None:
        return False
    return any(tag in getattr(packet, overload).tags for overload in packet.overloads() for tag in _FREE_TAGS)
