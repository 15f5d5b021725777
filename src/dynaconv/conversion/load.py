"""Load a static network's weights into its dynamic twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from dynaconv.conversion.layer import make_bank, normalise_start
from dynaconv.errors import UserError, shortened, suggest
from dynaconv.layers import DynamicLayer


def load_static(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, noise: float = 0.0, skip: Sequence[str] = ()
) -> list[str]:
    """Fill a dynamic network from the checkpoint of its static twin, by name.

    Every kernel becomes K experts (copies, plus noise as in :func:`dynamize`), sigmoid routers are set to sum to one:
    with ``noise=0`` the network then computes what the static one computed.

    Args:
        model: a dynamic network; unchanged if anything does not fit.
        state_dict: of the static twin.
        noise: see :func:`dynamize`.
        skip: shell patterns of keys to leave as they are in ``model``, e.g. ``("classifier.*",)`` for other classes.

    Returns:
        The keys whose kernels or biases were copied into experts.

    Raises:
        ValueError: keys that are missing, unknown or of another shape, all named.
    """
    own = model.state_dict()
    banks, routers = _banks(model), _routers(model)
    of_routers = {id(tensor) for router in routers for tensor in router.state_dict(keep_vars=True).values()}
    wanted = [
        key
        for key, tensor in model.state_dict(keep_vars=True).items()
        if id(tensor) not in of_routers and not _skipped(key, skip)
    ]
    given = {key: tensor for key, tensor in state_dict.items() if not _skipped(key, skip)}
    _check(own, wanted, given, banks)
    upgraded = [key for key in wanted if key in banks and given[key].shape == own[key].shape[1:]]
    for key in upgraded:
        dynamic = noise if key.rpartition(".")[2] == "weight" else 0.0
        given[key] = make_bank([given[key]], own[key].shape[0], dynamic)
    for router in routers:
        normalise_start(router)
    with torch.no_grad():
        model.load_state_dict(given, strict=False)
    return upgraded


@dataclass(frozen=True)
class Fitting:
    """What of a state dict fits a network.

    Attributes:
        loaded: keys that were taken.
        upgraded: those of them whose kernels or biases became experts.
        problems: a line for every key that was not taken, or that the state dict lacks; it begins with the key.
    """

    loaded: tuple[str, ...]
    upgraded: tuple[str, ...]
    problems: tuple[str, ...]


def load_fitting(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, noise: float = 0.1, dry: bool = False
) -> Fitting:
    """Load what fits by name and shape; an ordinary layer's kernel fits a dynamic layer, as in :func:`load_static`.

    Unlike :func:`load_static` this raises no errors for what does not fit: the caller decides what may be left.

    Args:
        noise: of experts that are made of one kernel; equal experts would stay equal in training.
        dry: only say what fits.
    """
    own = model.state_dict()
    banks = _banks(model)
    upgraded = [
        key
        for key in own
        if key in banks and key in state_dict and state_dict[key].shape == own[key].shape[1:] != own[key].shape
    ]
    loaded = [key for key in own if key in state_dict and state_dict[key].shape == own[key].shape]
    routers = _routers(model)
    drawn = {id(tensor) for router in routers for tensor in router.state_dict(keep_vars=True).values()}
    new = (
        {key for key, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in drawn} if upgraded else set()
    )
    problems = []
    for key, tensor in own.items():
        if key in state_dict and key not in loaded and key not in upgraded:
            problems.append(f"{key} is {tuple(state_dict[key].shape)} there and {tuple(tensor.shape)} here")
        elif key not in state_dict and key not in new:
            problems.append(f"{key} is not there")
    problems += [f"{key} is there only" for key in state_dict if key not in own]
    if not dry:
        given = {key: state_dict[key] for key in loaded}
        for key in upgraded:
            dynamic = noise if key.rpartition(".")[2] == "weight" else 0.0
            given[key] = make_bank([state_dict[key]], own[key].shape[0], dynamic)
        if upgraded:
            for router in routers:
                normalise_start(router)
        with torch.no_grad():
            model.load_state_dict(given, strict=False)
    return Fitting(tuple(loaded + upgraded), tuple(upgraded), tuple(problems))


def _banks(model: nn.Module) -> set[str]:
    return {
        f"{name}.{part}" if name else part
        for name, module in model.named_modules()
        if isinstance(module, DynamicLayer)
        for part in ("weight", "bias", "gain")
    }


def _routers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if getattr(module, "is_router", False)]


def _skipped(key: str, skip: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in skip)


def _check(own: Mapping[str, Tensor], wanted: Sequence[str], given: Mapping[str, Tensor], banks: set[str]) -> None:
    problems = [f"{key} is missing" for key in wanted if key not in given]
    problems += [f"{key} is unknown. {suggest(key, wanted, limit=3)}" for key in given if key not in set(wanted)]
    for key in wanted:
        if key not in given:
            continue
        came, expected = tuple(given[key].shape), tuple(own[key].shape)
        if came != expected and not (key in banks and came == expected[1:]):
            kernel = f" or {expected[1:]} for each expert" if key in banks else ""
            problems.append(f"{key} has shape {came}; expected {expected}{kernel}")
    if problems:
        raise ValueError(f"the checkpoint does not fit: {shortened(problems)}. Leave keys out with skip=(...)")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Pickle files are refused without reading them.

    Raises:
        UserError: no such file, one that cannot be read, or not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"There are no weights at {path}.")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise UserError(f"The weights {path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}). Pickled weights (.pt, .pth, .bin) are not read here: "
            "they may run code. Use a run's best.safetensors, or its folder."
        ) from error
