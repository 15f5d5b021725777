"""Writes an inspection: the statistics, the page, the figures."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dynaconv.analysis.routes.figures import draw_all
from dynaconv.analysis.routes.inspect import RECORDING, Inspection
from dynaconv.analysis.routes.page import page
from dynaconv.errors import UserError
from dynaconv.files import HashingFile, write_text, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_inspection(found: Inspection, folder: Path) -> list[Path]:
    """Write ``inspect.json``, ``inspect.html`` and the figures (PNG and SVG); return all files, the recording too.

    Raises:
        UserError: the folder cannot be written.
    """
    written = [folder / "inspect.html", folder / "inspect.json", folder / RECORDING]
    try:
        write_text(written[1], json.dumps(found.plain(), indent=1, allow_nan=False) + "\n")
        write_text(written[0], page(found))
        for name, figure in draw_all(found):
            for ending in ("png", "svg"):
                path = folder / f"{name}.{ending}"
                write_whole(path, partial(_save, figure, ending))
                written.append(path)
    except OSError as error:
        raise UserError(f"Cannot write into {folder}: {error.strerror or error}.") from error
    return written


def _save(figure: Figure, ending: str, file: HashingFile) -> None:
    made = io.BytesIO()
    figure.savefig(made, format=ending, dpi=150, metadata={"Date": None} if ending == "svg" else None)
    file.write(made.getvalue())
