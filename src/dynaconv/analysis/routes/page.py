"""The page: one HTML file that needs nothing else, with the data, the pictures, the style and the script inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from dynaconv.analysis.routes.interventions import size_name
from dynaconv.analysis.routes.report import Inspection, number, numbers
from dynaconv.analysis.routes.words import data_name, intervention_tables, summary

MOST_NUMBERS = 400_000  # class means and deviations on the page; more, and the page gets slow


def page(found: Inspection) -> str:
    """The HTML. It loads nothing (its Content-Security-Policy says so), and every name in it is escaped."""
    import dynaconv

    parts = {name: (files(__package__) / f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    title = f"Routing of {found.network} on {data_name(found)}"
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in summary(found).splitlines())
    filled = {
        "TITLE": html.escape(title),
        "SUMMARY": lines,
        "VERSION": html.escape(dynaconv.__version__),
        "STYLE": parts["css"],
        "SCRIPT": parts["js"],
        "STYLE_HASH": _hash(parts["css"]),
        "SCRIPT_HASH": _hash(parts["js"]),
        "DATA": as_script_data(page_data(found)),
    }
    pieces = parts["html"].split("@")
    # every second piece is a name: what is filled in is never searched again
    return "".join(piece if place % 2 == 0 else filled[piece] for place, piece in enumerate(pieces))


def as_script_data(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def page_data(found: Inspection) -> dict[str, Any]:
    """What the script draws, in JSON types."""
    rows = {sample.row: place for place, sample in enumerate(found.samples)}
    space = 2 * sum(len(found.classes) * report.router.experts for report in found.routers)
    routers = []
    for report in found.routers:
        plain = report.plain(found.classes, found.names)
        sums = report.sums
        whole = space <= MOST_NUMBERS or report is found.routers[-1]
        routers.append(
            {
                **{name: plain[name] for name in _KEPT},
                "size": size_name(report.router.resolution),
                "twins": sum(len(pairs) for pairs in report.twins().values()),
                "class_mean": _rounded(sums.class_mean()) if whole else None,
                "class_deviation": _rounded(sums.class_deviation()) if whole else None,
                "similarity": {layer: _rounded(matrix) for layer, matrix in report.similarity.items()},
                "top_classes": [
                    [
                        {
                            "label": found.classes.index(top["class"]),
                            "mean": number(top["mean"]),
                            "weight": number(top["weight"]),
                            "sample": rows.get(int(sums.most_image[found.classes.index(top["class"]), expert]), -1),
                        }
                        for top in tops
                    ]
                    for expert, tops in enumerate(plain["top_classes"])
                ],
            }
        )
    names = [report.router.name for report in found.routers]
    return {
        "classes": found.classes,
        "class_images": found.routers[0].sums.count.tolist(),
        "routers": routers,
        "samples": [
            {
                "name": PurePath(sample.name).name,
                "label": sample.label,
                "predicted": sample.predicted,
                "picked": sample.picked,
                "picture": sample.data_uri(),
                "weights": [sample.weights[name] for name in names],
            }
            for sample in found.samples
        ],
        "tables": [{"header": list(header), "rows": body} for header, body, _ in intervention_tables(found)],
    }


_KEPT = (
    *("name", "layers", "router", "experts", "mean", "deviation", "usage", "entropy", "entropy_deviation"),
    *("class_share", "mutual_information", "dead", "histogram", "outside"),
)


def _rounded(values: Any) -> Any:
    return numbers(values.round(3))


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
