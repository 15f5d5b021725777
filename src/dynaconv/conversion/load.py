"""Load a static network's weights into its dynamic twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from dynaconv.conversion.layer import make_bank, normalise_start
from dynaconv.errors import suggest
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
    banks = {
        f"{name}.{part}" if name else part
        for name, module in model.named_modules()
        if isinstance(module, DynamicLayer)
        for part in ("weight", "bias", "gain")
    }
    routers = [module for module in model.modules() if getattr(module, "is_router", False)]
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
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise ValueError(f"the checkpoint does not fit: {shown}. Leave keys out with skip=(...)")
