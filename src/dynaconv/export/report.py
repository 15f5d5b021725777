"""What an export wrote, and how far it is from the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dynaconv.export.agreement import Agreement
from dynaconv.export.check import LARGEST_ERROR


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What :func:`~dynaconv.export.export` wrote.

    Attributes:
        path: of the file.
        format: a key of :data:`~dynaconv.export.FORMATS`.
        form: how dynamic convolutions are written (ONNX).
        batch: that the file is fixed to; None where it is free.
        free_size: whether height and width are free.
        errors: of the file that was written, by batch and image size, relative to the largest output; of one with
            reduced banks they are held against the network with the same banks in PyTorch.
        madds, graph_madds: multiply-adds for one image, of the network and of the graph.
        megabytes: of the file, 2**20 bytes each.
        bank_dtype: in which banks are stored; None in float32.
        reduction_errors: as ``errors``, but from the network in float32; None where banks are.
        agreement: with the network in float32 on images; None where no data was given.
    """

    path: Path
    format: str
    form: str | None
    batch: int | None
    free_size: bool
    errors: dict[str, float]
    madds: float | None
    graph_madds: float | None
    megabytes: float
    bank_dtype: str | None = None
    reduction_errors: dict[str, float] | None = None
    agreement: Agreement | None = None

    @property
    def error(self) -> float:
        """The largest of the errors."""
        return max(self.errors.values())

    @property
    def reduction_error(self) -> float | None:
        """The largest difference from the network in float32, on random images; None where banks are float32."""
        return None if self.reduction_errors is None else max(self.reduction_errors.values())

    def __str__(self) -> str:
        sizes = "any image size" if self.free_size else "this image size only"
        batch = "any batch size" if self.batch is None else f"batches of {self.batch}"
        lines = [f"{self.path}: {self.megabytes:.1f} MB, {self.format}, {batch}, {sizes}"]
        if self.form is not None:
            lines.append(f"  dynamic convolutions: {self.form}")
        if self.madds and self.graph_madds:
            ratio = self.graph_madds / self.madds
            lines.append(
                f"  multiply-adds: {self.graph_madds / 1e6:.1f} M in the graph, {self.madds / 1e6:.1f} M in the "
                f"network ({ratio:.3f}x)"
            )
        lines.append(
            f"  the file was run: largest relative error {self.error:.1e}, allowed {LARGEST_ERROR:.0e} "
            f"({', '.join(self.errors)})"
        )
        if self.reduction_error is not None:
            lines.append(
                f"  banks in {self.bank_dtype}: the error is from the network with such banks in PyTorch; from the "
                f"float32 network, on random images, {self.reduction_error:.1e}"
            )
        if self.agreement is not None:
            lines.append(f"  {self.agreement}")
        return "\n".join(lines)
