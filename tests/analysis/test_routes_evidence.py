"""docs/inspect.md shows what the raw figures of the inspections say, and every figure is recomputed here by hand."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from dynaconv.analysis.routes.evidence import ARMS, keep, kept, part, read, rewritten
from dynaconv.errors import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "inspect.md"
RAW = PAGE.parent / "evidence" / "interventions.json"


def rows_of(name: str) -> list[list[str]]:
    """The cells of the table between the markers of that name, without its head."""
    found = re.search(f"<!-- begin {name} -->\n(.*?)\n<!-- end {name} -->", PAGE.read_text(), flags=re.DOTALL)
    assert found, f"docs/inspect.md has no part {name}"
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in found[1].splitlines()[2:]]


def told(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def test_the_page_is_that_of_its_raw_figures() -> None:
    page = PAGE.read_text()
    assert rewritten(page, read(RAW)["runs"]) == page
    assert page.count("<!-- begin ") == page.count("<!-- end ") == 6
    assert RAW.stat().st_size < 200_000


def test_table_3_by_hand() -> None:
    runs = json.loads(RAW.read_text())["runs"]
    paper = {"attention": "69.4 88.6", "average": "36.0 61.5", "max": "0.1 0.5"}
    paper |= {"shuffle per image": "14.8 30.5", "shuffle across images": "27.3 48.4"}
    rows = rows_of("kernels")
    assert len(rows) == 5
    for place, row in enumerate(rows):
        assert row[1:3] == paper[row[0].split(":")[0]].split()
        expected = [
            told([100 * run["kernels"][place][metric] for run in runs[arm].values()], 1)
            for arm in sorted(runs)
            for metric in ("top1", "top5")
        ]
        assert row[3:] == expected


@pytest.mark.parametrize("arm", ARMS)
def test_table_4_by_hand(arm: str) -> None:
    runs = json.loads(RAW.read_text())["runs"][arm].values()
    rows = rows_of(f"resolutions {arm}")
    assert rows
    for place, row in enumerate(rows):
        ways = []
        for run in runs:
            kernels = {kernel["how"]: kernel["top1"] for kernel in run["kernels"]}
            top1 = run["by_resolution"][place]["top1"]
            ways.append(100 * (top1 - kernels["average"]) / (kernels["none"] - kernels["average"]))
            assert row[: len(run["resolutions"])] == [
                "on" if on else "-" for on in run["by_resolution"][place]["enabled"]
            ]
        top1, top5 = ([100 * run["by_resolution"][place][metric] for run in runs] for metric in ("top1", "top5"))
        assert row[-3:] == [told(top1, 1), told(top5, 1), f"{statistics.fmean(ways):.0f}"]


@pytest.mark.parametrize("arm", ARMS)
def test_routers_by_hand(arm: str) -> None:
    runs = list(json.loads(RAW.read_text())["runs"][arm].values())
    rows = rows_of(f"routers {arm}")
    assert len(rows) == len(runs[0]["routers"])
    for place, row in enumerate(rows):
        routers = [run["routers"][place] for run in runs]
        assert row[0] == f"`{routers[0]['name']}`"
        assert row[2] == told([router["entropy"] for router in routers], 2)
        assert row[3] == told([100 * router["class_share"] for router in routers if not router["constant"]], 0)
        ends = [100 * statistics.fmean(router[end] for router in routers) for end in ("near_0", "near_1")]
        assert row[4] == f"{ends[0]:.0f} / {ends[1]:.0f}"
        assert row[5] == told([router["largest_cosine"] for router in routers], 2)
        constant, twins = ([int(router[name]) for router in routers] for name in ("constant", "twins"))
        dead = [len(router["dead"]) for router in routers]
        assert row[6:] == [", ".join(map(str, many)) if any(many) else "0" for many in (constant, dead, twins)]


def test_the_raw_runs_are_those_of_the_study() -> None:
    """The accuracy of an inspected network is that of the evidence's run of the same arm and seed, but for rounding."""
    study = PAGE.parent / "evidence" / "evidence.json"
    results = json.loads(study.read_text())["results"] if study.is_file() else {}
    for arm, runs in json.loads(RAW.read_text())["runs"].items():
        for seed, run in runs.items():
            assert run["images"] == 10_000
            if seed in results.get(arm, {}):
                assert 100 * run["top1"] == pytest.approx(results[arm][seed]["top1"], abs=0.05)


def inspection(**changes: Any) -> dict[str, Any]:
    router = {
        **{"name": "layer", "router": "softmax", "experts": 2, "resolution": [8, 8], "entropy": 0.5, "dead": [1]},
        **{"constant": False},
        **{"entropy_deviation": 0.1, "class_share": 0.25, "twins": {"layer": [[0, 1]]}},
        **{"similarity": {"layer": [[1.0, 0.96], [0.96, 1.0]]}, "histogram": [4, *[1] * 48, 48]},
    }
    kernels = [{"how": how, "top1": top1, "top5": 0.9} for how, top1 in zip("abc", (0.7, 0.5, 0.1), strict=True)]
    return {
        **{"network": "x", "images": 10, "top1": 0.7, "top5": 0.9, "routers": [router]},
        "interventions": {"kernels": kernels, "resolutions": [[8, 8]], "by_resolution": []},
        **changes,
    }


def test_what_is_kept_of_an_inspection(tmp_path: Path) -> None:
    few = kept(inspection())
    (router,) = few["routers"]
    assert (router["twins"], router["largest_cosine"], router["dead"]) == (1, 0.96, [1])
    assert (router["near_0"], router["near_1"]) == (0.08, 0.52)  # of 100 weights: 4 + 4 ones, 4 ones + 48
    (tmp_path / "inspect.json").write_text(json.dumps(inspection()))
    for seed in (1, 0):
        keep(tmp_path / "raw.json", "dynamic", seed, tmp_path / "inspect.json")
    assert read(tmp_path / "raw.json")["runs"] == {"dynamic": {"0": few, "1": few}}
    with pytest.raises(UserError, match="--intervene"):
        kept(inspection(interventions=None))
    with pytest.raises(UserError, match="holds no inspections"):
        read(tmp_path / "inspect.json")
    with pytest.raises(UserError, match="part 'kernel'"):
        part("kernel", {})
