"""Strategy ``operator``: the layer is one node of an exported graph, ``dynaconv::convolve_each``.

For exporters (:mod:`dynaconv.export`), which replace the node by operations of their own format: how a layer is written
with a free batch is different in every format. Run in Python, the node is a loop over the examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dynaconv.ops.call import Call, wants_operators
from dynaconv.ops.convolution import convolve
from dynaconv.ops.geometry import Geometry, output_space
from dynaconv.ops.strategies.strategy import Strategy

_LIBRARY = torch.library.Library("dynaconv", "FRAGMENT")
_LIBRARY.define(
    "convolve_each(Tensor x, Tensor kernels, Tensor? biases, int[] stride, int[] padding, int[] dilation, int groups, "
    "bool transposed, int[] output_padding) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@contextmanager
def as_operators() -> Iterator[None]:
    """Inside, torch.export sees every dynamic convolution as one operator ``dynaconv::convolve_each``."""
    token = wants_operators.set(True)
    try:
        yield
    finally:
        wants_operators.reset(token)


def refuses(call: Call) -> str | None:
    if not call.as_operator:
        return "it is for graphs that an exporter writes on (dynaconv.export)"
    if not call.geometry.dims:
        return "a linear layer is one batched matrix product in every format"
    if call.needs_grad:
        return "it has no gradient"
    return None


def convolve_each(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
    """The operator ``dynaconv::convolve_each``, whose ``padding`` is numeric."""
    made: Tensor = torch.ops.dynaconv.convolve_each.default(
        *(x, kernels, biases, geometry.stride, geometry.padding, geometry.dilation, geometry.groups),
        *(geometry.transposed, geometry.output_padding),
    )
    return made


def _geometry(
    x: Tensor, settings: tuple[Sequence[int], Sequence[int], Sequence[int], int, bool, Sequence[int]]
) -> Geometry:
    stride, padding, dilation, groups, transposed, output_padding = settings
    return Geometry(
        dims=x.dim() - 2,
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        transposed=transposed,
        output_padding=tuple(output_padding),
    )


def _run(x: Tensor, kernels: Tensor, biases: Tensor | None, *settings: object) -> Tensor:
    geometry = _geometry(x, settings)  # type: ignore[arg-type]
    each_bias = [None] * x.shape[0] if biases is None else biases.unbind()
    examples = zip(x.split(1), kernels, each_bias, strict=True)
    return torch.cat([convolve(example, kernel, bias, geometry) for example, kernel, bias in examples])


def _fake(x: Tensor, kernels: Tensor, biases: Tensor | None, *settings: object) -> Tensor:
    geometry = _geometry(x, settings)  # type: ignore[arg-type]
    out = kernels.shape[2] * geometry.groups if geometry.transposed else kernels.shape[1]
    return x.new_empty(x.shape[0], out, *output_space(x.shape[2:], kernels.shape[3:], geometry))


_LIBRARY.impl("convolve_each", _run, "CPU")
_LIBRARY.impl("convolve_each", _run, "CUDA")
torch.library.register_fake("dynaconv::convolve_each", _fake, lib=_LIBRARY)

STRATEGY = Strategy(refuses=refuses, convolve_each=convolve_each)
