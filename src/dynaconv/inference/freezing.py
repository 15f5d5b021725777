"""``dynaconv.freeze``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.conversion.observe import guess_sizes
from dynaconv.conversion.references import held_beside_tree
from dynaconv.counting.dry_run import independent_copy
from dynaconv.errors import suggest
from dynaconv.inference.bank import check_bank_dtype
from dynaconv.inference.comparison import compare
from dynaconv.inference.compiled import compile_options
from dynaconv.inference.layer import CHOICES, FrozenLayer
from dynaconv.inference.norm_folding import (
    activation_of,
    affine_of,
    after_norm,
    can_freeze,
    find_pairs,
    fold_static,
    why_not_frozen,
)
from dynaconv.inference.rounding import check_rounding
from dynaconv.inference.router import freeze_router
from dynaconv.kernels.cpu.arguments import Activation
from dynaconv.layers import DynamicLayer
from dynaconv.notebook import html_table
from dynaconv.torch_private import carry_hooks


@dataclass(frozen=True, kw_only=True)
class FreezeReport:
    """What :func:`freeze` did, and how far its outputs are from the network's.

    Attributes:
        layers: dynamic layers that were frozen.
        norms: batch norms that were folded, by the convolution that took them.
        error: largest difference of the outputs on random inputs, relative to their largest value.
        top1_agreement: share of those inputs for which the largest output is the same one; None where outputs are not
            ``(B, classes)``. Random inputs are no images: for a reduced bank measure accuracy on data too.
        left: dynamic layers that were not frozen, and why.
        own_error: where ``error`` is more than rounding, and the network amplifies rounding: how far its own outputs
            are from those in float64. None elsewhere.
    """

    layers: tuple[str, ...]
    norms: dict[str, str]
    error: float
    top1_agreement: float | None
    left: dict[str, str] = field(default_factory=dict)
    own_error: float | None = None

    def __str__(self) -> str:
        left = f", {len(self.left)} left as they were" if self.left else ""
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {100 * self.top1_agreement:.1f} %"
        own = "" if self.own_error is None else f" (the network's own rounding: {self.own_error:.1e})"
        return (
            f"{len(self.layers)} dynamic layers frozen{left}, {len(self.norms)} batch norms folded; "
            f"largest error {self.error:.1e} of the largest output{own}{agreement}"
        )

    def _repr_html_(self) -> str:
        """What became of every layer, for notebooks."""
        norm_of = {convolution: norm for norm, convolution in self.norms.items()}
        rows = [(name, "frozen", f"took {norm_of[name]}" if name in norm_of else "") for name in self.layers]
        rows += [
            (name, "ordinary", f"took {norm}") for norm, name in self.norms.items() if name not in set(self.layers)
        ]
        rows += [(name, "left", reason) for name, reason in self.left.items()]
        return html_table(("layer", "now", "norm, or why"), rows, notes=[str(self)])


def freeze(
    model: nn.Module,
    *,
    bank_dtype: str | None = None,
    compile: bool = False,
    strategy: str | None = None,
    input_size: Sequence[int] | None = None,
    examples: Tensor | None = None,
) -> nn.Module:
    """Return a copy of a network for inference: the same outputs, in less time.

    Batch norm is folded into every expert of the convolution before it (into ordinary convolutions too), the
    temperature into the router's last layer. Banks get the layout in which they are mixed. The kernels of ordinary
    convolutions become channels_last, and so do all activations. Then both networks run on the same inputs, and every
    tensor in their outputs is compared.

    Frozen layers and routers keep the hooks of the originals. A convolution or a norm with hooks is not folded.

    Args:
        model: any network, dynamic or not; it is not changed. The copy is in evaluation mode.
        bank_dtype: None keeps the experts' precision; ``"bfloat16"`` stores half the bytes of float32, ``"int8"`` a
            quarter (one scale for every output channel of every expert). Reading the bank bounds the time at batch 1.
            Casting the copy later (``.half()`` ...) leaves a reduced bank as it is stored.
        compile: compile the copy with torch.compile (needs a C++ compiler; the first call of every batch size takes a
            minute). Not saved with the network: after loading call
            ``network.compile(**dynaconv.inference.compile_options())``.
        strategy: None or ``"auto"`` chooses for every call (``layer.plan(x)`` says what and why): where it can, a
            kernel of our own that does the whole layer in one call, ``"frozen"``; else one of the ordinary strategies.
            A name is obeyed by every layer; where one cannot, this function raises.
        input_size: ``(C, *space)`` of one example, for networks whose input is not an image of the usual size.
        examples: inputs to compare on, ``(B, C, *space)``, instead of 8 random ones (for a reduced bank, real ones).

    Returns:
        The copy, with a :class:`FreezeReport` in its attribute ``freeze_report``.

    Raises:
        ValueError: an unknown word; an input size that is not known or does not run; outputs without a tensor that
            could be compared.
        RuntimeError: the copy's outputs differ from the network's by more than rounding (as float64 shows it, where the
            network amplifies rounding). Nothing is returned then.

    Deviation: transposed dynamic layers, subclasses with a forward of their own, layers whose weight is computed, and
    routers of classes of your own stay as they are; ``freeze_report.left`` names such layers.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; expected a torch.nn.Module")
    check_bank_dtype(bank_dtype)
    chosen = "auto" if strategy is None else strategy
    if chosen not in CHOICES:
        raise ValueError(f"strategy is {strategy!r}. {suggest(str(strategy), CHOICES)}")
    original = _evaluated_copy(model)
    inputs = _inputs(original, input_size) if examples is None else examples
    run = _runner(inputs)
    norms = find_pairs(original, _runner(inputs[:2]))
    expected = run(original)
    left, norms = _left(original, norms)
    frozen, layers = _replace(copy.deepcopy(original), norms, left, None, chosen)
    actual = run(frozen)
    found = compare(expected, actual)
    own_error = check_rounding(
        found, expected, actual, original, inputs, lambda network: _replace(network, norms, left, None, "auto")[0]
    )
    if bank_dtype is not None:
        frozen, layers = _replace(original, norms, left, bank_dtype, chosen)
        found = compare(expected, run(frozen))
        if not found.error < float("inf"):
            raise RuntimeError(f"bank_dtype={bank_dtype!r} makes outputs infinite or NaN ({found.where}); keep None")
    frozen.__dict__["freeze_report"] = FreezeReport(
        layers=layers,
        norms=norms,
        error=found.error,
        top1_agreement=found.top1_agreement,
        left=left,
        own_error=own_error,
    )
    if compile:
        frozen.compile(**compile_options())
    return frozen


def _dynamic(model: nn.Module) -> list[tuple[str, DynamicLayer]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, DynamicLayer)]


def _left(model: nn.Module, norms: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Why dynamic layers stay as they are, and those of the pairs ``{norm: convolution}`` that can be folded."""
    held = held_beside_tree(model)
    left = {}
    for name, layer in _dynamic(model):
        reason = why_not_frozen(layer)
        if reason is None and layer in held:
            reason = f"{held[layer]} holds it too, and would go on with it as it is"
        if reason is not None:
            left[name] = reason
    folded = {
        norm: convolution
        for norm, convolution in norms.items()
        if convolution not in left and model.get_submodule(norm) not in held
    }
    return left, folded


def _evaluated_copy(model: nn.Module) -> nn.Module:
    made = independent_copy(model).eval()
    return made.requires_grad_(False)


def _inputs(model: nn.Module, input_size: Sequence[int] | None) -> Tensor:
    like = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.zeros(()))
    sizes = [tuple(input_size)] if input_size is not None else guess_sizes(model)
    generator = torch.Generator().manual_seed(0)
    failures = []
    for size in sizes:
        inputs = torch.randn(8, *size, generator=generator, device="cpu").to(like.device, like.dtype)
        try:
            with torch.no_grad():
                model(inputs[:1])
            return inputs
        except Exception as error:  # a wrong guess fails in whichever way the network likes
            failures.append(f"{size}: {error}")
    raise ValueError(
        "the outputs must be compared, and the network did not run on "
        f"{'; '.join(failures) or 'any usual input'}: give input_size=(channels, *space), or examples"
    )


def _runner(inputs: Tensor) -> Callable[[nn.Module], Any]:
    def run(network: nn.Module) -> Any:
        with torch.no_grad():
            return network(inputs)

    return run


def _replace(
    model: nn.Module, norms: dict[str, str], left: dict[str, str], bank_dtype: str | None, strategy: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """Fold every pair and put the frozen layers in place."""
    affine = {convolution: affine_of(model.get_submodule(norm)) for norm, convolution in norms.items()}
    activations: dict[str, Activation | None] = {}
    for norm, convolution in norms.items():
        old = model.get_submodule(norm)
        after = after_norm(old)
        if can_freeze(model.get_submodule(convolution)):
            activations[convolution] = activation_of(after)
            after = nn.Identity() if activations[convolution] else after
        _put(model, old, after)
    for name, module in list(model.named_modules()):
        if name in affine and not can_freeze(module):
            fold_static(module, affine[name])
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    layers = {name: layer for name, layer in _dynamic(model) if name not in left}
    for router in {id(module): module for module in model.modules() if getattr(module, "is_router", False)}.values():
        _put(model, router, freeze_router(router))
    for name, layer in layers.items():
        made = FrozenLayer.of(
            layer,
            affine.get(name),
            layer.router,
            bank_dtype=bank_dtype,
            strategy=strategy,
            activation=activations.get(name),
        ).eval()
        carry_hooks(layer, made)
        if not name:
            return made, ("",)
        _put(model, layer, made)
    return model, tuple(layers)


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace ``old`` by ``new`` wherever it is used: a module that is used twice stays one module."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old and new is not old:
                setattr(parent, name, new)
