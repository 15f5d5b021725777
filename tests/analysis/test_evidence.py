"""The page of evidence says what the raw results beside it say, and the answer claims no more than they allow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dynaconv.analysis.evidence import answer, part, progress, read_studies, rewritten, study_of
from dynaconv.analysis.studies import STUDIES
from dynaconv.analysis.study_result import Ablation, summarise_study
from dynaconv.errors import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evidence.md"
RAW = [path for path in sorted(PAGE.with_suffix("").glob("*.json")) if study_of(path.stem)]
MOST_BYTES = 2_000_000


def test_the_page_is_that_of_its_raw_results() -> None:
    """Every part between markers, made anew from docs/evidence/*.json, is what stands there."""
    page = PAGE.read_text()
    assert rewritten(page, read_studies(PAGE.with_suffix(""))) == page
    assert page.count("<!-- begin ") == page.count("<!-- end ") >= 5


@pytest.mark.parametrize("path", RAW, ids=lambda path: path.stem)
def test_tables_by_hand(path: Path) -> None:
    """Means and intervals from the raw file by numpy and scipy, without the code that made the page."""
    raw, page, study = json.loads(path.read_text()), PAGE.read_text(), study_of(path.stem)
    assert path.stat().st_size < MOST_BYTES
    assert study is not None
    assert raw["study"] == study.name
    table = page.partition(f"<!-- begin {path.stem} table -->")[2].partition("<!-- end")[0].splitlines()
    for arm in study.arms:
        runs = raw["results"].get(arm.slug, {})
        line = next(line for line in table if line.startswith(f"| {arm.label} |"))
        cells = [cell.strip() for cell in line.split("|")][1:-1]
        assert cells[6] == str(len(runs))
        if not runs:
            assert cells[5] == "not run yet"
            continue
        seeds = sorted(runs, key=int)
        top1 = np.array([runs[seed]["top1"] for seed in seeds])
        for seed in seeds:
            packed = np.frombuffer(bytes.fromhex(runs[seed]["correct"]), dtype=np.uint8)
            bits = np.unpackbits(packed, count=runs[seed]["test_images"])
            assert 100 * bits.mean() == pytest.approx(runs[seed]["top1"])
        assert cells[5].startswith(f"{top1.mean():.2f}")
        common = [seed for seed in seeds if seed in raw["results"].get(arm.against, {})]
        if len(common) >= 2:
            ours, theirs = ([raw["results"][slug][seed]["top1"] for seed in common] for slug in (arm.slug, arm.against))
            interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
            pairs = "" if len(common) == len(seeds) else f" {len(common)} pairs"
            told = f"{np.mean(ours) - np.mean(theirs):+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]{pairs}"
            assert cells[9] == told


def content(**right: list[int]) -> dict[str, Any]:
    """Raw results of the main study, with the first so many of 1,000 test images classified rightly, by seed."""
    results = {
        slug.replace("_", "-"): {
            str(seed): {
                **{"method": "x", "experts": None, "seed": seed, "top1": count / 10, "curve": [[1, count / 10]]},
                **{"train_loss": [1.0], "seconds_per_image": 1e-3, "dropped_steps": 0, "temperature": None},
                **{"routing_entropy": None, "test_images": 1000},
                "correct": np.packbits([1] * count + [0] * (1000 - count)).tobytes().hex(),
            }
            for seed, count in enumerate(counts)
        }
        for slug, counts in right.items()
    }
    facts = {
        **{"epochs": 30, "batch_size": 128, "opt": "adamw", "lr": 0.003, "sched": "cosine", "weight_decay": 0.05},
        **{"image_size": 32, "train_images": None, "images of train/cat": "50 images, digest x"},
    }
    arms = {slug: {"parameters": n, "madds": 1e6 * m} for slug, n, m in (("static", 100, 1.0), ("dynamic", 400, 1.1))}
    return {"format": 1, "study": "evidence", "facts": facts, "arms": arms, "measured": {}, "results": results}


def study(**right: list[int]) -> dict[str, Ablation]:
    return {"evidence": summarise_study(STUDIES["evidence"], content(**right))}


def test_the_answer_without_results_is_that_nothing_is_known() -> None:
    assert answer({}) == ["Nothing is known yet: no run is done."]
    helps, others, costs = answer(study())
    assert helps == "**When it helps:** No gain is shown."
    assert "whether dynamic K=4 is better than the static network of the same width is not known yet" in others
    assert "wider static network that classifies a batch as quickly as dynamic K=4 is not known yet" in others
    assert "dynamic K=4 has 4.0 times the static network's parameters and 1.10 times its multiply-adds" in costs
    assert "the cost of CondConv K=8 is not known yet" in costs


def test_one_pair_of_runs_is_not_known_either() -> None:
    helps, others, _ = answer(study(static=[700], dynamic=[900]))
    assert "No gain is shown" in helps
    assert "better than the static network of the same width is not known yet (one pair of runs done)" in others


def test_the_answer_says_better_worse_and_not_shown() -> None:
    helps, others, _ = answer(
        study(
            static=[700, 701, 702], dynamic=[720, 722, 721], condconv=[690, 712, 702], wide_throughput=[740, 741, 743]
        )
    )
    assert "dynamic K=4 is better than the static network of the same width (+2.00 points, 95 % interval" in helps
    assert "no difference between CondConv K=8 and the static network of the same width is shown" in others
    wider = "a wider static network that classifies a batch as quickly as dynamic K=4"
    assert f"dynamic K=4 is worse than {wider} (-2.03 points" in others
    assert "dynamic K=4 and CondConv K=8 is shown" in others


def test_a_control_that_is_another_one_again_is_one_finding() -> None:
    """The networks of one throughput and of as many parameters may be one network, whose runs are not two findings."""
    right = {"static": [700, 701], "dynamic": [720, 721], "wide_throughput": [740, 743]}
    once, twice = study(**right), study(**right, wide_parameters=[740, 743])
    _, others, _ = answer(twice)
    assert others.count("dynamic K=4 is worse") == 1
    assert "as quickly as dynamic K=4 (here the one with as many parameters is the same)" in others
    assert "is the same)" not in answer(once)[1]
    assert "here this is the same network as static, dynamic's throughput" in part("evidence table", twice)
    told = [re.search(r"(\d) of (\d) intervals", progress(found["evidence"])) for found in (once, twice)]
    assert [match and match[2] for match in told] == ["8", "6"]


def test_pairs_are_counted_where_an_arm_has_more_runs() -> None:
    table = part("evidence table", study(static=[700, 701], dynamic=[720, 721, 725]))
    line = next(line for line in table.splitlines() if line.startswith("| dynamic K=4 |"))
    assert "2 pairs |" in line
    assert "pairs |" not in part("evidence table", study(static=[700, 701, 700], dynamic=[720, 721]))


def test_the_intervals_of_the_page_are_counted() -> None:
    studies = study(static=[700, 701], dynamic=[720, 721], condconv=[700])
    assert part("intervals", studies).startswith("Intervals on this page: 1.")


def test_results_without_a_place_on_the_page_are_said() -> None:
    with pytest.raises(
        UserError, match="no place for the results of evidence: add the lines '<!-- begin evidence table"
    ):
        rewritten("# A page\n", study(static=[700]))


def test_the_answer_names_each_place() -> None:
    here = study(static=[700, 701], dynamic=[720, 721])["evidence"]
    wide = summarise_study(STUDIES["wide"], {**content(static=[700, 701], dynamic=[650, 652]), "study": "wide"})
    thin = replace(here, facts={**here.facts, "network": "mobilenetv2_035", "image_size": 64})
    helps, others, _ = answer(
        {"evidence": here, "evidence-imagenette": here, "evidence-mobilenetv2": thin, "wide": wide}
    )
    assert "On CIFAR-10 at 32 pixels with a ResNet of 1.00 M multiply-adds, 30 epochs and equal recipes" in helps
    assert "On Imagenette at 32 pixels with a ResNet of" in helps
    assert "On Imagenette at 64 pixels with mobilenetv2_035 of 1.00 M multiply-adds" in helps
    assert "On 5,000 images of CIFAR-10 at 32 pixels" not in helps
    told = others.partition("On 5,000 images of CIFAR-10")[2]
    assert "dynamic K=4 is worse than the static network of the same width (-4.95 points" in told
    assert "as quickly" not in told  # a control that has not begun is left out


def test_results_on_other_data_lie_beside_the_first(tmp_path: Path) -> None:
    for stem in ("evidence", "evidence-imagenette", "cells"):
        (tmp_path / f"{stem}.json").write_text((PAGE.with_suffix("") / "evidence.json").read_text())
    studies = read_studies(tmp_path)
    assert sorted(studies) == ["evidence", "evidence-imagenette"]
    assert study_of("temperature") is STUDIES["temperature"]
    assert study_of("deep-temperature-64") is STUDIES["deep-temperature"]
    assert "- `evidence`" not in part("open", studies)


def test_progress_counts_runs_and_wide_intervals() -> None:
    told = progress(study(static=[700, 701], dynamic=[720, 721])["evidence"])
    assert told.startswith("Runs done so far: static 2, CondConv K=8 0, dynamic K=4 2,")
    assert "7 of 8 intervals are not there yet, or wider than 0.5 points" in told
    assert "Minutes of one run, the median" in told
    assert re.search(r"static 0\b", told)  # 50 images, 30 epochs, a millisecond each


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(UserError, match="part 'evidence tabel'"):
        part("evidence tabel", study())
    assert "wide" in part("open", study())
    assert "| seed | static |" in part("evidence singles", study(static=[700]))
    assert part("evidence singles", study()) == "No run is done yet."
    assert part("evidence machines", study()) == "nothing yet."
