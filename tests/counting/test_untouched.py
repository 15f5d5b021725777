"""Counting takes no memory and leaves the model as it was."""

from __future__ import annotations

import copy
import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from counting.networks import PlainDynamic, PlainRouter
from dynaconv.counting import cost


def everything(model: nn.Module) -> list[Any]:
    """What counting could have changed."""
    return [
        [
            (name, id(t), t.device, t.requires_grad, t.grad, t._version)
            for name, t in model.state_dict(keep_vars=True).items()
        ],
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m))) for m in model.modules()],
    ]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        PlainDynamic(PlainRouter(8, 4), 8, 8, 3, 3),
        nn.Flatten(),
        nn.Linear(8 * 49, 3),
    )


@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes(training: bool) -> None:
    model = network().train(training)
    model[1].eval()
    before, values = everything(model), copy.deepcopy(model.state_dict())
    cost(model, (3, 7, 7))
    assert everything(model) == before
    assert all(torch.equal(model.state_dict()[name], value) for name, value in values.items())
    assert torch.is_grad_enabled()
    assert not torch.nn.modules.module._global_forward_hooks


def test_a_model_of_a_size_that_no_memory_holds() -> None:
    with torch.device("meta"):
        model = nn.Linear(2**20, 2**20)
    assert cost(model, (2**20,)).total == 2**40
    assert model.weight.is_meta


def test_where_the_model_stands_does_not_matter() -> None:
    real = network()
    with torch.device("meta"):
        meta = network()
    mixed = copy.deepcopy(real)
    mixed[0].to("meta")
    mixed[4].to(torch.float64).to("meta")
    assert cost(real, (3, 7, 7)) == cost(meta, (3, 7, 7))
    assert cost(nn.Sequential(*mixed[:3]), (3, 7, 7)).total == cost(nn.Sequential(*real[:3]), (3, 7, 7)).total


def test_evaluation_whatever_the_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))  # in training, batch norm refuses a batch of one
    assert cost(model.train(), (4,)) == cost(model.eval(), (4,))


def test_contexts_of_the_caller_do_not_matter() -> None:
    model, expected = network(), cost(network(), (3, 7, 7))
    with torch.inference_mode():
        assert cost(model, (3, 7, 7)) == expected
    with torch.device("meta"):
        assert cost(model, (3, 7, 7)) == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cost(model, (3, 7, 7)).total == expected.total


def test_two_threads_at_once() -> None:
    model, reports = network(), {}

    def count(size: int) -> None:
        reports[size] = [cost(model[:3], (3, size, size)) for _ in range(3)]

    threads = [threading.Thread(target=count, args=(size,)) for size in (5, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for size in (5, 9):
        assert reports[size] == [cost(model[:3], (3, size, size))] * 3


def test_tensors_that_are_no_parameters_come_along() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = torch.randn(4, 3)
            self.listed = [torch.randn(3, 2)]
            self.loose = [nn.Parameter(torch.randn(2, 2))]
            self.flag = torch.tensor(True)

        def forward(self, x: Tensor) -> Tensor:
            y = x @ self.plain @ self.listed[0] @ self.loose[0]
            return y if self.flag else y @ y.mT

    model = Hidden()
    assert cost(model, (5, 4)).total == 5 * (12 + 6 + 4)
    assert type(model.plain) is Tensor
    assert model.flag.item() is True


def test_tensors_made_in_the_forward_pass() -> None:
    class Makes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scale = torch.tensor(2.0)
            return (x @ torch.eye(4)) * scale.item() + torch.arange(4.0)

    assert cost(Makes(), (3, 4)).total == 48


def test_weight_norm_and_spectral_norm() -> None:
    """Weights that are computed in every pass: copied although they are no leaves; their own products count."""
    model = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    assert cost(model, (4,)).total == 12
    assert cost(model, (4,)).parameters.total == 3 + 3 + 12
    model = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    assert cost(model, (4,)).total == 12 + 3 + 12  # u (W v), and the layer itself


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # PyTorch 2.11's own compiler
def test_wrappers_are_looked_through() -> None:
    model = nn.Linear(4, 3)
    assert cost(torch.compile(model), (4,)) == cost(model, (4,))
    assert cost(nn.DataParallel(model), (4,)).total == 12
    in_place = nn.Linear(4, 3)
    in_place.compile()
    assert cost(in_place, (4,)).total == 12


def test_shared_parameters_are_stored_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    report = cost(model, (4,))
    assert (report.parameters.total, report.total) == (16, 32)
    assert [row.parameters for row in report.layers] == [16, 0]


def test_what_cannot_be_counted_says_so() -> None:
    with pytest.raises(TypeError, match=r"model is function: expected a torch\.nn\.Module"):
        cost(cost, (4,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: lazy modules are new, TorchScript is deprecated
        lazy, scripted = nn.LazyLinear(3), torch.jit.script(nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"parameter 0\.weight has no shape yet"):
        cost(nn.Sequential(lazy), (4,))
    with pytest.raises(TypeError, match="1 is scripted"):
        cost(nn.Sequential(nn.ReLU(), scripted), (4,))


def test_a_model_that_cannot_be_copied() -> None:
    model = nn.Linear(4, 3)
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"Linear cannot be copied.*lock"):
        cost(model, (4,))
