"""Convert any network into its dynamic twin."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.conversion.blocks import feature_map, find_blocks
from dynaconv.conversion.choice import Patterns, Selection
from dynaconv.conversion.layer import Ordinary, convert, normalise_start
from dynaconv.conversion.method import check_share, find_method
from dynaconv.conversion.observe import Observation, guess_sizes, observe
from dynaconv.conversion.report import DynamizeReport, LayerReport
from dynaconv.counting.dry_run import independent_copy
from dynaconv.layers import DynamicLayer
from dynaconv.routing import Scope, ScopedRouter, check_experts, find_router, share_router

RouterFactory = Callable[[int, int], nn.Module]


def dynamize(
    model: nn.Module,
    *,
    method: str = "dynamic",
    experts: int | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    share: str | None = None,
    noise: float = 0.1,
    router: RouterFactory | str | None = None,
    donors: Sequence[nn.Module] | None = None,
    input_size: Sequence[int] | None = None,
    inputs: Any = None,
    inplace: bool = False,
) -> nn.Module:
    """Return the dynamic twin of a network: the same network with dynamic layers in place of ordinary ones.

    The twin starts from the static weights: every expert is a copy of the kernel plus noise that sums to zero over the
    experts, and routing weights sum to one (sigmoid routers are initialised so). With ``noise=0`` it computes exactly
    what the network computed, so training can continue from pretrained weights. Everything that was not replaced keeps
    its name; a replaced layer keeps its name too, and its ``weight`` becomes the bank ``(K, *kernel)``.

    Args:
        model: any ``nn.Module``; left untouched unless ``inplace``.
        method: ``"dynamic"`` (Chen et al. 2020: 4 experts, softmax router per layer) or ``"condconv"`` (Yang et al.
            2019: 8 experts, sigmoid router per block).
        experts: K; the method's own by default.
        include: the layers to replace, instead of every convolution but the first and those of squeeze-and-excitation:
            a shell pattern over names, a class, a callable ``(name, module) -> bool``, or several of these. This is the
            way to make linear layers (a classifier) dynamic. A layer whose kernel is fixed (``requires_grad=False``)
            beside others that train is left unless it is named here. Where no parameter of the network trains (a frozen
            feature extractor), that says nothing of a layer: it becomes dynamic, its experts stay fixed, and of the
            twin the routers alone train.
        exclude: layers to leave, in the same ways.
        share: ``"layer"`` (a router each) or ``"block"`` (one per block, computed from the block's input); the
            method's own by default.
        noise: standard deviation of the noise, relative to the root mean square of the layer's kernel. Equal experts
            get equal gradients and stay equal, so use 0 to compare outputs and not to train.
        router: ``"sigmoid"``, ``"softmax"`` or a callable ``(in_channels, experts) -> module`` instead of the method's.
        donors: K - 1 networks of the same architecture, whose kernels become experts 2 to K: for training from scratch,
            freshly built ones give every expert the network's own initialisation, as both papers have it. Noise is
            not added then, and routers keep their own initialisation.
        input_size: ``(C, *space)`` of one example, for networks whose input is not an image of the usual size. Used to
            run the network once, without numbers where it can, and see what its layers and blocks receive.
        inputs: instead of ``input_size``, for networks that take more than one tensor: a tuple of positional arguments
            or a dictionary of keyword arguments, with the batch dimension. Meta tensors will do.
        inplace: change ``model`` itself.

    Returns:
        The twin, with a :class:`DynamizeReport` in its attribute ``dynamize_report``.

    Warns:
        UserWarning: more of the layers that were to become dynamic were left than replaced; the most frequent reasons.

    Raises:
        ValueError: an unknown method or router, a pattern that matches nothing, nothing to replace, donors that do not
            fit, or ``share="block"`` for a network that could not be observed. The model is unchanged then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; expected a torch.nn.Module")
    settings, donors = find_method(method), donors or ()
    if isinstance(router, str):
        router = find_router(router)
    count = len(donors) + 1 if donors and experts is None else settings.experts if experts is None else experts
    check_experts(count)
    if donors and len(donors) != count - 1:
        raise ValueError(
            f"{len(donors)} donors for {count} experts; expected {count - 1}, the model is the first expert"
        )
    if not 0.0 <= noise < math.inf:
        raise ValueError(f"noise is {noise!r}; expected a number of at least 0")
    shared = check_share(settings.share if share is None else share) == "block"
    seen = observe(model, input_size, inputs)
    if shared and seen is None:
        raise ValueError(
            f"share='block' needs to see what the blocks receive, and {type(model).__name__} did not run on "
            f"{_sizes_tried(model)}; give input_size=(channels, *space) of one example, or inputs=(...) for a model "
            "that takes more than one tensor, or share='layer'"
        )
    selection = Selection(model, include, exclude, seen)
    decisions = {name: selection.refusal(name, module) for name, module in selection.layers}
    chosen = [name for name, refusal in decisions.items() if refusal is None]
    if not chosen:
        reasons = "; ".join(sorted({reason for reason in decisions.values() if reason}))
        raise ValueError(f"nothing to replace in {type(model).__name__}: {reasons or 'it has no convolution'}")
    hindered = [reason for name, module in selection.layers if (reason := selection.hindrance(name, module))]
    if len(hindered) > len(chosen):
        _warn_of_left(type(model).__name__, len(chosen), hindered)
    twin = model if inplace else independent_copy(model)
    plan = _Conversion(twin, method, count, router or settings.router, noise, donors, seen if shared else None)
    result = plan.run(chosen)
    report = DynamizeReport(
        tuple(
            LayerReport(
                name=name,
                kind=type(module).__name__,
                replaced=decisions[name] is None,
                reason=decisions[name] or plan.notes[name],
                router=plan.routers.get(name, ""),
            )
            for name, module in selection.layers
        )
    )
    result.__dict__["dynamize_report"] = report  # past nn.Module.__setattr__: it is no parameter, buffer or child
    return result


def _warn_of_left(network: str, replaced: int, reasons: Sequence[str]) -> None:
    """Say that most of the layers that were meant to become dynamic did not, and the most frequent reasons."""
    most = "; ".join(f"{number}: {reason}" for reason, number in Counter(reasons).most_common(3))
    warnings.warn(
        f"{len(reasons)} of the {len(reasons) + replaced} layers of {network} that were to become dynamic were left "
        f"({most}). `dynamize_report` of the twin has every layer's reason",
        stacklevel=3,
    )


def _sizes_tried(model: nn.Module) -> str:
    sizes = dict.fromkeys(guess_sizes(model))
    return "inputs of the usual sizes: " + ", ".join(map(str, sizes)) if sizes else "any usual input (no convolution)"


@dataclass(frozen=True)
class _Shared:
    """A scope under construction: its key, and the name of its block."""

    scope: Scope
    block: str


class _Conversion:
    """Replaces the chosen layers of one network; remembers which router each of them uses, and why."""

    def __init__(
        self,
        twin: nn.Module,
        method: str,
        experts: int,
        router: RouterFactory,
        noise: float,
        donors: Sequence[nn.Module],
        seen: Observation | None,
    ) -> None:
        self.twin, self.method, self.experts, self.router = twin, method, experts, router
        self.noise, self.donors, self.seen = noise, donors, seen
        self.routers: dict[str, str] = {}
        self.notes: dict[str, str] = {}

    def run(self, names: Sequence[str]) -> nn.Module:
        parts = {name: [_part(donor, name, self.twin.get_submodule(name)) for donor in self.donors] for name in names}
        scopes = self._open_scopes(names) if self.seen is not None else {}
        for name in names:
            made = self._convert(name, scopes.get(name), parts[name])
            if not name:
                return made
            self.twin.set_submodule(name, made)
        return self.twin

    def _open_scopes(self, names: Sequence[str]) -> dict[str, _Shared]:
        assert self.seen is not None
        blocks = find_blocks(self.twin, names)
        opened: dict[str, _Shared | str] = {}
        scopes = {}
        for name in names:
            block = blocks[name]
            if block not in opened:
                opened[block] = self._open_scope(block, len(getattr(self.twin.get_submodule(name), "kernel_size", ())))
            found = opened[block]
            if isinstance(found, str):
                self.notes[name] = f"replaced, with a router of its own: {found}"
            else:
                scopes[name] = found
                self.notes[name] = f"replaced, with the router of {block}"
        return scopes

    def _open_scope(self, block: str, dims: int) -> _Shared | str:
        assert self.seen is not None
        found = feature_map(self.twin, block, dims, self.seen)
        if isinstance(found, str):
            return found
        reads, channels = found
        module = self.twin.get_submodule(block)
        like = next(module.parameters())
        with torch.device(like.device):
            router = self._started(self.router(channels, self.experts)).to(dtype=like.dtype)
        return _Shared(share_router(module, router.train(module.training), name=block, reads=reads), block)

    def _convert(self, name: str, shared: _Shared | None, parts: Sequence[nn.Module]) -> DynamicLayer:
        module: Ordinary = self.twin.get_submodule(name)
        channels = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        router: nn.Module | RouterFactory
        if shared is None:
            self.routers[name] = name
            self.notes.setdefault(name, "replaced, with a router of its own")
            router = self._make
        else:
            self.routers[name] = shared.block
            router = ScopedRouter(shared.scope, channels, self.experts)
        return convert(module, method=self.method, experts=self.experts, router=router, donors=parts, noise=self.noise)

    def _make(self, in_channels: int, experts: int) -> nn.Module:
        return self._started(self.router(in_channels, experts))

    def _started(self, router: nn.Module) -> nn.Module:
        if not self.donors:
            normalise_start(router)
        return router


def _part(donor: nn.Module, name: str, like: Ordinary) -> nn.Module:
    """The donor's layer of that name; it must be of the same kind and shape."""
    try:
        part: Ordinary = donor.get_submodule(name)
    except AttributeError:
        raise ValueError(f"a donor has no layer {name!r}; donors must be of the same architecture") from None
    weight = getattr(part, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
    if type(part) is not type(like) or shape != tuple(like.weight.shape):
        raise ValueError(
            f"a donor's {name!r} is {type(part).__name__} {shape}; expected {type(like).__name__} "
            f"{tuple(like.weight.shape)}: donors must be of the same architecture"
        )
    return part
