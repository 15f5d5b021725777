"""The data of ``dynaconv list``, kept in ``networks.csv`` so that listing does not build the networks.

A test counts the networks and compares. After a change of a network write the file again:
``python -m dynaconv.papers.catalogue``.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network.

    Attributes:
        name: in timm's registry.
        parameters, madds: counted; the MAdds are plain ones at the network's own input size.
        top1: published top-1 accuracy in percent on ImageNet, as text; empty where there is none.
        row: where the paper describes the network.
        remark: what else should be known about the figures.
    """

    name: str
    parameters: int
    madds: int
    top1: str
    row: str
    remark: str


def read_catalogue() -> list[Entry]:
    """Every network, as ``networks.csv`` has it. Needs neither torch nor timm."""
    text = (resources.files("dynaconv.papers") / "networks.csv").read_text(encoding="utf-8")
    return [
        Entry(
            name=line["name"],
            parameters=int(line["parameters"]),
            madds=int(line["madds"]),
            top1=line["top1"],
            row=line["row"],
            remark=line["remark"],
        )
        for line in csv.DictReader(text.splitlines())
    ]


def count_catalogue(names: Collection[str] | None = None) -> list[Entry]:
    """The same, counted from the networks.

    Args:
        names: of the networks to count; all by default.
    """
    from dynaconv.models import ZOO
    from dynaconv.models.builder import OTHERS
    from dynaconv.papers.networks import TableNetwork, count, network

    entries = []
    for name, spec in ZOO.items():
        if names is None or name in names:
            report = count(network(name))
            entries.append(
                Entry(
                    name=name,
                    parameters=report.parameters.total,
                    madds=round(report.total),
                    top1="" if spec.top1 is None else str(spec.top1),
                    row=spec.row,
                    remark=spec.remark,
                )
            )
    for name, other in OTHERS.items():
        if names is None or name in names:
            report = count(TableNetwork(name, (), other.input_size))
            figures = {"parameters": report.parameters.total, "madds": round(report.total)}
            entries.append(Entry(name=name, **figures, top1="", row=other.row, remark=other.remark))
    return entries


def write_catalogue(path: Path) -> None:
    """Count every network and write the file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in count_catalogue())


if __name__ == "__main__":
    write_catalogue(Path(__file__).with_name("networks.csv"))
