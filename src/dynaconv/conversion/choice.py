"""The choice of the layers that become dynamic, by rules and by ``include`` and ``exclude``, with reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import UninitializedParameter

from dynaconv.conversion.layer import qualified_name, twin_of
from dynaconv.conversion.observe import Observation
from dynaconv.conversion.references import held_beside_tree
from dynaconv.errors import suggest
from dynaconv.layers import DynamicLayer
from dynaconv.torch_private import hooks_of

Pattern = str | type | Callable[[str, nn.Module], bool]
Patterns = Pattern | Sequence[Pattern] | None

# torch's base class of every convolution; there is no public name for it.
_ConvNd = nn.modules.conv._ConvNd

# Attention blocks such as squeeze-and-excitation, which weigh channels or positions. Both papers keep them static.
_GATE = re.compile(
    r"squeeze_?(and_?)?excit|gather_?excit|^(effective)?_?se_?(module|layer|block|unit)?$"
    r"|channel_?att|spatial_?att|^eca_?module|global_?context|cbam",
    re.IGNORECASE,
)


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every convolution and linear layer with each of its names, dynamic layers included."""
    kinds = (_ConvNd, nn.Linear, DynamicLayer)
    return [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, kinds) and not _inside_router(model, name)
    ]


def _inside_router(model: nn.Module, name: str) -> bool:
    parts = name.split(".")
    parents = (".".join(parts[:depth]) for depth in range(1, len(parts)))
    return any(getattr(model.get_submodule(parent), "is_router", False) for parent in parents)


class Selection:
    """The decisions for one model; :meth:`refusal` returns why a layer is left, or None if it becomes dynamic."""

    def __init__(self, model: nn.Module, include: Patterns, exclude: Patterns, seen: Observation | None) -> None:
        self.model, self.seen = model, seen
        self.layers = layers_of(model)
        self.include: list[Pattern] = as_list(include)
        self.exclude: list[Pattern] = as_list(exclude)
        self.chosen_by_name = include is not None
        check_used("include", self.include, self.layers)
        check_used("exclude", self.exclude, self.layers)
        self.first = self._first()
        self._any_trains = any(parameter.requires_grad for parameter in model.parameters())
        self._held = held_beside_tree(model)
        self._names = Counter(id(module) for _, module in self.layers)
        owners = [
            (id(parameter), id(module))
            for module in model.modules()
            for parameter in module._parameters.values()
            if parameter is not None
        ]
        self._owners = Counter(parameter for parameter, _ in set(owners))

    def _first(self) -> str | None:
        """The convolution that runs first; the one registered first if the network could not be observed."""
        names = {name for name, module in self.layers if isinstance(module, _ConvNd)}
        order = self.seen.calls if self.seen is not None else dict.fromkeys(name for name, _ in self.layers)
        return next((name for name in order if name in names), None)

    def refusal(self, name: str, module: nn.Module) -> str | None:
        """Why this layer is left as it is; None if it can and shall be replaced."""
        return self._unwanted(name, module) or self.hindrance(name, module)

    def hindrance(self, name: str, module: nn.Module) -> str | None:
        """Why a layer that was to become dynamic is left: not by the user's choice, nor by the papers'; else None."""
        if self._unwanted(name, module):
            return None
        return self._fixed(module) or self._impossible(name, module)

    def _fixed(self, module: nn.Module) -> str | None:
        weight = module._parameters.get("weight")
        if self.chosen_by_name or weight is None or weight.requires_grad or not self._any_trains:
            return None
        return "its kernel is fixed (requires_grad=False); `include` it to make it dynamic all the same"

    def _unwanted(self, name: str, module: nn.Module) -> str | None:
        if isinstance(module, DynamicLayer):
            return "it is dynamic already"
        if any(matches(pattern, name, module) for pattern in self.exclude):
            return "excluded"
        if self.chosen_by_name:
            return None if any(matches(pattern, name, module) for pattern in self.include) else "not included"
        if isinstance(module, nn.Linear):
            return "linear layers stay static unless `include` names them"
        if name == self.first:
            return "the first convolution stays static, as in both papers"
        gate = self._gate(name)
        return f"inside {gate}, which stays static, as in both papers" if gate else None

    def _gate(self, name: str) -> str | None:
        parts = name.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            kind = type(self.model.get_submodule(".".join(parts[:depth]))).__name__
            if _GATE.search(kind):
                return kind
        return None

    def _impossible(self, name: str, module: nn.Module) -> str | None:
        if twin_of(module) is None:
            return f"{qualified_name(type(module))} has a behaviour of its own that the dynamic layer would lose"
        if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
            return "its weights have no shape yet (a lazy layer); run the model once before"
        if hooks_of(module):
            return "it has hooks (weight norm, spectral norm, one's own), which a replacement would lose"
        if "forward" in vars(module) or "_conv_forward" in vars(module):
            return "its forward was replaced by another function, which a replacement would lose"
        if self._names[id(module)] > 1:
            return "the same module stands in the network under several names"
        if module in self._held:
            return f"{self._held[module]} holds it too, and would go on with the ordinary layer"
        if any(self._owners[id(parameter)] > 1 for parameter in module.parameters()):
            return "it shares a parameter with another module"
        if self.seen is not None and name in self.seen.reads:
            read = " and ".join(sorted(self.seen.reads[name]))
            return f"the network reads its {read} beside calling it, and would find K experts there"
        if self.seen is not None and name and name not in self.seen.calls:
            return "the network's forward does not call it (it reads the weights itself, or never runs)"
        return None


def as_list(patterns: Patterns) -> list[Pattern]:
    """The patterns as a list; one pattern, several or none may be given."""
    if patterns is None:
        return []
    if isinstance(patterns, str) or callable(patterns):
        return [patterns]
    return list(patterns)


def matches(pattern: Pattern, name: str, module: nn.Module) -> bool:
    """Whether a pattern matches: a string as a shell pattern for the name, a class by isinstance, or a callable."""
    if isinstance(pattern, str):
        return fnmatchcase(name, pattern)
    if isinstance(pattern, type):
        return isinstance(module, pattern)
    return bool(pattern(name, module))


def check_used(argument: str, patterns: Iterable[Pattern], layers: Sequence[tuple[str, nn.Module]]) -> None:
    """Raise ValueError for a pattern that matches no layer, which is probably a typing error."""
    for pattern in patterns:
        if not isinstance(pattern, str) and not callable(pattern):
            raise TypeError(
                f"{argument} has {pattern!r}; expected a name pattern, a class or a callable (name, module)"
            )
        if not any(matches(pattern, name, module) for name, module in layers):
            near = suggest(pattern, [name for name, _ in layers]) if isinstance(pattern, str) else ""
            raise ValueError(
                f"{argument} has {pattern!r}, which matches no convolution or linear layer. {near}".strip()
            )
