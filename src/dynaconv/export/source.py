"""What is exported: a network of the zoo, a run's best weights, a saved network, or a module, as images -> tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.counting.dry_run import independent_copy
from dynaconv.data.opening import LARGEST_SIDE
from dynaconv.errors import UserError, blame_input
from dynaconv.inference.archive_file import is_archive
from dynaconv.tasks.network import ModelSpec, build_model

SUPPRESSION = ("score_thresh", "nms_thresh", "detections_per_img", "topk_candidates")
OUTPUTS = {"classification": ("logits",), "detection": ("boxes", "scores"), "keypoints": ("heatmaps",)}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A network that takes normalised images ``(B, C, H, W)``, and what a user of its file must know.

    Attributes:
        network: in evaluation mode; returns one tensor for every name in ``outputs`` (one alone as it is).
        name: of the network, for people.
        task: ``"classification"``, ``"detection"`` or ``"keypoints"``.
        input_size: ``(C, H, W)`` of one example.
        outputs: the names of its outputs.
        classes: their names, in the order of the scores; None where they are not known.
        preprocessing: ``mean`` and ``std`` of the normalisation, and how training scaled and cropped a picture.
        fixed_size: the outputs are right for this image size alone.
        original: the network as it was, whose cost is counted.
        facts: what else a program that uses the file must know: a detector's ``suppression`` (torchvision's four
            numbers), the ``pose`` of a keypoint network that was trained.
    """

    network: nn.Module
    name: str
    task: str
    input_size: tuple[int, int, int]
    outputs: tuple[str, ...]
    classes: list[str] | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    fixed_size: bool = False
    original: nn.Module | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def open_source(
    model: str | Path | nn.Module,
    *,
    image_size: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    arguments: dict[str, Any] | None = None,
    weights: Path | None = None,
    function: str | None = None,
) -> Source:
    """The network of a name, a run folder, a weights file, a file of :func:`dynaconv.save`, or a module.

    Args:
        model: see above; a name (:mod:`dynaconv.tasks.sources`) builds the network without trained weights.
        image_size: ``(height, width)`` that the network will see; its own if None.
        classes: names of the classes, in place of those that came with the weights.
        arguments: of ``timm.create_model``, or of the function, for a name.
        weights: a local file, for a name.
        function: what builds the network of a run, where it is one of the user's own.

    Raises:
        UserError: no such network or file; a list of classes of another length than the network's outputs.
    """
    about: dict[str, Any] = {}
    if image_size is not None and not all(1 <= side <= LARGEST_SIDE for side in image_size):
        raise UserError(f"image_size is {tuple(image_size)}; expected sides from 1 to {LARGEST_SIDE:,} pixels")
    if (arguments or weights) and (isinstance(model, nn.Module) or Path(model).exists()):
        raise UserError("arguments and weights belong to a name; a file or a module is a network with its own")
    if isinstance(model, nn.Module):
        network, name = independent_copy(model), type(model).__name__
    elif Path(model).exists():
        network, about, name = _read(Path(model), function)
    else:
        network, name = _build(str(model), arguments or {}, weights), str(model)
    source = _as_images_to_tensors(network.eval(), about, name, image_size)
    return _with_outputs(source, classes)


def _build(name: str, arguments: dict[str, Any], weights: Path | None) -> nn.Module:
    return build_model(ModelSpec(name=name, args=arguments), None, weights=weights, whole=True)


def _read(path: Path, function: str | None) -> tuple[nn.Module, dict[str, Any], str]:
    """The network of a run folder, of its weights, or of a file of ``dynaconv.save``."""
    from dynaconv.train.run_folder.weights import load_trained

    if path.suffix in (".onnx", ".pt2"):
        raise UserError(f"{path} is an exported file already. Give the run, or what it was exported from.")
    if path.is_file() and is_archive(path):
        from dynaconv.inference import load

        network = load(path)
        return network, {}, type(network).__name__
    trained = load_trained(path, model=function)
    return trained.model, {"task": "classification", **trained.about}, trained.about["model"]["name"]


def _as_images_to_tensors(
    network: nn.Module, about: dict[str, Any], name: str, image_size: Sequence[int] | None
) -> Source:
    task = about.get("task") or _task_of(network)
    if "pose" in about:
        from dynaconv.tasks.keypoints.pose import PoseSpec

        about = {**about, "pose": PoseSpec(**about["pose"]).model_dump(mode="json")}  # with what it leaves to defaults
    known = _preprocessing(network, about)
    size = tuple(image_size) if image_size is not None else _own_size(network, known)
    channels = _channels(network)
    common: dict[str, Any] = {"name": name, "task": task, "classes": about.get("classes"), "outputs": OUTPUTS[task]}
    common["input_size"] = (channels, *size)
    common["facts"] = {"pose": about["pose"]} if "pose" in about else {}
    if task == "detection":
        return _detector(network, common, known, image_size)
    # timm's layers with TensorFlow's padding compute it in Python from the size of the map, which fixes that size. To
    # trace them with a free one first takes minutes.
    fixed = any(type(module).__name__.endswith("Same") for module in network.modules())
    return Source(network=network, preprocessing=known, original=network, fixed_size=fixed, **common)


def _task_of(network: nn.Module) -> str:
    if hasattr(network, "raw") and hasattr(network, "anchor_generator"):
        return "detection"
    return "keypoints" if type(network).__module__ == "dynaconv.models.keypoints" else "classification"


def _preprocessing(network: Any, about: dict[str, Any]) -> dict[str, Any]:
    """How pictures become inputs: as it was saved with the weights, or as timm says for the network."""
    if "pose" in about:
        pose = about["pose"]
        return {"image_size": list(pose["image_size"]), "mean": list(pose["mean"]), "std": list(pose["std"])}
    if about.get("preprocess", {}).get("mean"):
        return dict(about["preprocess"])
    if hasattr(network, "transform") and hasattr(network.transform, "image_mean"):  # torchvision's detectors
        scale = network.transform
        sides = list(scale.fixed_size[::-1]) if scale.fixed_size else None
        return {"image_size": sides, "mean": list(scale.image_mean), "std": list(scale.image_std), "resize": "stretch"}
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    mean, std = config.get("mean"), config.get("std")
    if not mean or not std:
        return {}
    chosen = {"mean": list(mean), "std": list(std)}
    return chosen | {name: config[name] for name in ("interpolation", "crop_pct") if config.get(name)}


def _own_size(network: Any, known: dict[str, Any]) -> tuple[int, int]:
    size = known.get("image_size")
    if size is None:
        config: Any = getattr(network, "pretrained_cfg", None) or {}
        size = tuple(config.get("input_size") or (3, 224, 224))[1:]
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _channels(network: nn.Module) -> int:
    """Of the first layer that sees the image."""
    for module in network.modules():
        channels = getattr(module, "in_channels", None)
        if isinstance(channels, int) and not getattr(module, "is_router", False):
            return channels
    return 3


class DetectorOutputs(nn.Module):
    """A detector's backbone and head, its boxes decoded: ``(B, 3, S, S)`` to boxes ``(B, A, 4)`` and scores.

    Boxes are x1, y1, x2, y2 in pixels of the network's input, one for every anchor, not clipped. Scores are
    ``(B, A, classes)``, softmax over the classes, of which the first is the background.
    """

    anchors: Tensor

    def __init__(self, detector: Any, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.raw = detector.raw()
        self.weights, self.most = detector.box_coder.weights, float(detector.box_coder.bbox_xform_clip)
        example = torch.zeros(1, *size)
        with torch.no_grad():
            from torchvision.models.detection.image_list import ImageList

            features = list(detector.backbone(example).values())
            anchors = detector.anchor_generator(ImageList(example, [size[1:]]), features)[0]
        self.register_buffer("anchors", anchors)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.raw(images)
        x1, y1, x2, y2 = self.anchors.unbind(-1)
        width, height = x2 - x1, y2 - y1
        shift_x, shift_y, scale_x, scale_y = (
            part / weight for part, weight in zip(found["bbox_regression"].unbind(-1), self.weights, strict=True)
        )
        centre_x, centre_y = shift_x * width + (x1 + width / 2), shift_y * height + (y1 + height / 2)
        half_width = torch.exp(scale_x.clamp(max=self.most)) * width / 2
        half_height = torch.exp(scale_y.clamp(max=self.most)) * height / 2
        sides = centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height
        return torch.stack(sides, dim=-1), found["cls_logits"].softmax(dim=-1)


def _detector(network: Any, common: dict[str, Any], known: dict[str, Any], image_size: Sequence[int] | None) -> Source:
    own = network.transform.fixed_size
    size = tuple(own[::-1]) if image_size is None and own else tuple(common["input_size"][1:])
    common["input_size"] = (3, *size)
    with blame_input():
        outputs = DetectorOutputs(network, common["input_size"]).eval()
    common["facts"] = {"suppression": {name: getattr(network, name) for name in SUPPRESSION}}
    if common["classes"] is not None:
        common["classes"] = ["background", *common["classes"]]
    return Source(network=outputs, preprocessing=known, fixed_size=True, original=network.raw(), **common)


def _with_outputs(source: Source, classes: Sequence[str] | None) -> Source:
    """The names of the outputs, of which there are as many as the network returns, and of the classes, if they fit."""
    try:
        with torch.no_grad():
            made: Any = source.network(torch.zeros(1, *source.input_size))
    except Exception as error:  # whatever the network raises
        raise UserError(
            f"{source.name} does not run on images of shape {source.input_size}: {type(error).__name__}: {error}"
        ) from error
    tensors = [made] if isinstance(made, Tensor) else list(made.values() if isinstance(made, dict) else made)
    if not tensors or not all(isinstance(tensor, Tensor) and tensor.dim() > 0 for tensor in tensors):
        raise UserError(
            f"{source.name} returns {type(made).__name__}; expected a tensor, or several in a tuple or dict"
        )
    outputs = source.outputs
    if len(tensors) != len(outputs):
        outputs = tuple(made) if isinstance(made, dict) else tuple(f"output_{number}" for number in range(len(tensors)))
    names = source.classes if classes is None else list(classes)
    scores = tensors[-1].shape[-1]
    if classes is not None and source.task == "detection" and len(names or ()) == scores - 1:
        names = ["background", *classes]
    if names is not None and source.task != "keypoints" and len(names) != scores:
        raise UserError(f"{len(names)} names of classes were given, and {source.name} has {scores} of them.")
    return replace(source, classes=names, outputs=outputs)
