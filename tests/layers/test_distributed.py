"""``DistributedDataParallel`` over two gloo processes: the gradients of one process with the whole batch."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from layers.networks import Small
from tolerances import assert_close


def network() -> nn.Module:
    torch.manual_seed(3)
    return Small()


def batch() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(4))


def work(rank: int, rendezvous: str, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    try:
        model = DistributedDataParallel(network())
        for _ in range(2):  # the second pass shows that the first left nothing unfinished
            model.zero_grad()
            model(batch()[2 * rank : 2 * rank + 2]).square().mean().backward()
        if rank == 0:
            torch.save({name: value.grad for name, value in model.module.named_parameters()}, path)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / "gradients.pt"
    processes.spawn(work, args=(f"tcp://127.0.0.1:{port}", str(path)), nprocs=2)
    model = network()
    model(batch()).square().mean().backward()
    found = torch.load(path, weights_only=True)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, value in model.named_parameters():
        assert_close(found[name], value.grad, what=name)
