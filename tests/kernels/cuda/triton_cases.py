"""Calls on which the kernels of strategy ``triton`` are compared with the reference, interpreted or on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dynaconv.ops import Geometry, mix
from dynaconv.ops.reference import reference
from laws.layouts import lay_out
from tolerances import assert_close

BROKEN = "this Triton's interpreter cannot loop to a number that it is given with this numpy"
NAMES = ("x", "bank", "routing", "bias")


@dataclass(frozen=True)
class TritonCase:
    """Shapes and options of one call; ``needed`` names the inputs that want a gradient."""

    name: str
    inputs: int
    outputs: int
    space: tuple[int, ...]
    kernel: tuple[int, ...]
    batch: int = 2
    experts: int = 4
    layout: str = "contiguous"
    options: dict[str, Any] = field(default_factory=dict)
    needed: tuple[str, ...] = NAMES
    biased: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def geometry(self) -> Geometry:
        return Geometry(dims=len(self.kernel), **self.options)

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Leaves on the CPU with the seed of the test, of about unit size in the output."""
        groups = self.geometry.groups
        fan_in = self.inputs // groups * torch.Size(self.kernel).numel()
        x_shape = (self.inputs, *self.space) if self.kernel else (*self.space, self.inputs)
        kernel_shape = (self.outputs, self.inputs // groups, *self.kernel)
        made = {
            "x": torch.randn(self.batch, *x_shape),
            "bank": torch.randn(self.experts, *kernel_shape) / fan_in**0.5,
            "routing": torch.randn(self.batch, self.experts) / self.experts**0.5,
        }
        if self.biased:
            made["bias"] = torch.randn(self.experts, self.outputs)
        return {name: value.to(dtype) for name, value in made.items()}


def depthwise(channels: int) -> dict[str, Any]:
    return {"inputs": channels, "outputs": channels}


# More channels, positions and experts than a tile of 16 holds, and odd remainders of each; every layout and option.
QUICK = [
    TritonCase("1x1", 17, 35, (5, 4), (1, 1), batch=3),
    TritonCase("1x1-channels_last-one-example", 5, 7, (3, 6), (1, 1), batch=1, experts=8, layout="channels_last"),
    TritonCase("linear", 18, 5, (), (), batch=3, experts=3),
    TritonCase("3x3-stride-2", 5, 19, (7, 6), (3, 3), options={"stride": 2, "padding": 1}),
    TritonCase("3x3-dilated-channels_last", 3, 4, (6, 5), (3, 3), experts=1, layout="channels_last", biased=False,
              options={"padding": (2, 1), "dilation": (2, 1)}),
    TritonCase("depthwise-3x3-channels_last", **depthwise(5), space=(6, 7), kernel=(3, 3), batch=3,
              layout="channels_last", options={"groups": 5, "padding": 1}),
    TritonCase("depthwise-5x5-stride-2", **depthwise(3), space=(7, 6), kernel=(5, 5), experts=2,
              options={"groups": 3, "padding": 2, "stride": 2}),
]  # fmt: skip

THOROUGH = [
    TritonCase("1x1-stride-and-padding", 9, 18, (7, 5), (1, 1), options={"stride": (2, 3), "padding": 1}),
    TritonCase("1x1-one-channel", 1, 1, (4, 4), (1, 1), experts=1),
    TritonCase("1x1-strided-memory", 6, 5, (4, 3), (1, 1), layout="strided"),
    TritonCase("1x1-two-row-tiles", 4, 3, (13, 11), (1, 1), batch=1, layout="channels_last"),
    TritonCase("1x1-deep", 70, 3, (3, 3), (1, 1), experts=8, layout="channels_last"),
    TritonCase("1x1-32-experts", 19, 20, (2, 3), (1, 1), experts=32),
    TritonCase("linear-tokens", 9, 20, (3, 2), (), experts=8),
    TritonCase("1d", 4, 5, (9,), (3,), options={"stride": 2, "padding": 1}),
    TritonCase("1d-depthwise-dilated", **depthwise(4), space=(9,), kernel=(3,), options={"groups": 4, "dilation": 2}),
    TritonCase("2x4-even", 3, 5, (6, 7), (2, 4), experts=3, layout="transposed", options={"padding": (1, 0)}),
    TritonCase("3x3-stride-3-dilated", 3, 18, (9, 8), (3, 3), batch=3, layout="strided",
              options={"stride": (3, 2), "padding": 2, "dilation": 2}),
    TritonCase("5x5", 3, 4, (6, 7), (5, 5), experts=8, layout="channels_last", options={"padding": 2}),
    TritonCase("3x3-same-reflected", 3, 4, (5, 6), (3, 3), options={"padding": "same", "padding_mode": "reflect"}),
    TritonCase("depthwise-3x3-dilated", **depthwise(6), space=(8, 7), kernel=(3, 3), experts=1, layout="strided",
              biased=False, options={"groups": 6, "padding": 2, "dilation": 2}),
    TritonCase("depthwise-5x5-channels_last", **depthwise(70), space=(5, 6), kernel=(5, 5), experts=3,
              layout="channels_last", options={"groups": 70, "padding": 2, "stride": 2}),
    TritonCase("depthwise-2x3-expanded", **depthwise(2), space=(5, 6), kernel=(2, 3), layout="expanded",
              options={"groups": 2}),
    TritonCase("depthwise-two-row-tiles", **depthwise(2), space=(23, 24), kernel=(3, 3), batch=1,
              options={"groups": 2, "padding": 1}),
]  # fmt: skip

# What is not needed is not computed, and what is does not depend on the rest.
PARTLY = [
    replace(case, name=f"{case.name}-for-{'-'.join(needed)}", needed=needed)
    for case in (QUICK[2], QUICK[6])
    for needed in (("x",), ("bank",), ("routing",), ("bias",), ("bank", "routing"))
]


def check(case: TritonCase, dtype: torch.dtype, device: str) -> None:
    """The output and every gradient that is needed equal the reference's in float64, and no other appears."""
    made = case.tensors(dtype)
    leaves = {name: value.to(device).requires_grad_(name in case.needed) for name, value in made.items()}
    wide = {name: value.detach().double().requires_grad_(name in case.needed) for name, value in made.items()}
    wide_x = torch.cat([wide["x"][:1]] * case.batch) if case.layout == "expanded" else wide["x"]
    expected = reference(wide_x, wide["bank"], wide["routing"], wide.get("bias"), case.geometry)
    x = lay_out(leaves["x"], case.layout)
    y = mix(x, leaves["bank"], leaves["routing"], leaves.get("bias"), geometry=case.geometry, strategy="triton")
    assert y.dtype == dtype
    if case.layout == "channels_last":
        assert y.is_contiguous(memory_format=torch.channels_last)
    assert_near(y, expected, dtype, "output")
    upstream = torch.randn_like(expected)
    y.backward(upstream.to(device, dtype))
    expected.backward(upstream.to(dtype).double())
    for name, leaf in leaves.items():
        if name not in case.needed:
            assert leaf.grad is None
            continue
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        assert_near(leaf.grad, wide[name].grad, dtype, f"gradient of {name}")


def assert_near(actual: Tensor, expected: Tensor | None, dtype: torch.dtype, what: str) -> None:
    assert expected is not None
    # A sum of many rounded terms of about unit size: its error grows with the largest sum, not with itself.
    scale = max(1.0, expected.abs().max().item())
    assert_close(actual.cpu(), expected, dtype=dtype, scale=scale, what=what)
