"""What a study of ``dynaconv ablate`` is, and the arms and recipes that several studies share.

An arm is a network and a training; a study compares each arm with another one. What a paper printed of an arm stands
beside it. Defaults are for a desk: small pictures, short schedules, networks at a fraction of the papers' cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dynaconv.errors import UserError, suggest

YANG, CHEN = "Yang et al. 2019", "Chen et al. 2020"


@dataclass(frozen=True, kw_only=True)
class StudyArm:
    """One arm, relative to its study's network and recipe.

    Attributes:
        slug, label: its name in files, and for people.
        args: arguments of the network, laid over the study's.
        method, experts, share, router, hidden: make the network's convolutions dynamic, see
            :class:`~dynaconv.tasks.network.ModelSpec`.
        training: settings laid over the study's.
        published: what the paper prints of it, in percent.
        against: slug of the arm that it is compared with; "" for none.
        direction: of the difference to that arm where the paper prints no figures: 1 above, -1 below, 0 equal; None
            where it says nothing.
        as_costly: the static network widened to the same ``time`` (a batch through the frozen network) or the same
            number of ``parameters`` as the arm ``like``.
        begins_from: slug of the arm whose trained network it goes on with.
        share_of_epochs: which that trained network has of the study's epochs; this arm has the rest.
    """

    slug: str
    label: str
    args: Mapping[str, Any] = field(default_factory=dict)
    method: Literal["dynamic", "condconv"] | None = None
    experts: int | None = None
    share: Literal["layer", "block"] | None = None
    router: Literal["softmax", "sigmoid"] | None = None
    hidden: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    published: float | None = None
    against: str = ""
    direction: int | None = None
    as_costly: Literal["", "time", "parameters"] = ""
    like: str = ""
    begins_from: str = ""
    share_of_epochs: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study.

    Attributes:
        name: for the command.
        title: one line for people.
        source: paper and table; "" for our own.
        claim: what the paper says, or what is asked, in one sentence.
        network: timm's name of the network that the arms vary.
        args: its arguments, also where another network stands in for it.
        own_args: arguments of this network alone: another one that stands in for it does not get them.
        arms: the first one is what others are compared with where they do not say.
        further: more pairs to compare: slug, slug, and what the paper says of the sign (None: nothing).
        task, settings, training: defaults of the experiment and of its recipe.
    """

    name: str
    title: str
    source: str = ""
    claim: str
    network: str
    args: Mapping[str, Any] = field(default_factory=dict)
    own_args: Mapping[str, Any] = field(default_factory=dict)
    arms: tuple[StudyArm, ...]
    further: tuple[tuple[str, str, int | None], ...] = ()
    task: str = "classification"
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def arm(self, slug: str) -> StudyArm:
        """An arm by its slug.

        Raises:
            UserError: there is none; the nearest is named.
        """
        for arm in self.arms:
            if arm.slug == slug:
                return arm
        raise UserError(f"The study {self.name} has no arm {slug!r}. {suggest(slug, [arm.slug for arm in self.arms])}")


ADAM = {"opt": "adamw", "lr": 0.003, "weight_decay": 0.05, "crop": "pad", "channels_last": True}
ANNEALED = {"temperature_start": 30.0, "temperature_end": 1.0, "temperature_epochs": 10}
SMALL = {"image_size": 32, "crop_pct": 1.0, "batch_size": 128}
DESK = {"image_size": 64, "crop_pct": 1.0, "batch_size": 128, "most_images": 10_000}
THIN = {"width_multiplier": 0.5, "blocks": [1, 1, 1], "stem_stride": 2}


def fixed(temperature: float) -> dict[str, Any]:
    """The recipe at a temperature that stays (the default of the ablations of Chen et al. is 30)."""
    return {"temperature_start": temperature, "temperature_end": temperature, "temperature_epochs": 0}


STATIC = StudyArm(slug="static", label="static")
DYNAMIC = StudyArm(slug="dynamic", label="dynamic K=4", method="dynamic", experts=4, against="static", direction=1)
CONDCONV = StudyArm(slug="condconv", label="CondConv K=8", method="condconv", experts=8, against="static", direction=1)
