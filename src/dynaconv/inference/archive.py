"""``dynaconv.save`` and ``dynaconv.load``: a dynamic or frozen network in one file, without pickle.

The file is a safetensors file. Its metadata hold a description in JSON: how the static network is built
(:mod:`~dynaconv.inference.origin`), what was made of it (:mod:`~dynaconv.inference.structure`), and a checksum over the
description and every tensor (:mod:`~dynaconv.inference.archive_file`). Reading it runs no code that the file names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.conversion.report import DynamizeReport, LayerReport
from dynaconv.errors import UserError
from dynaconv.inference import archive_file
from dynaconv.inference.archive_file import FORMAT
from dynaconv.inference.description import is_described
from dynaconv.inference.freezing import FreezeReport
from dynaconv.inference.layer import FrozenLayer
from dynaconv.inference.origin import Factory, Origin, build, find_origin
from dynaconv.inference.router import FrozenRouter
from dynaconv.inference.structure import Structure, apply_structure, find_structure
from dynaconv.torch_private import hooks_of


def save(
    network: nn.Module,
    path: str | Path,
    *,
    factory: Factory | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network into one file: a dynamized or frozen one, or any other whose origin is known.

    Networks of timm (those of the papers among them) say themselves how they are built. For any other, ``factory`` with
    ``arguments`` returns the static network, or the network as it is. The network is built again before anything is
    written, and compared with this one module by module: what is written can be read.

    Args:
        network: the network; buffers, dtypes, memory formats, training mode and ``requires_grad`` are kept.
        path: the file; it is whole or not there, also after a crash.
        factory: a function, or its name ``"package.module:function"``.
        arguments: its keyword arguments, plain values.

    Raises:
        ValueError: the origin is not known, or the network has something that the file cannot hold (modules that the
            factory does not build, hooks of your own), named in the message.
        OSError: the file cannot be written.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"network is {type(network).__name__}; expected a torch.nn.Module")
    needless = factory is None and is_described(network)
    origin = Origin("none") if needless else find_origin(network, factory, arguments)
    given = None if factory is None or origin.kind != "factory" else factory
    structure = find_structure(network, build(origin, given))
    tensors, description = _describe(network, origin, structure)
    rebuilt = _restore(description, tensors, given)
    _check_alike(network, rebuilt)
    return archive_file.write(Path(path), tensors, description)


def load(path: str | Path, *, factory: Factory | None = None) -> nn.Module:
    """Read a network that :func:`save` wrote; it computes bit for bit what the saved one computed.

    Args:
        path: the file.
        factory: what built the static network, where neither timm nor torchvision did: a file does not decide what code
            runs. It is called with the arguments that were given to :func:`save`.

    Returns:
        The network, on the CPU, in the mode (training or evaluation) in which it was saved.

    Raises:
        UserError: (a ValueError) no such file, a damaged one, one of another format, a factory that is missing or
            builds something else; the message names what.
    """
    description, tensors = archive_file.read(Path(path))
    try:
        return _restore(description, tensors, factory)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} describes a network that cannot be built: {type(error).__name__}: {error}") from error


def _describe(network: nn.Module, origin: Origin, structure: Structure) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    strides: dict[str, list[int]] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in _tensors(network):
        if tensor.is_meta or tensor.layout != torch.strided:
            raise ValueError(f"{name} is {tensor.layout} on {tensor.device}; expected a dense tensor with numbers")
        key = (id(tensor),) if tensor.numel() == 0 else (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key in first:
            same[name] = first[key]
            continue
        first[key] = name
        tensors[name] = tensor.detach().cpu().contiguous()
        if tensor.stride() != torch.empty(tensor.shape, device="meta").stride() and _is_dense(tensor):
            strides[name] = list(tensor.stride())
    return tensors, {
        "format": FORMAT,
        "versions": {"dynaconv": _version(), "torch": str(torch.__version__)},
        "origin": asdict(origin),
        "structure": asdict(structure),
        "same": same,
        "strides": strides,
        "trained": [name for name, parameter in _parameters(network) if parameter.requires_grad],
        "training": [name for name, module in network.named_modules() if module.training],
        "reports": _reports(network),
    }


def _version() -> str:
    version: str = sys.modules[
        "dynaconv"
    ].__version__  # a room does not import the package: that stands above all rooms
    return version


def _restore(description: dict[str, Any], tensors: Mapping[str, Tensor], factory: Factory | None) -> nn.Module:
    origin = Origin(**description["origin"])
    network = apply_structure(build(origin, factory), Structure(**description["structure"]))
    _fill(network, _laid_out(tensors, description))
    trained, training = set(description["trained"]), set(description["training"])
    for name, parameter in _parameters(network):
        parameter.requires_grad_(name in trained)
    for name, module in network.named_modules():
        module.training = name in training
    if origin.kind != "none":
        network.__dict__["dynaconv_origin"] = origin  # so that it can be saved again
    network.__dict__.update(_read_reports(description["reports"]))
    return network


def _laid_out(tensors: Mapping[str, Tensor], description: dict[str, Any]) -> dict[str, Tensor]:
    made = {}
    for name, tensor in tensors.items():
        stride = description["strides"].get(name)
        room = (
            torch.empty_like(tensor)
            if stride is None
            else torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype)
        )
        made[name] = room.copy_(tensor)
    return {**made, **{name: made[first] for name, first in description["same"].items()}}


def _fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put every tensor into its place, and miss none."""
    made: dict[int, nn.Parameter] = {}  # tensors that several places share stay one parameter
    unknown, unlike = [], []
    for name, tensor in tensors.items():
        place, _, leaf = name.rpartition(".")
        module = _find(network, place)
        known = None if module is None else {**module._parameters, **module._buffers}.get(leaf)
        if known is not None and known.shape != tensor.shape:
            unlike.append(f"{name} {tuple(tensor.shape)} instead of {tuple(known.shape)}")
        elif module is not None and leaf in module._parameters:
            old = module._parameters[leaf]
            if id(tensor) not in made:
                if old is not None and old.device == tensor.device:
                    old.data = tensor  # the same object, which others may hold
                made[id(tensor)] = (
                    old
                    if old is not None and old.device == tensor.device
                    else nn.Parameter(tensor, requires_grad=tensor.is_floating_point() or tensor.is_complex())
                )
            module._parameters[leaf] = made[id(tensor)]
        elif module is not None and leaf in module._buffers:
            module._buffers[leaf] = tensor
        else:
            unknown.append(name)
    missing = [name for name, _ in _tensors(network) if name not in tensors]
    for name, module in network.named_modules():  # buffers that are None until they are filled
        needed = "bank" if isinstance(module, FrozenLayer) else "fc_weight" if isinstance(module, FrozenRouter) else ""
        if needed and getattr(module, needed) is None:
            missing.append(f"{name}.{needed}".removeprefix("."))
    problems = _list("it lacks", unknown), _list("the file lacks", missing), _list("of other shapes are", unlike)
    if any(problems):
        raise UserError(
            f"the network that was built is another one than was saved: {'; '.join(filter(None, problems))}"
        )


def _find(network: nn.Module, name: str) -> nn.Module | None:
    try:
        return network.get_submodule(name)
    except AttributeError:
        return None


def _list(what: str, names: list[str]) -> str:
    return f"{what} {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}" if names else ""


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under each of its names, those that a state dict leaves out too."""
    yield from _parameters(network)
    yield from network.named_buffers(remove_duplicate=False)


def _parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    yield from network.named_parameters(remove_duplicate=False)


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill their memory without gaps or overlaps, in any order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _check_alike(network: nn.Module, rebuilt: nn.Module) -> None:
    """Raise ValueError unless the file would give this network: modules, their settings, hooks, shapes."""
    ours, theirs = (dict(each.named_modules(remove_duplicate=False)) for each in (network, rebuilt))
    for name, module in ours.items():
        other = theirs.get(name)
        place = f"{name or 'the network'} ({type(module).__name__})"
        if other is None or type(other) is not type(module):
            raise ValueError(f"{place} would be {type(other).__name__} when it is loaded: put it into the factory")
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ValueError(f"{place} has a state of its own (get_extra_state), which the file cannot hold")
        if module.extra_repr() != other.extra_repr():
            raise ValueError(
                f"{place} has the settings {module.extra_repr()!r}, and would have {other.extra_repr()!r} when it is "
                "loaded: give a factory and arguments with which it is built so"
            )
        if hooks_of(module) != hooks_of(other):
            raise ValueError(
                f"{place} has hooks, which are code and cannot be written: remove them before saving, or let the "
                "factory register them"
            )
    shapes, expected = ({name: (t.shape, t.dtype) for name, t in _tensors(each)} for each in (rebuilt, network))
    if shapes != expected:
        raise ValueError(_list("tensors would be others:", sorted(n for n in expected if shapes.get(n) != expected[n])))


def _reports(network: nn.Module) -> dict[str, Any]:
    """What freezing and conversion said of the network, as plain values."""
    made: dict[str, Any] = {}
    frozen, dynamized = network.__dict__.get("freeze_report"), network.__dict__.get("dynamize_report")
    if isinstance(frozen, FreezeReport):
        made["freeze"] = asdict(frozen)
    if isinstance(dynamized, DynamizeReport):
        made["dynamize"] = [asdict(layer) for layer in dynamized]
    return made


def _read_reports(reports: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if "freeze" in reports:
        made["freeze_report"] = FreezeReport(**{**reports["freeze"], "layers": tuple(reports["freeze"]["layers"])})
    if "dynamize" in reports:
        made["dynamize_report"] = DynamizeReport(tuple(LayerReport(**layer) for layer in reports["dynamize"]))
    return made
