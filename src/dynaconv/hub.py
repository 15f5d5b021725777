"""A network as a folder, or a repository on the Hugging Face hub: one file, what it is in JSON, and a model card.

For any network that :func:`dynaconv.save` can write: dynamized or frozen ones of timm, torchvision, or a factory of
one's own. Those of this package's zoo can also be written as timm reads them (:mod:`dynaconv.models.hub`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dynaconv.counting import cost
from dynaconv.counting.table import short
from dynaconv.errors import UserError
from dynaconv.inference.archive import load, save
from dynaconv.inference.archive_file import is_archive, read
from dynaconv.inference.layer import FrozenLayer
from dynaconv.inference.origin import Factory, Origin
from dynaconv.layers import DynamicLayer

__all__ = ["fetch", "from_pretrained", "model_card", "push_folder", "push_to_hub", "save_pretrained"]

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
TAGS = ("dynamic-convolution", "pytorch")


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    factory: Factory | None = None,
    arguments: Mapping[str, Any] | None = None,
    licence: str | None = None,
    notes: str = "",
    input_size: tuple[int, ...] | None = None,
) -> Path:
    """Write a network into ``folder``: ``model.safetensors``, ``config.json`` and ``README.md``, the model card.

    Args:
        model: see :func:`dynaconv.save`.
        folder: made if it is not there. Every file is whole or not there.
        factory, arguments: what builds the static network, where neither timm nor torchvision does.
        licence: of the weights, by the hub's name (``apache-2.0``); the choice is yours, none is written by default.
        notes: Markdown for the card: data, recipe, measured figures.
        input_size: ``(C, H, W)`` of one example, for the cost; timm's own or 3x224x224 by default.

    Raises:
        ValueError: as :func:`dynaconv.save`.
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as part:
            weights = save(model, Path(part) / WEIGHTS, factory=factory, arguments=arguments)
            config = _config(model, Origin(**read(weights)[0]["origin"]))
            card = model_card(model, config, licence=licence, notes=notes, input_size=input_size)
            (Path(part) / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            (Path(part) / CARD).write_text(card, encoding="utf-8")
            for name in (WEIGHTS, CARD, CONFIG):
                os.replace(Path(part) / name, folder / name)
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror or error}.") from error
    return folder


def from_pretrained(source: str | Path, *, factory: Factory | None = None) -> nn.Module:
    """Rebuild the network of a folder, or of a repository on the hub, in evaluation mode, on the CPU.

    Args:
        source: a folder that :func:`save_pretrained` wrote, or ``"owner/name"`` (``"owner/name@revision"``) on the hub.
        factory: what builds the static network, for one's own: a repository does not decide what code runs.

    Raises:
        UserError: (a ValueError) nothing there, no network to fetch it, damaged, or a factory is missing.
    """
    folder = Path(source) if Path(source).is_dir() else fetch(str(source), (WEIGHTS, CONFIG, CARD))
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise UserError(f"There is no {WEIGHTS} in {folder}; expected a folder that save_pretrained wrote")
    if not is_archive(weights):
        raise UserError(
            f"{weights} is no file of dynaconv.hub.save_pretrained. A network of this package's zoo, as timm reads it, "
            "is loaded by dynaconv.models.load_pretrained"
        )
    return load(weights, factory=factory).eval()


def push_to_hub(model: nn.Module, repository: str, *, private: bool = False, **saving: Any) -> str:
    """Write a network into a repository of the hub, ``"owner/name"``, made if it is not there; return its address.

    Args:
        saving: ``factory``, ``arguments``, ``licence``, ``notes``, ``input_size``, see :func:`save_pretrained`.

    Raises:
        UserError: no network, no rights, or no such name.
    """
    _check_name(repository)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, **saving)
        return push_folder(folder, repository, private=private)


def push_folder(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a folder into a repository of the hub, made if it is not there; return its address."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="dynaconv")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=str(folder)))
    except Exception as error:  # no network, no rights: the hub's client raises many kinds
        raise UserError(f"Cannot write {repository} on the hub: {_first_line(error)}") from error


def fetch(name: str, files: tuple[str, ...], hint: str = "") -> Path:
    """A snapshot of a repository on the hub, from the cache or the network.

    Args:
        name: ``"owner/name"`` or ``"owner/name@revision"``.
        files: those that are wanted.
        hint: what else may have been meant, for the error.
    """
    repository, _, revision = name.partition("@")
    _check_name(repository, hint)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    except Exception as error:  # no network, no such repository, no rights: the hub's client raises many kinds
        raise UserError(
            f"Cannot fetch {name} from the hub: {_first_line(error)} Without a network, give the path of a folder."
        ) from error


def model_card(
    model: nn.Module,
    config: Mapping[str, Any],
    *,
    licence: str | None = None,
    notes: str = "",
    input_size: tuple[int, ...] | None = None,
) -> str:
    """The model card: what the network is, its dynamic layers, what it costs, and how to load it.

    Args:
        config: what :func:`save_pretrained` writes as ``config.json``.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(license=licence, library_name="dynaconv", tags=list(TAGS))
    name = config["name"] or config["class"]
    own = f", factory={config['name']!r}" if config["built_by"] == "factory" else ""
    lines = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}, with dynamic convolution" if config["dynamic_layers"] else f"# {name}",
        _what(config),
        _price(model, input_size),
        notes,
        f"```python\nimport dynaconv\n\nmodel = dynaconv.hub.from_pretrained('<this folder or repository>'{own})\n```",
        "The file holds tensors and a description in JSON, and no code."
        + (f" The static network is built by your own `{config['name']}`, which you give." if own else ""),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _config(model: nn.Module, origin: Origin) -> dict[str, Any]:
    layers = [module for module in model.modules() if isinstance(module, (DynamicLayer, FrozenLayer))]
    routers = [module for module in model.modules() if getattr(module, "is_router", False)]
    return {
        "library": "dynaconv",
        "version": sys.modules["dynaconv"].__version__,
        "class": type(model).__name__,
        "built_by": origin.kind,
        "name": origin.name,
        "arguments": origin.arguments,
        "dynamic_layers": len(layers),
        "frozen": any(isinstance(layer, FrozenLayer) for layer in layers),
        "experts": sorted({int(layer.experts) for layer in layers}),
        "routers": dict(sorted(Counter(type(router).__name__ for router in routers).items())),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _what(config: Mapping[str, Any]) -> str:
    by = {"timm": "timm's ", "torchvision": "torchvision's "}.get(config["built_by"], "")
    parameters = f"{config['parameters']:,} parameters"
    if not config["dynamic_layers"]:
        return f"{by}`{config['name'] or config['class']}` ({config['class']}); {parameters}."
    experts = " or ".join(map(str, config["experts"]))
    routers = ", ".join(f"{count} {kind}" for kind, count in config["routers"].items())
    return (
        f"{by}`{config['name'] or config['class']}` ({config['class']}) of which {config['dynamic_layers']} layers are "
        f"dynamic{', frozen for inference' if config['frozen'] else ''}: each mixes its kernel, for every example, "
        f"from K = {experts} experts. Routers: {routers or 'none'}; {parameters}."
    )


def _price(model: nn.Module, input_size: tuple[int, ...] | None) -> str:
    own = getattr(model, "pretrained_cfg", None)
    known = own.get("input_size") if isinstance(own, dict) else None
    size = tuple(input_size or known or (3, 224, 224))
    shown = "x".join(map(str, size))
    try:
        found = cost(model, size)
    except Exception as error:  # an operation without a rule, or a size that does not fit
        if input_size is not None:
            raise UserError(f"The cost at input_size={size} cannot be counted: {error}") from error
        return f"What it costs could not be counted at {shown}: {_first_line(error)}"
    parts = f", of which {short(found.mixing)} mix the experts and {short(found.routing)} route" if found.mixing else ""
    return f"One example of {shown} costs {short(found.total)} multiply-adds{parts}, counted by `dynaconv.cost`."


def _check_name(repository: str, hint: str = "") -> None:
    if repository.count("/") != 1 or repository.startswith((".", "/")) or repository.endswith("/"):
        raise UserError(f"{repository!r} is neither a folder nor a repository 'owner/name' on the hub. {hint}".rstrip())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
