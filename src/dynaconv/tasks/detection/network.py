"""From a network's name to a detector for given classes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dynaconv.errors import UserError, blame_input, suggest
from dynaconv.tasks.network import ModelSpec, build_model

FAMILY = "ssd300_"


def build_detector(
    spec: ModelSpec, classes: int, image_size: int, *, pretrained: bool = False, weights: Path | None = None
) -> nn.Module:
    """An SSD network for ``classes`` kinds of objects; the background is one more.

    A method makes the backbone of a static detector dynamic, its extra feature layers too; the predictors stay static,
    as in the paper. Where the paper has that network (``ssd300_condconv_*``), prefer it: its first blocks are static.

    Raises:
        UserError: no detector, options that it does not take, or a method for a detector that is dynamic already.
    """
    if not spec.name.startswith(FAMILY):
        import timm

        import dynaconv.models  # noqa: F401 - makes the papers' networks known to timm

        known = timm.list_models(f"{FAMILY}*")
        raise UserError(f"{spec.name} is no network for detection. {suggest(spec.name, known)}")
    sized = spec.model_copy(update={"args": {**spec.args, "size": image_size}})
    if spec.method is None:
        return build_model(sized, classes + 1, pretrained=pretrained, weights=weights)
    _check_static(spec)
    from dynaconv.conversion import METHODS, dynamize

    plain = sized.model_copy(update={"method": None, "experts": None, "share": None})
    detector = build_model(plain, classes + 1, pretrained=pretrained)
    experts = spec.experts or METHODS[spec.method].experts
    donors = [build_model(plain, classes + 1) for _ in range(experts - 1)]
    with blame_input():
        dynamize(
            detector.get_submodule("backbone"),
            method=spec.method,
            experts=experts,
            share=spec.share,
            donors=[donor.get_submodule("backbone") for donor in donors],
            input_size=(3, image_size, image_size),
            inplace=True,
        )
    if weights is not None:
        from dynaconv.tasks.weights import load_weights_into

        load_weights_into(detector, weights, whole=False)
    return detector


def _check_static(spec: ModelSpec) -> None:
    from dynaconv.models import TWINS

    if spec.name in TWINS:
        return
    static = next((name for name, (_, twin) in TWINS.items() if twin == spec.name), None)
    raise UserError(
        f"--method {spec.method} makes a static detector dynamic, and {spec.name} is dynamic already. Leave --method "
        f"out, or choose {static or 'a static detector'}."
    )
