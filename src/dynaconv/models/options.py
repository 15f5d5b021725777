"""The options of a network: everything that a table of the two papers varies."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

from dynaconv.errors import suggest
from dynaconv.models.spec import NetworkSpec
from dynaconv.routing import check_experts

ROUTINGS = (
    "sigmoid",
    "single",
    "partially_shared",
    "hidden_small",
    "hidden_medium",
    "hidden_large",
    "hierarchical",
    "softmax",
)
CONVOLUTIONS = ("C1", "C2", "C3")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options, as keyword arguments of every registered network; None means the network's default.

    Attributes:
        experts: K, at least 1.
        routing: the routing function. Yang et al. 2019, Table 3: ``"sigmoid"`` (the baseline: one linear layer per
            scope), ``"single"`` (the first scope's weights for all), ``"partially_shared"`` (every second scope reuses
            the one before), ``"hidden_small"``, ``"hidden_medium"``, ``"hidden_large"`` (a hidden ReLU layer of C/8, C,
            8C), ``"hierarchical"`` (the scope before is fed in) and ``"softmax"`` (in the CondConv networks in place of
            the sigmoid; in the DY networks the router of Chen et al. 2020, figure 3).
        begin: the layer with which the dynamic layers begin, in the count of Yang et al. 2019, Table 4: 1 is the stem,
            then one per block, then the last 1x1 convolution where there is one, then the classifier (MobileNetV1: 7 is
            the sixth separable block, 15 the classifier).
        dynamic_head: whether the last 1x1 convolution is dynamic.
        dynamic_classifier: whether the classifier is ("No FC" of Table 4: False).
        convs: which convolutions of a block are dynamic, of ``"C1"`` (expansion), ``"C2"`` (depthwise), ``"C3"``
            (projection; Chen et al. 2020, Table 5), as a sequence or a text such as ``"C1 C3"``. Residual blocks number
            theirs in order.
        temperature: initial temperature of the softmax routers: 30 in the DY networks, else 1.
        expert_dropout: probability with which a router drops an expert in training.
        depth_multiplier: scales the number of blocks of every group, at least one each (Chen et al. 2020, figure 6:
            1.0, 0.7, 0.5); to the nearest below 1, up above 1 as EfficientNet does.
        width_multiplier: scales the channels of every layer, in place of the width in the network's name (Chen et al.
            2020, figure 6: 1.0, 0.75, 0.5, 0.35); mobile networks round to multiples of 8.
        se: squeeze-and-excitation on or off, in networks that have it.
        static: build the static twin; the other options are checked, and those about routing have no effect.
    """

    experts: int | None = None
    routing: str | None = None
    begin: int | None = None
    dynamic_head: bool | None = None
    dynamic_classifier: bool | None = None
    convs: str | Sequence[str] | None = None
    temperature: float | None = None
    expert_dropout: float = 0.0
    depth_multiplier: float | None = None
    width_multiplier: float | None = None
    se: bool | None = None
    static: bool = False

    def __post_init__(self) -> None:
        if self.experts is not None:
            check_experts(self.experts)
        if self.routing is not None:
            _check_word("routing", self.routing, ROUTINGS)
        for name in ("dynamic_head", "dynamic_classifier", "se", "static"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}; expected True or False")
        depth = self.depth_multiplier
        if depth is not None and not (_is_number(depth) and 0 < depth <= 10):
            raise ValueError(f"depth_multiplier is {depth!r}; expected a number above 0, such as 1.0, 0.7 or 0.5")
        if self.width_multiplier is not None:
            check_width(self.width_multiplier)
        if self.begin is not None and (not isinstance(self.begin, int) or isinstance(self.begin, bool)):
            raise ValueError(f"begin is {self.begin!r}; expected the number of a layer, from 1 (the stem)")

    @classmethod
    def take(cls, arguments: dict[str, Any]) -> Options:
        """Remove the options from ``arguments`` and return them; other arguments stay there."""
        names = [field.name for field in fields(cls) if field.name in arguments]
        return cls(**{name: arguments.pop(name) for name in names})


@dataclass(frozen=True, kw_only=True)
class Design:
    """The options about the dynamic layers of one network, resolved and checked; ``begin`` may still be that of the
    block group."""

    method: str
    experts: int
    routing: str
    begin: int | None
    begin_group: int
    dynamic_head: bool
    dynamic_classifier: bool
    convs: tuple[str, ...]
    temperature: float
    expert_dropout: float

    @classmethod
    def of(cls, spec: NetworkSpec, options: Options) -> Design:
        dynamic = spec.method == "dynamic"
        routing = options.routing or ("softmax" if dynamic else "sigmoid")
        if options.temperature is not None and routing != "softmax":
            raise ValueError(f"temperature is for routing='softmax'; {spec.name} has routing={routing!r}")
        return cls(
            method=spec.method,
            experts=spec.experts if options.experts is None else options.experts,
            routing=routing,
            begin=options.begin,
            begin_group=spec.begin_group,
            dynamic_head=_chosen(options.dynamic_head, spec.dynamic_head),
            dynamic_classifier=_chosen(options.dynamic_classifier, spec.dynamic_classifier),
            convs=_convolutions(options.convs),
            temperature=(30.0 if dynamic else 1.0) if options.temperature is None else options.temperature,
            expert_dropout=options.expert_dropout,
        )


def se_of(spec: NetworkSpec, options: Options) -> bool:
    """Whether squeeze-and-excitation is built; ValueError where the network has none to switch on."""
    if options.se is None:
        return bool(spec.se)
    if options.se and not spec.architecture.has_se:
        raise ValueError(f"se=True, and {spec.name} has no squeeze-and-excitation to switch on; leave `se` out")
    return options.se


def check_arguments(name: str, arguments: Collection[str], known: Collection[str]) -> None:
    """Raise TypeError for an argument that the network does not take, with the nearest that it does."""
    for argument in arguments:
        if argument not in known:
            raise TypeError(f"{name} has no argument {argument!r}. {suggest(argument, known)}")


def check_width(width: object) -> None:
    """Raise ValueError unless a width multiplier is a number from 0.01 to 100."""
    if not (_is_number(width) and isinstance(width, (int, float)) and 0.01 <= width <= 100):
        raise ValueError(f"width_multiplier is {width!r}; expected a number above 0, such as 1.0, 0.5 or 0.35")


def _chosen(option: bool | None, default: bool) -> bool:
    return default if option is None else option


def _convolutions(given: str | Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return CONVOLUTIONS
    words = [word for word in re.split(r"[\s,+]+", given) if word] if isinstance(given, str) else list(given)
    for word in words:
        _check_word("convs", word, CONVOLUTIONS)
    if not words:
        raise ValueError("convs is empty; expected some of 'C1', 'C2', 'C3', or static=True for the static twin")
    return tuple(word for word in CONVOLUTIONS if word in words)


def _check_word(name: str, word: Any, known: Sequence[str]) -> None:
    if word not in known:
        raise ValueError(f"{name} is {word!r}. {suggest(str(word), known)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
