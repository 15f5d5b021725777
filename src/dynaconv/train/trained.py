"""A trained network back from its weights file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dynaconv.data import Preprocess
from dynaconv.errors import UserError
from dynaconv.train.build import ModelSpec, build_model
from dynaconv.train.finetune import differences
from dynaconv.train.output import BEST, LAST
from dynaconv.train.weights import load_weights


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, and how to use it."""

    model: nn.Module
    classes: list[str]
    preprocess: Preprocess
    path: Path


def load_trained(path: Path) -> Trained:
    """Rebuild the network of a run folder (its best weights) or of a weights file.

    Raises:
        UserError: nothing there, damaged, or written by another program.
    """
    if path.is_dir():
        path = next((path / name for name in (BEST, LAST) if (path / name).is_file()), path / BEST)
    tensors, about = load_weights(path)
    missing = [name for name in ("model", "classes", "preprocess") if name not in about]
    if missing:
        raise UserError(f"{path} does not say its {', '.join(missing)}; expected weights written by 'dynaconv train'.")
    preprocess = Preprocess(**about["preprocess"])
    spec = ModelSpec(**about["model"])
    model = build_model(spec, len(about["classes"]), image_size=preprocess.image_size, blank=True)
    wrong = differences(model, tensors)
    if wrong:
        raise UserError(
            f"{path} does not fit the model {about['model']['name']!r} as it is built here: {'; '.join(wrong[:4])}. "
            "Was it written by another version of timm or dynaconv?"
        )
    model.load_state_dict(tensors)
    return Trained(model.eval(), list(about["classes"]), preprocess, path)
