"""Devices by the words that people type; turns and their ratios are tested with the benchmarks."""

from __future__ import annotations

import pytest
import torch

from dynaconv.timing import device_name, find_device, processor_name, synchronize


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gpu", "expected auto, cpu, cuda, cuda:1"),
        ("cpu:0", "expected auto, cpu, cuda, cuda:1"),
        ("cuda:one", "expected auto, cpu, cuda, cuda:1"),
        ("cuda", "no CUDA device here; choose cpu or auto"),
        ("cuda:1", "no CUDA device here; choose cpu or auto"),
        ("mps", "no Apple GPU here"),
    ],
)
def test_devices_that_are_not_here(word: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        find_device(word)


def test_devices_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="the last GPU here is cuda:1"):
        find_device("cuda:2")


def test_the_processor_has_a_name() -> None:
    assert device_name("cpu") == processor_name()
    synchronize("cpu")
