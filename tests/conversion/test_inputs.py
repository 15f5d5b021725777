"""Networks that take more than one tensor, and blocks whose first argument is not the feature map."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dynaconv
from dynaconv.routing import ScopedRouter
from tolerances import assert_close


class Block(nn.Module):
    """Takes a time beside the feature map, as the blocks of a diffusion model do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.time = nn.Linear(5, 8)

    def forward(self, time: Tensor, sample: Tensor | None = None, scale: float = 1.0) -> Tensor:
        assert sample is not None
        return sample + scale * self.second(self.first(sample).relu() + self.time(time)[:, :, None, None])


class Tokens(nn.Module):
    """Convolutions and linear layers over tokens ``(batch, tokens, features)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.time = nn.Conv2d(3, 8, 1), nn.Linear(1, 5)
        self.by_position, self.by_keyword, self.tokens = Block(), Block(), Tokens()

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        time = self.time(timestep[:, None].to(sample.dtype))
        x = self.by_position(time, self.stem(sample))
        x = self.by_keyword(scale=0.5, time=time, sample=x)
        return self.tokens(x.flatten(2).mT)


BLOCKS = ("by_position", "by_keyword")


def given(batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, 6, 6), torch.arange(batch)


@pytest.mark.parametrize(
    "inputs", [given(), tuple(x.to("meta") for x in given()), dict(zip(("sample", "timestep"), given(), strict=True))]
)
def test_a_shared_router_reads_the_feature_map_wherever_it_stands(inputs: object) -> None:
    network = Network().eval()
    twin = dynaconv.dynamize(network, method="condconv", experts=3, noise=0.0, inputs=inputs)
    routers = {layer.name: layer.router for layer in twin.dynamize_report.replaced}
    assert routers == {f"{block}.{layer}": block for block in BLOCKS for layer in ("first", "second")}
    assert isinstance(twin.by_keyword.second.router, ScopedRouter)
    assert twin.by_keyword.router.in_channels == 8
    sample, time = given()
    assert_close(twin(sample, time), network(sample, time), scale=10.0)
    seen = []
    twin.by_keyword.router.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    twin(sample, timestep=time).sum().backward()
    assert seen == [(2, 8, 6, 6)]
    assert twin.by_position.router.fc.weight.grad is not None


def test_without_them_the_refusal_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"inputs=\(\.\.\.\) for a model that takes more than one tensor"):
        dynaconv.dynamize(Network(), share="block")
    with pytest.raises(ValueError, match=r"does not run on the inputs given: TypeError: .*timestep"):
        dynaconv.dynamize(Network(), share="block", inputs=torch.zeros(2, 3, 6, 6))


def test_tokens_are_no_feature_map() -> None:
    """(batch, tokens, features): a router that took the tokens for channels would fit one length alone."""
    twin = dynaconv.dynamize(Network(), share="block", include=nn.Linear, inputs=given())
    rows = {layer.name: layer for layer in twin.dynamize_report}
    assert rows["tokens.first"].router == "tokens.first"
    assert "have shapes (2, 36, 8)" in rows["tokens.first"].reason
    twin(torch.randn(2, 3, 5, 7), torch.arange(2))


def test_a_block_that_is_called_otherwise_later_says_so() -> None:
    twin = dynaconv.dynamize(Network(), method="condconv", inputs=given())
    with pytest.raises(TypeError, match=r"'by_keyword' shares one router and got NoneType as its input"):
        twin.by_keyword(torch.randn(2, 5), torch.randn(2, 8, 6, 6))


def test_a_network_of_two_inputs_is_saved_and_loaded(tmp_path: Path) -> None:
    twin = dynaconv.dynamize(Network(), method="condconv", experts=3, inputs=given()).eval()
    dynaconv.save(twin, tmp_path / "twin.safetensors", factory=Network)
    loaded = dynaconv.load(tmp_path / "twin.safetensors", factory=Network)
    sample, time = given()
    assert torch.equal(loaded(sample, time), twin(sample, time))
