"""A network in a folder, or on the Hugging Face hub: safetensors, timm's ``config.json`` and a model card."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, cast

from torch import nn

from dynaconv.errors import UserError, suggest
from dynaconv.files import read_json
from dynaconv.hub import CARD, CONFIG, fetch, push_folder
from dynaconv.models.builder import ZOO, build
from dynaconv.models.spec import NetworkSpec
from dynaconv.models.weights import WEIGHTS, load_weights


def save_pretrained(model: nn.Module, folder: str | Path, *, notes: str = "") -> Path:
    """Write a network of the zoo into ``folder``: ``model.safetensors``, ``config.json``, ``README.md``.

    Once ``dynaconv.models`` is imported, ``timm.create_model(f"local-dir:{folder}", pretrained=True)`` reads it as well
    as :func:`load_pretrained` does.

    Args:
        model: built by ``timm.create_model`` or :func:`dynaconv.models.build`.
        folder: made if it is not there. Every file is whole or not there.
        notes: Markdown for the model card: data, recipe, measured figures.

    Raises:
        UserError: not a network of this zoo, or the folder cannot be written.
    """
    from timm.models import save_for_hf

    spec = _spec_of(model)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as part:
            save_for_hf(model, part, model_args=arguments_of(model), safe_serialization=True)
            (Path(part) / CARD).write_text(model_card(model, spec, notes), encoding="utf-8")
            for name in (WEIGHTS, CARD, CONFIG):
                os.replace(Path(part) / name, folder / name)
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror or error}.") from error
    return folder


def load_pretrained(source: str | Path, *, classifier: bool = True, **arguments: Any) -> nn.Module:
    """Build the network of a folder, or of a repository on the hub, with its weights, in evaluation mode.

    Args:
        source: a folder that :func:`save_pretrained` wrote, or ``"owner/name"`` (or ``"owner/name@revision"``) on the
            hub.
        classifier: False keeps the random initialisation of the classifier, for another ``num_classes``.
        arguments: of the network, instead of the saved ones.

    Raises:
        UserError: nothing there, no network to fetch it, damaged, or of another shape.
    """
    folder = Path(source) if Path(source).is_dir() else _fetch(str(source))
    config = _read_config(folder / CONFIG)
    spec = _spec(config.get("architecture"), folder)
    try:
        saved = {**config.get("model_args", {}), "pretrained_cfg_overlay": _preprocessing(config), **arguments}
        model = build(spec, **{"num_classes": config.get("num_classes", 1000), **saved})
    except Exception as error:  # every argument may be wrong, and each of timm's parts raises its own
        raise UserError(f"The network of {folder / CONFIG} cannot be built: {type(error).__name__}: {error}") from error
    load_weights(model, folder, classifier=classifier)
    return model.eval()


def push_to_hub(model: nn.Module, repository: str, *, notes: str = "", private: bool = False) -> str:
    """Save a network into a repository of the hub, ``"owner/name"``, made if it is not there; returns its address."""
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, notes=notes)
        return push_folder(folder, repository, private=private)


def arguments_of(model: nn.Module) -> dict[str, Any]:
    """The arguments that rebuild a network, as plain values; without dropout, which concerns training only."""
    given = cast(dict[str, Any], model.__dict__["zoo_arguments"])
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    plain["num_classes"] = model.num_classes
    return {name: value for name, value in plain.items() if not name.startswith("drop_")}


def model_card(model: nn.Module, spec: NetworkSpec, notes: str) -> str:
    """The model card: what the network is, what the paper claims of it, and that this is no reproduction of it."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license="apache-2.0",
        library_name="dynaconv",
        pipeline_tag="image-classification",
        tags=["dynamic-convolution", "image-classification", "timm"],
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    claim = "none for this network" if spec.top1 is None else f"{spec.top1} % on ImageNet"
    chosen = ", ".join(f"{name}={value!r}" for name, value in arguments_of(model).items())
    lines = [
        f"---\n{data.to_yaml()}\n---",
        f"# {spec.name}",
        f"{spec.row}; {parameters:,} parameters.",
        f"Built with: {chosen or 'the defaults'}.",
        f"Top-1 published for the paper's network: {claim}. The paper's weights are not public: what these weights "
        "reach stands below, if it was measured.",
        notes,
        "```python\nfrom dynaconv.models import load_pretrained\n\n"
        "model = load_pretrained('<this folder or repository>')\n```",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _spec_of(model: nn.Module) -> NetworkSpec:
    if "zoo_arguments" not in model.__dict__ or not hasattr(model, "num_classes"):
        raise UserError(
            f"{type(model).__name__} was not built as a network of this zoo (features_only ones are not saved either). "
            f"{suggest(type(model).__name__, ZOO)}"
        )
    return ZOO[cast(dict[str, str], model.pretrained_cfg)["architecture"]]


def _spec(name: object, folder: Path) -> NetworkSpec:
    if name not in ZOO:
        raise UserError(f"{folder / CONFIG} is of the architecture {name!r}. {suggest(str(name), ZOO)}")
    return ZOO[str(name)]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except OSError as error:
        raise UserError(
            f"There is no {CONFIG} at {path.parent} that can be read: {error.strerror or error}."
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is damaged: expected an object, got {type(config).__name__}.")
    return config


def _preprocessing(config: dict[str, Any]) -> dict[str, Any]:
    """The part of timm's configuration that describes the preprocessing of images."""
    keys = ("input_size", "pool_size", "crop_pct", "interpolation", "mean", "std")
    saved = config.get("pretrained_cfg", {})
    return {key: tuple(saved[key]) if isinstance(saved[key], list) else saved[key] for key in keys if saved.get(key)}


def _fetch(name: str) -> Path:
    """A snapshot of a repository on the hub, from the cache or the network."""
    hint = suggest(name, ZOO) if name not in ZOO else "It has no published weights: timm.create_model builds it new."
    return fetch(name, (CONFIG, WEIGHTS, CARD), hint)
