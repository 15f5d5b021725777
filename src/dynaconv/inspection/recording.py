"""Recording the routing weights of a network, image by image."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.inspection.observing import RouterPlace, factors_of, routers_of, uncompiled, unwrapped
from dynaconv.inspection.parquet import RecordedRouter, RoutingFile
from dynaconv.torch_private import is_wrapped


class RoutingRecorder:
    """What :func:`record_routing` gives: the routers in the order in which they run, and their weights.

    Attributes:
        routers: known after the first pass.
        images: recorded so far.
        last: by the router's name the weights ``(B, K)`` of the last pass, float32 on the CPU.
    """

    def __init__(self, places: Sequence[RouterPlace], file: RoutingFile | None) -> None:
        self.routers: list[RecordedRouter] = []
        self.images = 0
        self.last: dict[str, Tensor] = {}
        self._places = {place.router: place for place in places}
        self._file = file
        self._kept: dict[str, list[Tensor]] = {}
        self._notes: dict[str, Sequence[Any]] = {}
        self._thread = threading.get_ident()
        self._calls: dict[tuple[nn.Module, str], list[Tensor]] | None = None  # of the pass that runs now
        self._sizes: dict[tuple[nn.Module, str], list[tuple[int, ...]]] = {}
        self._outside = 0

    @property
    def weights(self) -> dict[str, Tensor]:
        """By the router's name the weights of all images so far, ``(images, K)`` float32 on the CPU.

        Raises:
            RuntimeError: they went to a file; :func:`read_routing` reads it.
        """
        if self._file is not None:
            raise RuntimeError(f"the weights go to {self._file.path}; read them with dynaconv.inspection.read_routing")
        return {name: torch.cat(parts) for name, parts in self._kept.items()}

    def note(self, **columns: Sequence[Any]) -> None:
        """Add columns (a label, a name, a prediction ...) to the rows of the last pass; one value for each image.

        Every pass must have the same columns. Only a file has them.
        """
        for name, values in columns.items():
            if len(values) != len(next(iter(self.last.values()), ())):
                raise ValueError(
                    f"{name} has {len(values)} values and the last pass had {len(next(iter(self.last.values()), ()))} "
                    "images; give one for each"
                )
        self._notes.update(columns)

    def _begin(self, *_: Any) -> None:
        if self._mine():
            self._flush()
            self._calls, self._sizes = {}, {}

    def _observe(self, router: nn.Module, arguments: tuple[Any, ...], returned: Any) -> None:
        if not self._mine() or torch.compiler.is_compiling() or type(returned).__name__ == "Proxy":
            return
        if self._calls is None:
            self._outside += 1
            return
        for factor, tensor in factors_of(returned).items():
            if tensor.dim() != 2 or tensor.device.type == "meta" or is_wrapped(tensor):
                raise ValueError(
                    f"the router of {self._places[router].name!r} returned a tensor of shape {tuple(tensor.shape)} on "
                    f"{tensor.device} that cannot be recorded; expected (B, K), outside of torch.func's transforms"
                )
            shape = arguments[0].shape[2:] if arguments and isinstance(arguments[0], Tensor) else ()
            self._calls.setdefault((router, factor), []).append(tensor.detach())
            self._sizes.setdefault((router, factor), []).append(tuple(shape))

    def _end(self, *_: Any) -> None:
        if not self._mine() or self._calls is None:
            return
        calls, self._calls = self._calls, None
        if not calls:
            return
        described: list[RecordedRouter] = []
        parts: list[Tensor] = []
        for (router, factor), tensors in calls.items():
            place = self._places[router]
            for number, tensor in enumerate(tensors):
                name = place.name + (f".{factor}" if factor else "") + (f"#{number + 1}" if number else "")
                size = self._sizes[router, factor][number]
                described.append(RecordedRouter(name, place.layers, tensor.shape[1], place.kind, size))
                parts.append(tensor)
        self._check(described, parts)
        joined = torch.cat([part.float() for part in parts], dim=1).cpu()  # one transfer from a GPU
        widths = [part.shape[1] for part in parts]
        self.last = dict(zip((one.name for one in described), joined.split(widths, dim=1), strict=True))
        self.images += len(joined)

    def _check(self, described: list[RecordedRouter], parts: list[Tensor]) -> None:
        batches = {one.name: len(part) for one, part in zip(described, parts, strict=True)}
        if len(set(batches.values())) > 1:
            (first, many), (other, few) = next(
                (one, two) for one in batches.items() for two in batches.items() if one[1] != two[1]
            )
            raise ValueError(
                f"in one pass the router of {first!r} saw {many} examples and that of {other!r} {few}; expected as "
                "many rows for every router. Record a part of the network: record_routing(model.backbone)"
            )
        if not self.routers:
            self.routers = described
            if self._file is not None:
                self._file.open(described)
            return
        known, now = [(one.name, one.experts) for one in self.routers], [(one.name, one.experts) for one in described]
        if known != now:
            different = sorted({name for name, _ in set(known) ^ set(now)}) or [name for name, _ in now]
            raise ValueError(
                f"this pass did not run the same routers as the first one ({', '.join(different[:4])}): the columns "
                "would not be the same. Record such passes one by one"
            )

    def _flush(self) -> None:
        """Hand the rows of the last pass on."""
        if not self.last:
            return
        if self._file is None:
            for name, tensor in self.last.items():
                self._kept.setdefault(name, []).append(tensor)
        else:
            self._file.write(self.last, self._notes)
        self.last, self._notes = {}, {}

    def _finish(self) -> None:
        self._flush()
        if not self.images and self._outside:
            raise RuntimeError(
                "routers ran, but never inside the network that is recorded: call that network itself, or record the "
                "part that you call"
            )

    def _mine(self) -> bool:
        return threading.get_ident() == self._thread


@contextmanager
def record_routing(model: nn.Module, to: str | Path | None = None) -> Iterator[RoutingRecorder]:
    """Record the routing weights of every dynamic layer for every image that ``model`` sees in this context.

    Layers that share a router are recorded once, with their names. What is recorded is what the layers use: expert
    dropout is in it in training mode, and so is an intervention that was begun before::

        with dynaconv.record_routing(model, "routing.parquet") as recorder:
            for images, labels in batches:
                model(images)
                recorder.note(label=labels.tolist())

    Args:
        model: the network that is called inside the context; any that has dynamic or frozen layers.
        to: a Parquet file (extra ``inspect``): a row for every image, a column of K float32 for every router, and those
            of :meth:`RoutingRecorder.note`. It is streamed: memory does not grow with the number of images, and the
            file appears under its name when the context ends without an error. None keeps everything in memory
            (4 bytes for every weight), in :attr:`RoutingRecorder.weights`.

    What torch.compile has compiled runs uncompiled in the meantime, in all threads. Only passes of the thread that
    entered the context are recorded.

    Not supported: scripted and exported networks (they have no routers), routing weights that a caller passes to a
    layer (no router runs), ``torch.func`` transforms, ``DataParallel`` (its replicas run in threads of their own), and
    networks in which routers see different numbers of examples in one pass: record the part of the network.

    Raises:
        ValueError: no dynamic layer; a pass whose weights do not fit the columns.
        RuntimeError: only parts of the network were called, and nothing was recorded.
        UserError: the file cannot be written, or pyarrow is not there.
    """
    places = routers_of(model)
    network = unwrapped(model)
    file = None if to is None else RoutingFile(Path(to))
    recorder = RoutingRecorder(places, file)
    handles = [place.router.register_forward_hook(recorder._observe) for place in places]
    handles.append(network.register_forward_pre_hook(recorder._begin))
    handles.append(network.register_forward_hook(recorder._end))
    try:
        with uncompiled():
            yield recorder
        recorder._finish()
        if file is not None:
            file.close()
    finally:
        for handle in handles:
            handle.remove()
        if file is not None:
            file.drop()
