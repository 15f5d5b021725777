"""Routers, sums and reduced banks, each against what torch computes in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dynaconv.kernels import cpu
from dynaconv.kernels.cpu import inference
from tolerances import assert_close

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"no kernels of our own here: {cpu.why_not()}")

CHANNELS = pytest.mark.parametrize("channels", [1, 16, 19, 64, 150])


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@CHANNELS
def test_channel_sums(channels: int, threads: int) -> None:
    x = torch.randn(2, channels, 9, 11).to(memory_format=torch.channels_last)
    assert_close(inference.channel_sums(x), x.double().sum((2, 3)), dtype=torch.float32, scale=10)


def test_sums_over_many_pixels_keep_their_digits() -> None:
    x = torch.rand(1, 16, 300, 300).to(memory_format=torch.channels_last)
    assert_close(inference.channel_sums(x), x.double().sum((2, 3)), dtype=torch.float32)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("width", [0, 5])
@pytest.mark.parametrize("bias", [False, True])
def test_route(softmax: bool, width: int, bias: bool) -> None:
    layer = lambda inputs, outputs: (torch.randn(outputs, inputs), torch.randn(outputs) if bias else None)  # noqa: E731
    sums, hidden, last = torch.randn(3, 37), layer(37, width) if width else None, layer(width or 37, 8)
    router = inference.LinearRouter(*(hidden or (None, None)), *last, softmax)
    actual = inference.route(sums, 7, router)
    features = sums.double() / 7
    if hidden is not None:
        features = torch.relu(features @ hidden[0].double().t() + (hidden[1] if bias else 0))
    logits = features @ last[0].double().t() + (last[1] if bias else 0)
    assert_close(actual, logits.softmax(1) if softmax else logits.sigmoid(), dtype=torch.float32)


@pytest.mark.parametrize("experts", [1, 3, 4, 8, 9])
@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8 by column", "int8 by row"])
def test_mix(form: str, experts: int, threads: int) -> None:
    bank, scale, routing = torch.randn(experts, 70, 45), None, torch.rand(2, experts)
    if form == "bfloat16":
        bank = bank.bfloat16()
    if form.startswith("int8"):
        bank = (30 * bank).to(torch.int8)
        scale = torch.rand(experts, 1, 45) if form.endswith("column") else torch.rand(experts, 70, 1)
    wide = bank.double() if scale is None else bank.double() * scale
    assert_close(
        inference.mix(bank, scale, routing),
        torch.einsum("bk,krc->brc", routing.double(), wide),
        dtype=torch.float32,
        scale=30,
    )
