"""Exported files, loaded: images in, named tensors out, whichever runtime runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict

from dynaconv.errors import UserError, suggest
from dynaconv.export.seal import check_seal

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch-export": "torch", "aoti": "torch"}
"""What runs a file, and the package that is needed."""
KEY = "dynaconv"
_Side = Annotated[int, Field(ge=1, le=100_000)]


class About(TypedDict):
    """What a file must say about itself; it may say more."""

    format: Literal["onnx", "torch-export", "aoti"]
    task: Literal["classification", "detection", "keypoints"]
    classes: list[str] | None
    preprocessing: dict[str, Any]
    input: Literal["normalised", "float", "uint8"]
    input_size: tuple[_Side, _Side, _Side]
    batch: Annotated[int, Field(ge=1)] | None
    free_size: bool
    outputs: Annotated[list[str], Field(min_length=1)]


_ABOUT = TypeAdapter(About)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file of :func:`dynaconv.export.export`, ready to run.

    Attributes:
        path, runtime: of the file; what runs it.
        about: what the file says about itself, in JSON types.
        classes: names of the classes in the order of the scores (a detector's first is the background), or None.
        preprocessing: ``mean``, ``std``, ``image_size``, ``interpolation``, ``crop_pct``: those that are known.
        input: ``"normalised"``, ``"float"`` (0 to 1, normalised in the file) or ``"uint8"``.
        input_size: ``(C, H, W)``, that it was made for.
        batch: the number of images that every call must have, or None where it is free.
        free_size: whether images may have another height and width.
        outputs: names of the outputs.
    """

    path: Path
    runtime: str
    about: dict[str, Any]
    _call: Callable[[Tensor], list[Tensor]]

    @property
    def task(self) -> str:
        return str(self.about["task"])

    @property
    def classes(self) -> list[str] | None:
        return self.about["classes"]

    @property
    def preprocessing(self) -> dict[str, Any]:
        return dict(self.about["preprocessing"])

    @property
    def input(self) -> str:
        return str(self.about["input"])

    @property
    def input_size(self) -> tuple[int, int, int]:
        channels, height, width = self.about["input_size"]
        return channels, height, width

    @property
    def batch(self) -> int | None:
        return self.about["batch"]

    @property
    def free_size(self) -> bool:
        return bool(self.about["free_size"])

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.about["outputs"])

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs for ``images`` ``(B, C, H, W)``, float32, or uint8 where :attr:`input` says so.

        Safe to call from several threads at once.

        Raises:
            ValueError: another shape or dtype than the file takes.
        """
        self._check(images)
        return dict(zip(self.outputs, self._call(images), strict=False))

    def _check(self, images: Tensor) -> None:
        dtype = torch.uint8 if self.input == "uint8" else torch.float32
        channels, height, width = self.input_size
        fits = images.dim() == 4 and images.shape[1] == channels and self.batch in (None, images.shape[0])
        fits = fits and (self.free_size or tuple(images.shape[2:]) == (height, width))
        if not fits or images.dtype != dtype or not images.shape[0]:
            sides = "height, width" if self.free_size else f"{height}, {width}"
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; {self.path.name} takes {dtype} of shape "
                f"({self.batch or 'at least 1'}, {channels}, {sides})"
            )


def load(path: str | Path, *, runtime: str | None = None, threads: int | None = None) -> Exported:
    """Load a file that :func:`dynaconv.export.export` wrote.

    Args:
        path: of the file.
        runtime: one of :data:`RUNTIMES`; by default ``"onnx"`` (ONNX Runtime) for .onnx, else the one that the file is
            for.
        threads: of ONNX Runtime or OpenVINO for one call; their own choice if None. The others use torch's.

    Raises:
        UserError: no such file, a damaged or foreign one, or a runtime that is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    if runtime is not None and runtime not in RUNTIMES:
        raise UserError(f"The runtime is {runtime!r}. {suggest(runtime, RUNTIMES)}")
    check_seal(path)
    if path.suffix == ".onnx":
        runtime = runtime or "onnx"
        if runtime not in ("onnx", "openvino"):
            raise UserError(f"{path} is an ONNX file, which {runtime!r} does not run; expected onnx or openvino.")
        check_installed(runtime)
        open_file = _open_onnx if runtime == "onnx" else _open_openvino
        about, call = open_file(path, threads)
    else:
        about, call = _open_torch(path)
        if runtime not in (None, about["format"]):
            raise UserError(f"{path} is for {about['format']!r}, not for {runtime!r}.")
        runtime = about["format"]
    return Exported(path=path, runtime=runtime, about=about, _call=call)


def check_installed(runtime: str) -> None:
    """Raise UserError if a runtime's package is missing."""
    needed = ("onnx", "onnxscript", "onnxruntime") if runtime == "onnx" else (RUNTIMES[runtime],)
    for package in needed:
        if find_spec(package) is None:
            raise UserError(f"{package} is not installed, and {runtime!r} needs it; pip install 'dynaconv[export]'")


def _read_about(text: str | None, path: Path) -> dict[str, Any]:
    try:
        _ABOUT.validate_json(text or "", strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise UserError(
            f"{path} does not say what it is ({place}: {first['msg']}); expected a file written by 'dynaconv export'"
        ) from None
    about: dict[str, Any] = json.loads(text or "")
    return about


def _open_onnx(path: Path, threads: int | None) -> tuple[dict[str, Any], Callable[[Tensor], list[Tensor]]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # every failure has a class of its own there; metadata may be no text
        raise UserError(f"{path} cannot be opened by ONNX Runtime: {str(error).splitlines()[0]}") from error
    about = _read_about(metadata.get(KEY), path)

    def call(images: Tensor) -> list[Tensor]:
        made = session.run(None, {"images": images.numpy(force=True)})
        return [torch.from_numpy(array) for array in made]

    return about, call


def _open_openvino(path: Path, threads: int | None) -> tuple[dict[str, Any], Callable[[Tensor], list[Tensor]]]:
    import onnx
    import openvino

    try:
        entries = onnx.load(str(path), load_external_data=False).metadata_props
        about = _read_about(next((entry.value for entry in entries if entry.key == KEY), None), path)
        # Without the hint it computes in bfloat16 where the processor can.
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        compiled = openvino.Core().compile_model(str(path), "CPU", config)
    except UserError:
        raise
    except Exception as error:  # RuntimeError, and protobuf's DecodeError
        raise UserError(f"{path} cannot be opened by OpenVINO: {str(error).strip().splitlines()[0]}") from error

    def call(images: Tensor) -> list[Tensor]:
        made = compiled.create_infer_request().infer({"images": images.numpy(force=True)})
        return [torch.from_numpy(made[number].copy()) for number in range(len(compiled.outputs))]

    return about, call


def _open_torch(path: Path) -> tuple[dict[str, Any], Callable[[Tensor], list[Tensor]]]:
    from dynaconv.export.torch_file import open_file

    text, module = open_file(path)
    about = _read_about(text, path)

    def call(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            made = module(images)
        return [made] if isinstance(made, Tensor) else list(made)

    return about, call
