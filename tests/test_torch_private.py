"""torch's private names: all there on this torch, named in one file, and told rightly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from dynaconv import torch_private
from dynaconv.torch_private import (
    FakeTensorMode,
    TorchDispatchMode,
    as_no_view,
    checkpointed_part,
    copy_each_,
    forward_ad_active,
    in_reentrant_checkpoint,
    is_exporting,
    is_watched,
    is_wrapped,
)

SOURCES = Path(torch_private.__file__).parent
PRIVATE = re.compile(r"\btorch(?:\.\w+)*\._(?!_)\w+")


def test_no_name_is_missing_here() -> None:
    assert torch_private.MISSING == [], f"torch {torch.__version__} lacks them; the fall-backs are in use"


def test_private_names_stand_in_one_file() -> None:
    found = [
        f"{path.relative_to(SOURCES)}: {name}"
        for path in sorted(SOURCES.rglob("*.py"))
        if path.name != "torch_private.py"
        for name in PRIVATE.findall(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_nothing_watches_by_default() -> None:
    assert (is_watched(), forward_ad_active(), is_exporting()) == (False, False, False)


def test_modes_and_transforms_watch() -> None:
    seen = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(is_watched())
        return x.sum()

    with FakeTensorMode():
        function(torch.zeros(2))
    torch.vmap(function)(torch.zeros(2, 2))
    torch.func.grad(function)(torch.zeros(2))
    assert seen == [True] * 3
    assert not is_watched()


def test_a_mode_that_only_looks_at_tensors_watches_nothing() -> None:
    class Looks(TorchDispatchMode):
        sees_operators = True

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    with Looks():
        assert not is_watched()
        with FakeTensorMode():
            assert is_watched()


def test_a_default_device_watches_nothing() -> None:
    with torch.device("cpu"):
        assert not is_watched()
        with TorchFunctionMode():
            assert is_watched()


def test_batched_gradients_are_wrapped() -> None:
    seen = []

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(x: torch.Tensor) -> torch.Tensor:
            return x * x

        @staticmethod
        def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: torch.Tensor) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
            seen.append(is_wrapped(gradient))
            return 2 * ctx.saved_tensors[0] * gradient

    x = torch.ones(3, requires_grad=True)
    torch.autograd.grad(Square.apply(x), x, torch.eye(3), is_grads_batched=True)
    torch.autograd.grad(Square.apply(x), x, torch.ones(3))
    assert seen == [True, False]


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # torch scripts its forward rules at first use
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_forward_mode_is_seen_inside_its_level_alone() -> None:
    with forward_ad.dual_level():
        assert forward_ad_active()
    assert not forward_ad_active()
    seen = []
    torch.func.jvp(lambda x: (seen.append(forward_ad_active()), x * 2)[1], (torch.ones(1),), (torch.ones(1),))
    assert seen == [True]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on some Pythons
def test_export_is_told_from_compile() -> None:
    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if is_exporting() else x - 1

    x = torch.zeros(2)
    assert torch.export.export(Module(), (x,)).module()(x).tolist() == [1, 1]
    assert torch.compile(Module(), backend="eager")(x).tolist() == [-1, -1]


@pytest.mark.parametrize("quick", [True, False])
def test_copies_go_where_they_belong(quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not quick:
        monkeypatch.setattr(torch_private, "_foreach_copy_", None)
    targets, sources = [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.full((3,), 2.0)]
    copy_each_(targets, sources)
    assert [target.tolist() for target in targets] == [[1, 1], [2, 2, 2]]


@pytest.mark.parametrize("gone", [False, True])
def test_a_view_becomes_a_tensor_that_is_none(gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if gone:
        monkeypatch.setattr(torch_private, "_unsafe_view", lambda tensor, size: tensor.clone())
    view = torch.randn(2, 4, 5, 3).permute(0, 3, 1, 2)
    found = as_no_view(view)
    assert torch.equal(found, view)
    assert found.stride() == view.stride()
    assert (found.data_ptr() == view.data_ptr()) is not gone
    assert (view._is_view(), found._is_view()) == (True, False)


def test_a_missing_name_makes_torch_run_its_own_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_private, "MISSING", [])
    gone = torch_private._find("torch._C._no_such_name", torch_private._unknown)
    assert torch_private.MISSING == ["torch._C._no_such_name"]
    monkeypatch.setattr(torch_private, "_dispatch_modes", gone)
    assert is_watched()


def test_a_checkpointed_part_is_the_same_when_it_is_run_again() -> None:
    seen = []

    def part(x: torch.Tensor) -> torch.Tensor:
        seen.append(checkpointed_part())
        return x.sin().exp()

    x = torch.ones(2, requires_grad=True)
    outputs = [checkpoint(part, x, use_reentrant=False) for _ in range(2)]
    assert None not in seen
    assert seen[0] is not seen[1]
    outputs[0].sum().backward()
    assert seen[2] is seen[0]
    assert checkpointed_part() is None
    with torch.autograd.graph.save_on_cpu():
        assert checkpointed_part() is None


def test_a_reentrant_checkpoint_is_seen_in_its_first_forward_pass_alone() -> None:
    seen = []

    def part(x: torch.Tensor) -> torch.Tensor:
        seen.append((in_reentrant_checkpoint(), checkpointed_part()))
        return x.sin()

    x = torch.ones(2, requires_grad=True)
    checkpoint(part, x, use_reentrant=True).sum().backward()
    checkpoint(part, x, use_reentrant=False).sum()
    assert seen[:2] == [(True, None), (False, None)]
    assert not seen[2][0]
