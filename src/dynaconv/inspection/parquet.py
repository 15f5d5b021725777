"""Routing weights in Parquet files: one row for every image, one column of K numbers for every router."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dynaconv.errors import UserError, cannot_write
from dynaconv.files import TEMPORARY, ordinary_file, sealed, unsealed

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY = b"dynaconv"
FORMAT = 2  # with checksums: of what the file says about itself, and of every page of numbers
GROUP = 256  # rows of a group at least: passes of one image would make a file of headers


@dataclass(frozen=True)
class RecordedRouter:
    """One column of a recording.

    Attributes:
        name: of the layer, or of the block whose layers share the routing weights. A router that runs several times in
            a pass has a column for every call: ``name``, ``name#2`` ...
        layers: names of the layers that use the weights.
        experts: K.
        kind: ``"softmax"``, ``"sigmoid"``, or the name of the router's class.
        resolution: the size of the router's input, without batch and channels; of the first pass.
    """

    name: str
    layers: tuple[str, ...]
    experts: int
    kind: str
    resolution: tuple[int, ...]


class RoutingFile:
    """Writes a file while a network runs; it gets its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(path.name + TEMPORARY)
        self._arrow, self._parquet = _pyarrow()
        self._writer: Any = None
        self._routers: list[RecordedRouter] = []
        self._waiting: list[Any] = []
        if path.is_dir() or not path.parent.is_dir():
            raise UserError(f"Cannot write {path}: {'it is a folder' if path.is_dir() else 'its folder is not there'}.")

    def open(self, routers: Sequence[RecordedRouter]) -> None:
        """Say which routers the file is of; before the first :meth:`write`."""
        self._routers = list(routers)

    def write(self, weights: Mapping[str, Tensor], columns: Mapping[str, Sequence[Any]]) -> None:
        """Add the rows of one pass."""
        arrow = self._arrow
        rows = {name: arrow.array(values) for name, values in columns.items()}
        for name, tensor in weights.items():
            flat = arrow.array(tensor.contiguous().numpy().reshape(-1), type=arrow.float32())
            rows[name] = arrow.FixedSizeListArray.from_arrays(flat, tensor.shape[1])
        both = sorted(set(columns) & set(weights))
        if both:
            raise ValueError(f"the columns {both} have the names of routers; choose other names")
        table = arrow.table(rows)
        if self._waiting and table.schema != self._waiting[0].schema:
            raise ValueError(_other_columns(self._waiting[0].schema, table.schema))
        self._waiting.append(table)
        if sum(len(part) for part in self._waiting) >= GROUP:
            self._write_group()

    def _write_group(self) -> None:
        table = self._arrow.concat_tables(self._waiting)
        self._waiting = []
        with _blame_disk(self.path):
            if self._writer is None:
                routers = [asdict(router) for router in self._routers]
                about = json.dumps(sealed({"format": FORMAT, "routers": routers, "columns": table.schema.names}))
                schema = table.schema.with_metadata({KEY: about.encode()})
                self._writer = self._parquet.ParquetWriter(str(self._temporary), schema, write_page_checksum=True)
            elif table.schema != self._writer.schema.remove_metadata():
                raise ValueError(_other_columns(self._writer.schema, table.schema))
            self._writer.write_table(table.cast(self._writer.schema))

    def close(self) -> None:
        """Finish the file and give it its name. Without a row there is no file."""
        if self._waiting:
            self._write_group()
        if self._writer is None:
            return
        with _blame_disk(self.path):
            self._writer.close()
            self._writer = None
            self._temporary.replace(self.path)

    def drop(self) -> None:
        """Leave nothing of a file that was not closed."""
        if self._writer is not None:
            with suppress(OSError):  # the disk is full: that was said where it was written
                self._writer.close()
            self._writer = None
        self._temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class RoutingRows:
    """Some rows of a recording.

    Attributes:
        columns: what was noted, by name.
        weights: by the router's name, ``(rows, K)`` float32.
    """

    columns: dict[str, list[Any]]
    weights: dict[str, NDArray[Any]]


def read_routing(path: str | Path) -> tuple[list[RecordedRouter], Iterator[RoutingRows]]:
    """Read a recording: its routers, and its rows group by group, so that memory stays small.

    Raises:
        UserError: there is no such file, it is not one of ours, or damaged; of the rows, when they are read.
    """
    arrow, parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(str(ordinary_file(path)), page_checksum_verification=True)
        about = unsealed(json.loads(file.schema_arrow.metadata[KEY]))
        if about["columns"] != file.schema_arrow.names:
            raise ValueError("its columns are not those that it says")
        routers = [
            RecordedRouter(**{**one, "layers": tuple(one["layers"]), "resolution": tuple(one["resolution"])})
            for one in about["routers"]
        ]
    except (OSError, arrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no recording of routing weights, or a damaged one ({type(error).__name__}: {error})."
        ) from error
    return routers, _rows(file, [router.name for router in routers], path)


def _rows(file: Any, names: list[str], path: str | Path) -> Iterator[RoutingRows]:
    arrow, _ = _pyarrow()
    for group in range(file.num_row_groups):
        try:
            table = file.read_row_group(group).combine_chunks()
            weights = {}
            for name in names:
                chunk = table[name].chunk(0)
                weights[name] = chunk.flatten().to_numpy().reshape(len(chunk), -1)
            columns = {name: table[name].to_pylist() for name in table.column_names if name not in weights}
        except (OSError, arrow.ArrowException, KeyError, IndexError, ValueError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}).") from error
        yield RoutingRows(columns, weights)


def _other_columns(first: Any, now: Any) -> str:
    return (
        f"the columns of this pass are {now.names} and those of the first one {first.names}, or of other types; give "
        "every pass the same ones"
    )


class _blame_disk:  # noqa: N801 - a context manager, called like a function
    """Turn an error of the disk into a message."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            raise cannot_write(self.path, error) from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "Parquet files are written by pyarrow, which is not installed: pip install 'dynaconv[inspect]'"
        ) from error
    return pyarrow, pyarrow.parquet
