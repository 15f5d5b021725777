"""Weights into a network of the zoo, by name: its own, or those of its static twin."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from dynaconv.conversion import load_static
from dynaconv.conversion.load import read_safetensors
from dynaconv.errors import UserError, shortened, suggest
from dynaconv.layers import DynamicLayer

WEIGHTS = "model.safetensors"


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    classifier: bool = True,
    noise: float = 0.0,
) -> list[str]:
    """Load a state dict; that of the static twin (also timm's checkpoint of it) is converted.

    Args:
        model: a network of the zoo; unchanged if anything does not fit.
        source: a safetensors file, a folder with ``model.safetensors``, or a state dict.
        classifier: False does not load the classifier, for other classes.
        noise: of the experts if static weights are converted, see :func:`dynaconv.conversion.dynamize`; with 0 the
            network computes what the static one computed, and experts stay equal in training.

    Returns:
        The keys of ``source`` and of ``model`` that were not loaded: the classifier's if ``classifier`` is False.

    Raises:
        UserError: no such file, a damaged one, or tensors that are missing, unknown or of another shape, all named.
    """
    state = dict(source) if isinstance(source, Mapping) else read_weights(Path(source))
    pattern = () if classifier else (f"{_classifier_of(model)}.*",)
    left = sorted({key for key in [*state, *model.state_dict()] if _skipped(key, pattern)})
    if _is_static(state) and any(isinstance(module, DynamicLayer) for module in model.modules()):
        try:
            load_static(model, state, noise=noise, skip=pattern)
        except ValueError as error:
            where = "" if isinstance(source, Mapping) else f"{source}: "
            raise UserError(f"{where}{_with_hint(str(error), model, classifier)}") from error
        return left
    wanted = {key: tensor for key, tensor in model.state_dict().items() if not _skipped(key, pattern)}
    given = {key: tensor for key, tensor in state.items() if not _skipped(key, pattern)}
    problems = _problems(wanted, given)
    if problems:
        what = "the checkpoint" if isinstance(source, Mapping) else str(source)
        raise UserError(_with_hint(f"{what} does not fit: {shortened(problems)}", model, classifier))
    model.load_state_dict(given, strict=False)
    return left


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a folder with one. Pickle files are refused without reading them."""
    return read_safetensors(path / WEIGHTS if path.is_dir() else path)[0]


def _is_static(state: Mapping[str, Tensor]) -> bool:
    return not any(".router." in key or tensor.dim() == 5 for key, tensor in state.items())


def _problems(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    lines = [
        f"{key} has shape {tuple(given[key].shape)}; expected {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in given and given[key].shape != tensor.shape
    ]
    lines += [f"{key} is missing" for key in wanted if key not in given]
    return lines + [f"{key} is unknown. {suggest(key, wanted, limit=3)}" for key in given if key not in wanted]


def _with_hint(message: str, model: nn.Module, classifier: bool) -> str:
    if classifier and f"{_classifier_of(model)}." in message:
        return f"{message}. For other classes, classifier=False loads everything else"
    return message


def _classifier_of(model: nn.Module) -> str:
    config = cast(Mapping[str, str], getattr(model, "pretrained_cfg", {}))
    return config.get("classifier") or "classifier"


def _skipped(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)
