"""From what the user names to a network: timm's name, torchvision's, a function of the user's, or a saved network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynaconv.errors import UserError, suggest
from dynaconv.inference.functions import (
    SCHEMES,
    call_function,
    file_of_function,
    find_function,
    is_function_name,
    takes,
)

TORCHVISION = "torchvision/"
NAMES = (
    "timm's or torchvision/'s name, path/to/file.py:function, package.module:function, or a saved network (a file of "
    "dynaconv.save, a run's folder)"
)


def source_of(name: str) -> str:
    """What kind of name it is: ``"function"``, ``"torchvision"``, ``"saved"`` or ``"timm"``.

    >>> [source_of(name) for name in ("net.py:build", "torchvision/resnet18", "twin.safetensors", "resnet18")]
    ['function', 'torchvision', 'saved', 'timm']
    """
    if is_function_name(name):
        return "function"
    if name.startswith(TORCHVISION):
        return "torchvision"
    if name.partition(":")[0] in SCHEMES:
        return "timm"
    looks_like_a_path = name.endswith((".safetensors", ".pth", ".pt", ".bin")) or "/" in name or "\\" in name
    return "saved" if looks_like_a_path or _is_saved(Path(name)) else "timm"


def digest_of(name: str) -> str | None:
    """The first figures of the SHA-256 of the file behind a name, to see whether it is still the same; None if none."""
    kind = source_of(name)
    path = file_of_function(name) if kind == "function" else Path(name) if kind == "saved" else None
    if path is not None and path.is_dir():
        from dynaconv.tasks.weights import BEST, HUB

        path = next((path / file for file in (BEST, HUB) if (path / file).is_file()), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path is not None and path.is_file() else None


def short_name(name: str) -> str:
    """A name as part of a file's name.

    >>> [short_name(name) for name in ("nets/small.py:build", "my.nets:build", "torchvision/resnet18", "runs/a/")]
    ['small-build', 'my.nets-build', 'torchvision-resnet18', 'a']
    """
    if is_function_name(name):
        place, _, function = name.rpartition(":")
        return f"{Path(place).stem if place.endswith('.py') else place}-{function}"
    return Path(name).stem if source_of(name) == "saved" else name.replace("/", "-").replace(":", "-")


def make_network(
    name: str,
    outputs: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    *,
    pretrained: bool = False,
    dropout: float | None = None,
    drop_path: float | None = None,
    blank: bool = False,
) -> nn.Module:
    """Build the network of a name, or read it.

    Args:
        name: see :data:`NAMES`. A function's module is imported, which runs its code: the name must be one that the
            user gave, not one that was read from a file.
        outputs: ``{"num_classes": 10}`` or the like, for those that take it; a network's own number if None.
        arguments: what else is passed on.
        pretrained: begin from pretrained weights.
        dropout, drop_path: timm's; a function gets them as ``drop_rate`` and ``drop_path_rate``.
        blank: the weights will be overwritten: a run's folder gives its network without them.

    Raises:
        UserError: there is no such network; it does not take an argument; no weights, or no network to fetch them.
    """
    build = {"function": _of_function, "torchvision": _of_torchvision, "saved": _saved, "timm": _of_timm}
    chosen = {"drop_rate": dropout, "drop_path_rate": drop_path}
    rates = {word: value for word, value in chosen.items() if value is not None}
    return build[source_of(name)](name, dict(outputs or {}), dict(arguments or {}), rates, pretrained, blank)


def number_of_outputs(network: nn.Module, image_size: tuple[int, int], name: str) -> int:
    """How many logits the network returns for a picture of that height and width; it is run once, without numbers.

    Raises:
        UserError: it does not run on such pictures, or returns something else than ``(B, classes)``.
    """
    from dynaconv.counting.dry_run import called, has_numbers, real_model, shadow_inputs, shadow_mode, shadow_model

    size = (2, 3, *image_size)
    mode = shadow_mode()
    try:
        with mode, torch.no_grad():
            found = called(shadow_model(network, mode), shadow_inputs(torch.empty(size, device="meta"), mode))
    except Exception as error:  # whatever a network raises; some need numbers
        if not has_numbers(network):
            raise UserError(f"{name} does not run on pictures of {_times(size[1:])}: {error}") from error
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
                found = real_model(network)(torch.zeros(size, device=device))
        except Exception as failure:
            raise UserError(
                f"{name} does not run on pictures of {_times(size[1:])}: {type(failure).__name__}: {failure}"
            ) from failure
    if not isinstance(found, torch.Tensor) or found.dim() != 2 or found.shape[0] != 2:
        came = f"a tensor of {_times(found.shape)}" if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
        raise UserError(f"{name} returns {came} for two pictures; expected logits of (2, classes)")
    return int(found.shape[1])


def _of_function(
    name: str, outputs: dict[str, Any], arguments: dict[str, Any], rates: dict[str, Any], pretrained: bool, blank: bool
) -> nn.Module:
    from dynaconv.inference.origin import Origin

    function = find_function(name)
    for word in rates:
        if not takes(function, word):
            option = {"drop_rate": "--dropout", "drop_path_rate": "--drop-path"}[word]
            raise UserError(f"{name} takes no {word}, so {option} is not for it; give its own arguments with --arg")
    if pretrained and not takes(function, "pretrained"):
        raise UserError(
            f"{name} takes no argument 'pretrained': load the weights in the function, or give them by --weights FILE"
        )
    flags = {"pretrained": True} if pretrained else {}
    network = call_function(name, function, {**rates, **flags, **arguments}, outputs)
    offered = {word: value for word, value in outputs.items() if takes(function, word)}
    if "dynaconv_origin" not in network.__dict__ and not isinstance(getattr(network, "pretrained_cfg", None), dict):
        # so that dynaconv.save knows it; load will ask for the function again
        network.__dict__["dynaconv_origin"] = Origin("factory", name, {**offered, **rates, **arguments})
    return network


def _of_torchvision(
    name: str, outputs: dict[str, Any], arguments: dict[str, Any], rates: dict[str, Any], pretrained: bool, blank: bool
) -> nn.Module:
    from torchvision import models

    from dynaconv.conversion.load import load_fitting
    from dynaconv.inference.origin import Origin

    called, known = name.removeprefix(TORCHVISION), models.list_models(module=models)
    if called not in known:
        raise UserError(f"There is no network {called!r} of torchvision for classification. {suggest(called, known)}")
    if rates:
        raise UserError(
            f"--dropout and --drop-path are for timm's networks; {name} takes its own, as --arg dropout=0.2"
        )
    if called in ("googlenet", "inception_v3"):  # a second head in training, which returns a tuple
        arguments = {"aux_logits": False, "init_weights": True, **arguments}
    arguments = {**outputs, **arguments}
    try:
        network: nn.Module = models.get_model(called, weights=None, **arguments)
    except Exception as error:  # a wrong argument: each network raises its own
        raise UserError(f"{name} cannot be built: {type(error).__name__}: {error}") from error
    if pretrained and not blank:
        try:
            state = models.get_model_weights(called).DEFAULT.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # no network, no weights
            raise UserError(
                f"The pretrained weights of {name} cannot be had: {type(error).__name__}: {error}. Without a network "
                "give a local file by --weights"
            ) from error
        load_fitting(network, state)
    network.__dict__["dynaconv_origin"] = Origin("torchvision", called, arguments)
    return network


def _of_timm(
    name: str, outputs: dict[str, Any], arguments: dict[str, Any], rates: dict[str, Any], pretrained: bool, blank: bool
) -> nn.Module:
    import timm

    import dynaconv.models

    scheme = name.partition(":")[0] in SCHEMES
    if not scheme and not timm.is_model(name.partition(".")[0]):
        known = [*dynaconv.models.ZOO, *timm.list_models()]
        raise UserError(f"There is no model {name!r}. {suggest(name, known)}{_torchvisions(name)} Expected {NAMES}")
    try:
        return timm.create_model(name, pretrained=pretrained, **outputs, **rates, **arguments)
    except Exception as error:  # a wrong option, no weights, no network: each library raises its own
        what = "pretrained weights of" if pretrained else "model"
        raise UserError(f"The {what} {name} cannot be had: {type(error).__name__}: {error}") from error


def _torchvisions(name: str) -> str:
    from torchvision import models

    return f" torchvision has it: {TORCHVISION}{name}." if name in models.list_models(module=models) else ""


def _saved(
    name: str, outputs: dict[str, Any], arguments: dict[str, Any], rates: dict[str, Any], pretrained: bool, blank: bool
) -> nn.Module:
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(f"There is no network {name!r}: no such file or folder in {Path.cwd()}. Expected {NAMES}")
    if arguments or rates or pretrained:
        given = [*(f"--arg {word}" for word in arguments), *rates, *(["--pretrained"] if pretrained else [])]
        raise UserError(f"{name} is a saved network, built already; {', '.join(given)} would change nothing of it")
    network, head = _read_saved(path, outputs)
    wanted = outputs.get("num_classes")
    if wanted is None or head is None or head == wanted:
        return network
    reset: Any = getattr(network, "reset_classifier", None)
    if reset is None:
        raise UserError(
            f"{name} has {head} outputs, and {wanted} classes are wanted; give the function that builds it, with "
            f"--weights {name}"
        )
    reset(wanted)
    network.__dict__.pop("dynaconv_origin", None)
    return network


def _read_saved(path: Path, outputs: dict[str, Any]) -> tuple[nn.Module, int | None]:
    """The network, and its number of outputs where it says that."""
    from dynaconv.inference.archive import load
    from dynaconv.inference.archive_file import is_archive
    from dynaconv.tasks.network import ModelSpec, build_model, trusted
    from dynaconv.tasks.weights import BEST, HUB, LAST, load_weights_into, read_weights

    if path.is_dir():
        found = next((path / file for file in (BEST, LAST, HUB) if (path / file).is_file()), None)
        if found is None:
            raise UserError(f"{path} is no run's folder and holds no saved network: expected {BEST} or {HUB} in it")
        path = found
    if is_archive(path):
        network = load(path)
        network.train()
        return network, getattr(network, "num_classes", None)
    about = read_weights(path)[1]
    if "model" not in about:
        raise UserError(
            f"{path} holds weights alone, which do not say what network they belong to: name it, and give them by "
            f"--weights {path}"
        )
    spec = trusted(ModelSpec(**about["model"]), None, path)
    classes = outputs.get("num_classes") or len(about.get("classes", ())) or None
    network = build_model(spec, classes, blank=True)
    load_weights_into(network, path)
    return network, None


def _is_saved(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.safetensors"))


def _times(sizes: Any) -> str:
    return "x".join(map(str, sizes))
