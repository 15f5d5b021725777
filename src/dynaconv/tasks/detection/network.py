"""From a network's name to a detector for given classes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dynaconv.errors import UserError, suggest
from dynaconv.tasks.network import ModelSpec, build_model

FAMILY = "ssd300_"


def build_detector(
    spec: ModelSpec, classes: int, image_size: int, *, pretrained: bool = False, weights: Path | None = None
) -> nn.Module:
    """An SSD network for ``classes`` kinds of objects; the background is one more.

    Raises:
        UserError: no detector, or options that it does not take.
    """
    if not spec.name.startswith(FAMILY):
        import timm

        import dynaconv.models  # noqa: F401 - makes the papers' networks known to timm

        known = timm.list_models(f"{FAMILY}*")
        raise UserError(f"{spec.name} is no network for detection. {suggest(spec.name, known)}")
    if spec.method is not None:
        raise UserError(
            f"--method {spec.method} is for networks of classification; detectors are dynamic by name, such as "
            f"{FAMILY}condconv_mobilenetv1_050, or static, such as {FAMILY}mobilenetv1_050."
        )
    sized = spec.model_copy(update={"args": {**spec.args, "size": image_size}})
    return build_model(sized, classes + 1, pretrained=pretrained, weights=weights)
