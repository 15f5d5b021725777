"""The kept counts are those of the networks, and reading them is quick."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dynaconv.models import ZOO
from dynaconv.models.builder import OTHERS
from dynaconv.papers import catalogue
from dynaconv.papers.catalogue import count_catalogue, read_catalogue

FEW = ("condconv_mobilenetv1_025", "dy_mobilenetv3_small", "dy_resnet10", "ssd300_mobilenetv1_050")


def test_every_network_is_there_in_order() -> None:
    kept = read_catalogue()
    assert [entry.name for entry in kept] == [*ZOO, *OTHERS]
    for entry in kept:
        spec = ZOO.get(entry.name) or OTHERS[entry.name]
        assert (entry.top1, entry.row, entry.remark) == (str(getattr(spec, "top1", "") or ""), spec.row, spec.remark)


def test_some_counts_are_the_networks() -> None:
    assert count_catalogue(FEW) == [entry for entry in read_catalogue() if entry.name in FEW]


@pytest.mark.slow
def test_all_counts_are_the_networks(tmp_path: Path) -> None:
    catalogue.write_catalogue(tmp_path / "networks.csv")
    kept = Path(catalogue.__file__).with_name("networks.csv")
    assert (tmp_path / "networks.csv").read_text() == kept.read_text()


def test_reading_needs_neither_torch_nor_timm() -> None:
    code = (
        "import sys; from dynaconv.papers.catalogue import read_catalogue; assert read_catalogue(); "
        "print(sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
