"""What the studies say in three sentences: when dynamic convolution helps, when not, what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynaconv.analysis.study_result import Ablation, ArmRow, Pair
from dynaconv.analysis.verdicts import NOT_RUN, NOT_SHOWN, ONE_SEED
from dynaconv.figures import short_number

Studies = Mapping[str, Ablation]
METHODS = ("condconv", "dynamic")
COMPARISONS = {
    "evidence": "on CIFAR-10",
    "evidence-imagenette": "on Imagenette",
    "evidence-mobilenetv2": "on Imagenette",
    "wide": "on 5,000 images of CIFAR-10",
}
"""The comparisons of static, CondConv and Dynamic that the answer is made of, and where they were made."""


def answer(studies: Studies) -> list[str]:
    """When it helps, when not, and what it costs: three sentences, as far as the results go."""
    main = studies.get("evidence")
    if main is None:
        return ["Nothing is known yet: no run is done."]
    static = main.row("static")
    helps: list[str] = []
    others: list[str] = []
    for name in (name for name in COMPARISONS if name in studies):
        study = studies[name]
        pairs = _compared(study, main=name == "evidence")
        better = [pair for pair in pairs if _is_better(pair)]
        for said, chosen in ((helps, better), (others, [pair for pair in pairs if pair not in better])):
            if chosen:
                said.append(f"{_where(name, study)}, {_and([_finding(study, pair) for pair in chosen])}")
    return [
        f"**When it helps:** {'. '.join(map(_capital, helps)) or 'No gain is shown'}.",
        f"**When it does not, or nothing is shown:** {'. '.join(map(_capital, others)) or 'No such comparison'}.",
        f"**What it costs:** {_and([_cost(row, static) for row in main.rows if row.slug in METHODS])}. This is for the "
        "network and the machine of the first comparison; in larger networks the price is lower "
        "([performance](performance.md)).",
    ]


def _compared(study: Ablation, main: bool) -> list[Pair]:
    """Each method against the static network, wider ones, the other method; of ``main`` what has not begun too."""
    own = [row.pair for row in study.rows if row.pair and row.slug in METHODS]
    further = distinct(study, study.further)
    return own + [pair for pair in further if main or pair.difference is not None]


def distinct(study: Ablation, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs without those that compare with a network that an earlier one has been compared with."""
    kept: list[Pair] = []
    for pair in pairs:
        same = {pair.against, *(twin.slug for twin in study.twins(pair.against))}
        twins = {pair.slug, *(twin.slug for twin in study.twins(pair.slug))}
        if not any(other.slug in twins and other.against in same for other in kept):
            kept.append(pair)
    return kept


def _is_better(pair: Pair) -> bool:
    return pair.difference is not None and pair.difference.shown and pair.difference.mean > 0


def _where(name: str, study: Ablation) -> str:
    madds = study.row("static").madds or 0
    network = study.facts.get("network") or "a ResNet"
    return (
        f"{COMPARISONS[name]} at {study.facts['image_size']} pixels with {network} of "
        f"{short_number(madds)} multiply-adds, {study.facts['epochs']} epochs and equal recipes"
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _finding(study: Ablation, pair: Pair) -> str:
    """A clause: who, against whom, and by how much; that it is not known where it is not."""
    who, whom = study.label(pair.slug), _against(study, pair)
    found = pair.difference
    if found is None or pair.verdict in (NOT_RUN, ONE_SEED):
        runs = "no pair of runs" if found is None else "one pair of runs"
        return f"whether {who} is better than {whom} is not known yet ({runs} done)"
    seeds = len(found.per_seed)
    interval = f"{found.mean:+.2f} points, 95 % interval {found.low:+.2f} to {found.high:+.2f}, {seeds} seeds"
    if pair.verdict == NOT_SHOWN:
        return f"no difference between {who} and {whom} is shown ({interval})"
    return f"{who} is {'better' if found.mean > 0 else 'worse'} than {whom} ({interval})"


def _against(study: Ablation, pair: Pair) -> str:
    names = {
        "static": "the static network of the same width",
        "wide-throughput": "a wider static network that classifies a batch as quickly as dynamic K=4",
        "wide-parameters": "a wider static network with as many parameters as dynamic K=4",
    }
    whom = names.get(pair.against, study.label(pair.against))
    if pair.against == "wide-throughput" and any(
        twin.slug == "wide-parameters" for twin in study.twins("wide-throughput")
    ):
        whom += " (here the one with as many parameters is the same)"
    return whom


def _cost(row: ArmRow, static: ArmRow) -> str:
    if not row.parameters or not static.parameters or not row.madds or not static.madds:
        return f"the cost of {row.label} is not known yet"
    told = (
        f"{row.label} has {row.parameters / static.parameters:.1f} times the static network's parameters and "
        f"{row.madds / static.madds:.2f} times its multiply-adds"
    )
    if row.step_ratio is None:
        return told
    told += f", and takes {row.step_ratio:.1f} times as long for a training step"
    if row.frozen_ratio is None:
        return told
    return f"{told} and {row.frozen_ratio:.1f} times for one picture when both are frozen"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"
