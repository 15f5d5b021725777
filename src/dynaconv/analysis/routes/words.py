"""The inspection in words: the table of the routers, the tables of the interventions, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from dynaconv.analysis.routes.interventions import size_name
from dynaconv.analysis.routes.report import Inspection, RouterReport

HEADINGS = ("routing of", "router", "K", "input", "entropy", "class share", "dead", "twins")

FLAT = 0.99

Table = tuple[Sequence[str], list[list[str]], tuple[int, ...]]


def cells(report: RouterReport) -> list[str]:
    """A router's row in the table."""
    router, sums = report.router, report.sums
    name = router.name if len(router.layers) < 2 else f"{router.name} ({len(router.layers)} layers)"
    return [
        name,
        router.kind,
        str(router.experts),
        size_name(router.resolution),
        f"{sums.entropy_mean():.2f}",
        share_text(sums.class_share()),
        experts_text(report.dead()),
        pairs_text(report),
    ]


def share_text(share: float | None) -> str:
    """The class share for people; a dash where it is not defined."""
    return "-" if share is None else f"{100 * max(share, 0.0):.0f} %"


def experts_text(experts: Sequence[int]) -> str:
    """Experts by number, or a dash."""
    return ", ".join(str(expert) for expert in experts) or "-"


def pairs_text(report: RouterReport) -> str:
    """How many pairs of experts have nearly equal kernels, over all layers of the router."""
    many = sum(len(pairs) for pairs in report.twins().values())
    return str(many) if many else "-"


def summary(found: Inspection) -> str:
    """A few sentences: how alive the routing is."""
    routers = found.routers
    experts = sum(report.router.experts for report in routers)
    dead = sum(len(report.dead()) for report in routers)
    twins = sum(len(pairs) for report in routers for pairs in report.twins().values())
    softmax = [report for report in routers if report.router.kind == "softmax"]
    flat = [report.router.name for report in softmax if report.sums.entropy_mean() > FLAT]
    shares = [(report.sums.class_share(), report.router.name) for report in routers]
    known = [(share, name) for share, name in shares if share is not None]
    lines = [
        f"{found.network} on {_many(found.images, 'image')} of {data_name(found)}: top-1 {100 * found.top1:.2f} %, "
        f"{_many(len(routers), 'router')}, {_many(experts, 'expert')}."
    ]
    if known:
        most, where = max(known)
        first, last = known[0], known[-1]
        place = "first layer" if len(known) == len(shares) else "first layer where they vary"
        lines.append(
            f"Of the variance of the routing weights, {share_text(first[0])} lies between the classes in the {place} "
            f"({first[1]}), {share_text(last[0])} in the last ({last[1]}), at most {share_text(most)} ({where})."
        )
    else:
        lines.append("How class-specific the routing is cannot be said: too few images, or weights that do not vary.")
    constant = [report.router.name for report in routers if report.constant()]
    if constant:
        names = ", ".join(constant[:4]) + (" ..." if len(constant) > 4 else "")
        lines.append(
            f"{len(constant)} of {_many(len(routers), 'router')} {'returns' if len(constant) == 1 else 'return'} the "
            f"same weights for every image ({names}), as when all units of a router's hidden layer are 0."
        )
    lines.append(f"Dead experts: {dead}. Pairs of experts with nearly equal kernels: {twins}.")
    if flat:
        lines.append(
            f"{len(flat)} of {len(softmax)} softmax routers are flat (entropy above {FLAT}): they use all experts "
            "nearly alike, whatever the image. A lower temperature sharpens them."
        )
    return "\n".join(lines)


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def data_name(found: Inspection) -> str:
    """The data set for people: of a folder its name, and not where it lies."""
    return PurePath(found.settings.data).name or found.settings.data


def intervention_tables(found: Inspection) -> list[Table]:
    """Tables 3 and 4 of Chen et al. 2020 with this network's figures: header, rows, columns of numbers."""
    tables = found.interventions
    if tables is None:
        return []
    kernels = [
        [row.label, percent(row.top1), percent(row.top5) if row.top1 is not None else row.note]
        for row in tables.kernels
    ]
    header = [size_name(size) for size in tables.resolutions]
    by_resolution = [
        [*("on" if on else "-" for on in row.enabled), percent(row.top1), percent(row.top5)]
        for row in tables.by_resolution
    ]
    last = len(header)
    return [
        (("kernels", "top-1, %", "top-5, %"), kernels, (1, 2)),
        ((*header, "top-1, %", "top-5, %"), by_resolution, (last, last + 1)),
    ]


def percent(value: float | None) -> str:
    """A fraction in percent; a dash for none."""
    return "-" if value is None else f"{100 * value:.1f}"
