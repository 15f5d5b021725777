"""Calls of the mixing operation, drawn by hypothesis: odd shapes, every option of the geometry, odd memory layouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from dynaconv.ops import Geometry, convolve_each, mix, output_space
from laws.layouts import LAYOUTS, lay_out

LARGEST_KERNEL = {0: 0, 1: 4, 2: 4, 3: 3}


@dataclass(frozen=True)
class Case:
    """Shapes, options and memory layouts of one call; the numbers in it follow from ``seed``."""

    geometry: Geometry
    batch: int
    experts: int
    inputs: int
    outputs: int
    space: tuple[int, ...]
    kernel: tuple[int, ...]
    bias: bool
    layout: str
    bank_layout: str
    seed: int

    def tensors(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Leaves with gradients, of about unit size in the output; contiguous, see :meth:`run` for the layouts."""
        generator = torch.Generator().manual_seed(self.seed)
        dims, groups = self.geometry.dims, self.geometry.groups
        x_shape = (self.batch, self.inputs, *self.space) if dims else (self.batch, *self.space, self.inputs)
        if self.geometry.transposed:
            bank_shape = (self.experts, self.inputs, self.outputs // groups, *self.kernel)
        else:
            bank_shape = (self.experts, self.outputs, self.inputs // groups, *self.kernel)
        fan_in = self.inputs // groups * torch.Size(self.kernel).numel()
        made = {
            "x": torch.randn(x_shape, generator=generator, dtype=torch.float64),
            "bank": torch.randn(bank_shape, generator=generator, dtype=torch.float64) / fan_in**0.5,
            # Neither positive nor summing to one: the operation does not ask for it.
            "routing": torch.randn(self.batch, self.experts, generator=generator, dtype=torch.float64)
            / self.experts**0.5,
        }
        if self.bias:
            made["bias"] = torch.randn(self.experts, self.outputs, generator=generator, dtype=torch.float64)
        return {name: value.to(dtype).requires_grad_() for name, value in made.items()}

    def run(self, strategy: str, leaves: dict[str, Tensor], *, layouts: bool = True) -> Tensor:
        """``mix`` on the leaves, brought into this case's memory layouts first."""
        x, bank = leaves["x"], leaves["bank"]
        if layouts:
            x, bank = lay_out(x, self.layout), lay_out(bank, self.bank_layout)
        return mix(x, bank, leaves["routing"], leaves.get("bias"), geometry=self.geometry, strategy=strategy)

    def run_each(self, strategy: str, leaves: dict[str, Tensor]) -> Tensor:
        """``convolve_each`` with the kernels that the leaves make."""
        kernels, biases = mixed(leaves)
        x = lay_out(leaves["x"], self.layout)
        return convolve_each(x, kernels, biases, geometry=self.geometry, strategy=strategy)

    def upstream(self, y: Tensor) -> Tensor:
        """A gradient for the output, the same for every strategy."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(y.shape, generator=generator, dtype=torch.float64)


def mixed(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """The kernels and biases of every example."""
    routing = leaves["routing"]
    bias = leaves.get("bias")
    kernels = torch.einsum("bk,k...->b...", routing, leaves["bank"])
    return kernels, None if bias is None else routing @ bias


def values_and_gradients(case: Case, y: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The output and the gradient of every leaf under the case's upstream gradient."""
    grads = torch.autograd.grad(y, list(leaves.values()), case.upstream(y).to(y.dtype))
    return {"output": y.detach(), **{f"gradient of {name}": g for name, g in zip(leaves, grads, strict=True)}}


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    dims: Any = (0, 1, 2, 3),
    batches: Any = (0, 1, 2, 3),
    pointwise: bool | None = None,
    moved: bool | None = None,
    kind: str | None = None,
    layouts: Any = LAYOUTS,
) -> Case:
    """Any valid call.

    ``pointwise`` asks for kernels of one tap, or for others. ``moved=False`` asks for transposed convolutions that keep
    their positions: no stride, padding or output padding. ``kind`` asks for plain convolutions, none transposed:
    ``"dense"`` in one group, ``"depthwise"`` with as many output channels as input channels, or ``"small"``: either,
    of few channels.
    """
    rank = draw(st.sampled_from(dims))
    per_axis = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * rank))  # noqa: E731
    ones = draw(st.booleans()) if pointwise is None else pointwise
    kernel = (1,) * rank if ones else per_axis(1, LARGEST_KERNEL[rank])
    if pointwise is False and all(size == 1 for size in kernel):
        kernel = (2,) * rank
    groups, inputs, outputs = _channels(draw, rank, kind)
    transposed = bool(rank) and kind is None and draw(st.booleans())
    still = transposed and moved is False
    stride, dilation = (1,) * rank if still else per_axis(1, 3), per_axis(1, 2)
    padding: Any = (0,) * rank if still else per_axis(0, 2)
    mode, output_padding = "zeros", (0,) * rank
    if transposed and not still:
        # torch: output padding must be smaller than either stride or dilation.
        output_padding = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    elif rank and not transposed:
        padding = draw(st.sampled_from((padding, padding, "same", "valid")))
        mode = draw(st.sampled_from(("zeros", "reflect", "replicate", "circular")))
    geometry = Geometry(
        dims=rank,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=mode,
        transposed=transposed,
        output_padding=output_padding,
    )
    if rank:
        space = tuple(least_space(geometry, kernel, axis) + draw(st.integers(0, 3)) for axis in range(rank))
    else:
        space = draw(st.sampled_from(((), (3,), (2, 3))))
    return Case(
        geometry=geometry,
        batch=draw(st.sampled_from(batches)),
        experts=draw(st.integers(1, 4)),
        inputs=inputs,
        outputs=outputs,
        space=space,
        kernel=kernel,
        bias=draw(st.booleans()),
        layout=draw(st.sampled_from(layouts)),
        bank_layout=draw(st.sampled_from([name for name in LAYOUTS if name != "expanded"])),
        seed=draw(st.integers(0, 2**16)),
    )


# Channels that a kernel computes by sixteens or eights, in pairs of panels, and what is left over.
WIDE = (2, 7, 15, 16, 17, 33, 65)


def _channels(draw: st.DrawFn, rank: int, kind: str | None) -> tuple[int, int, int]:
    """Groups, input and output channels."""
    if kind == "small":
        groups = draw(st.sampled_from((1, 3))) if rank else 1
        return (3, 3, 3) if groups == 3 else (1, draw(st.integers(1, 5)), draw(st.integers(1, 18)))
    if kind == "dense":
        sizes = st.sampled_from((1, 2, 3, *WIDE))
        return 1, draw(sizes), draw(sizes)
    if kind == "depthwise":
        groups = draw(st.sampled_from(WIDE))
        return groups, groups, groups
    groups = draw(st.sampled_from((1, 1, 2, 3))) if rank else 1
    depthwise = groups > 1 and draw(st.booleans())
    inputs = groups if depthwise else groups * draw(st.integers(1, 3))
    return groups, inputs, groups * draw(st.integers(1, 3))


def least_space(geometry: Geometry, kernel: tuple[int, ...], axis: int) -> int:
    """The shortest input of one axis that gives an output and that every padding mode can pad."""
    reach = geometry.dilation[axis] * (kernel[axis] - 1)
    pad = reach if isinstance(geometry.padding, str) else geometry.padding[axis]
    length = pad + 1 if geometry.padding_mode == "reflect" else max(pad, 1)
    if geometry.padding_mode == "zeros":
        length = 1
    if geometry.padding == "valid":
        length = max(length, reach + 1)
    one_axis = lambda size: [size if index == axis else 50 for index in range(geometry.dims)]  # noqa: E731
    while output_space(one_axis(length), kernel, geometry)[axis] < 1:
        length += 1
    return length
