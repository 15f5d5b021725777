"""The studies of ``dynaconv ablate``: the papers' ablations, and our own, as data.

An arm is a network and a training; a study compares each arm with another one. What a paper printed of an arm stands
beside it. Defaults are for a desk: small pictures, short schedules, networks at a fraction of the papers' cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dynaconv.errors import UserError, suggest

YANG, CHEN = "Yang et al. 2019", "Chen et al. 2020"


@dataclass(frozen=True, kw_only=True)
class StudyArm:
    """One arm, relative to its study's network and recipe.

    Attributes:
        slug, label: its name in files, and for people.
        args: arguments of the network, laid over the study's.
        method, experts, share, router: make the network's convolutions dynamic, see
            :class:`~dynaconv.tasks.network.ModelSpec`.
        training: settings laid over the study's.
        published: what the paper prints of it, in percent.
        against: slug of the arm that it is compared with; "" for none.
        direction: of the difference to that arm where the paper prints no figures: 1 above, -1 below, 0 equal; None
            where it says nothing.
        as_costly: the static network widened to the same ``time`` (a forward pass of a batch) or the same number of
            ``parameters`` as the arm ``like``.
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
        args: its arguments.
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

EVIDENCE = Study(
    name="evidence",
    title="static, CondConv, Dynamic, and static networks widened to the same time and the same parameters",
    claim="Both papers: dynamic networks are better than static ones of the same width. Is a wider one better still?",
    network="small_resnet",
    args=THIN,
    arms=(
        STATIC,
        CONDCONV,
        DYNAMIC,
        StudyArm(slug="wide-time", label="static, same time", as_costly="time", like="dynamic", against="static"),
        StudyArm(
            slug="wide-parameters",
            label="static, same parameters",
            as_costly="parameters",
            like="dynamic",
            against="static",
        ),
    ),
    further=(
        ("dynamic", "wide-time", None),
        ("dynamic", "wide-parameters", None),
        ("condconv", "wide-time", None),
        ("dynamic", "condconv", 1),
    ),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 30, "eval_every": 5},
)

WIDE = replace(
    EVIDENCE,
    name="wide",
    title="as evidence, on a wide network (the counter-case: public threads report losses)",
    claim="Public threads: on small data wide networks lose by dynamic convolution.",
    args={"width_multiplier": 4.0, "blocks": [2, 2, 2, 2], "stem_stride": 2},
    arms=tuple(replace(arm, direction=-1 if arm.method else arm.direction) for arm in EVIDENCE.arms[:3]),
    further=(),
)

DEEP_TEMPERATURE = Study(
    name="deep-temperature",
    title="temperature 1, 30 and annealed in a deep network",
    source=f"{CHEN}, section 4.2",
    claim="A low temperature from the beginning trains badly in a deep dynamic network; annealing is best.",
    network="small_resnet",
    args={"width_multiplier": 0.5, "blocks": [5, 5, 5], "stem_stride": 2},
    arms=(
        StudyArm(slug="temperature-1", label="temperature 1", method="dynamic", experts=4, training=fixed(1)),
        StudyArm(
            slug="temperature-30",
            label="temperature 30",
            method="dynamic",
            experts=4,
            training=fixed(30),
            against="temperature-1",
            direction=1,
        ),
        StudyArm(
            slug="annealed",
            label="30 to 1 in 10 epochs",
            method="dynamic",
            experts=4,
            against="temperature-1",
            direction=1,
        ),
        replace(STATIC, against="temperature-1", direction=None),
    ),
    further=(("annealed", "temperature-30", 1),),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 30, "eval_every": 5},
)

SIGMOID = Study(
    name="sigmoid",
    title="sigmoid routers against softmax routers, all else equal",
    source=f"{CHEN}, section 4.1",
    claim="Routing weights that sum to one (softmax) make the experts easier to learn than sigmoids do.",
    network="small_resnet",
    args=THIN,
    arms=(
        StudyArm(slug="sigmoid", label="sigmoid, K=4", method="dynamic", experts=4, router="sigmoid"),
        replace(DYNAMIC, slug="softmax", label="softmax, K=4", against="sigmoid"),  # softmax is the method's own
    ),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 30, "eval_every": 5},
)

UPGRADE = Study(
    name="upgrade",
    title="a trained static network upgraded to a dynamic one, against training from scratch at equal epochs",
    claim="No paper's: does it pay to train a static network first and to make it dynamic after half of the epochs?",
    network="small_resnet",
    args=THIN,
    arms=(
        replace(DYNAMIC, against=""),
        replace(STATIC, against="dynamic", direction=-1),
        replace(
            DYNAMIC,
            slug="upgraded",
            label="static, upgraded after half",
            begins_from="static",
            share_of_epochs=0.5,
            training=fixed(1),
            against="dynamic",
            direction=None,
        ),
        StudyArm(
            slug="restarted",
            label="static, restarted after half",
            begins_from="static",
            share_of_epochs=0.5,
            against="dynamic",
        ),
    ),
    further=(("upgraded", "restarted", None), ("upgraded", "static", None)),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 30, "eval_every": 5},
)

METHODS = Study(
    name="methods",
    title="CondConv against dynamic convolution on MobileNetV2",
    source=f"{CHEN}, Table 2",
    claim="Dynamic convolution is better with half of the experts.",
    network="mobilenetv2_050",
    arms=(
        replace(CONDCONV, published=68.4, against="", direction=None),
        replace(DYNAMIC, published=69.9, against="condconv", direction=None),
    ),
    settings=DESK,
    training={**ADAM, **ANNEALED, "epochs": 20, "eval_every": 5},
)

_ROUTING = {
    "single": ("single", 56.5),
    "partially_shared": ("partially shared", 62.5),
    "hidden_small": ("hidden (small)", 57.7),
    "hidden_medium": ("hidden (medium)", 62.2),
    "hidden_large": ("hidden (large)", 54.1),
    "hierarchical": ("hierarchical", 60.3),
    "softmax": ("softmax", 60.5),
}
ROUTING = Study(
    name="routing",
    title="routing functions of CondConv",
    source=f"{YANG}, Table 3",
    claim="One linear layer and a sigmoid per block, or for two blocks, is best; one routing for all is too little.",
    network="condconv_mobilenetv1_025",
    args={"experts": 8},
    arms=(
        StudyArm(slug="sigmoid", label="one layer, sigmoid", published=62.0),
        *(
            StudyArm(slug=name, label=label, args={"routing": name}, published=top1, against="sigmoid")
            for name, (label, top1) in _ROUTING.items()
        ),
    ),
    settings=DESK,
    training={**ADAM, "epochs": 20, "eval_every": 5},
)

BEGIN = Study(
    name="begin",
    title="the layer with which CondConv begins, and the classifier",
    source=f"{YANG}, Table 4",
    claim="CondConv helps at every depth, early layers matter little, and the classifier should be dynamic too.",
    network="condconv_mobilenetv1_025",
    args={"experts": 8},
    arms=(
        StudyArm(slug="begin-7", label="begin layer 7", published=62.0),
        StudyArm(slug="static", label="static", args={"static": True}, published=50.0, against="begin-7"),
        *(
            StudyArm(
                slug=f"begin-{layer}",
                label=f"begin layer {layer}",
                args={"begin": layer},
                published=top1,
                against="begin-7",
            )
            for layer, top1 in ((1, 62.5), (5, 62.0), (13, 59.5))
        ),
        StudyArm(slug="fc-only", label="15 (classifier only)", args={"begin": 15}, published=54.2, against="begin-7"),
        StudyArm(
            slug="no-fc",
            label="7, static classifier",
            args={"dynamic_classifier": False},
            published=60.2,
            against="begin-7",
        ),
    ),
    settings=DESK,
    training={**ADAM, "epochs": 20, "eval_every": 5},
)

EXPERTS = Study(
    name="experts",
    title="number of experts against width",
    source=f"{YANG}, Figure 2",
    claim="More experts are better at every width, monotonically (the figure prints no numbers).",
    network="condconv_mobilenetv1_025",
    arms=tuple(
        StudyArm(
            slug=f"width-{width}-{'static' if not experts else f'k{experts}'}",
            label=f"width {width}, " + (f"{experts} experts" if experts else "static"),
            args={"width_multiplier": width, **({"experts": experts} if experts else {"static": True})},
            against=f"width-{width}-" + ("static" if experts == 2 else f"k{experts // 2}") if experts else "",
            direction=1 if experts else None,
        )
        for width in (0.25, 0.5)
        for experts in (0, 2, 4, 8, 16)
    ),
    settings=DESK,
    training={**ADAM, "epochs": 20, "eval_every": 5},
)

KERNELS = Study(
    name="kernels",
    title="number of kernels K with depth and width multipliers",
    source=f"{CHEN}, Figures 6 and 7",
    claim="K=2 is better than static at every depth and width; above K=4 nothing is gained (no numbers are printed).",
    network="dy_mobilenetv2_035",
    arms=tuple(
        StudyArm(
            slug=f"depth-{depth}-width-{width}-{'static' if not experts else f'k{experts}'}",
            label=f"depth {depth}, width {width}, " + (f"K={experts}" if experts else "static"),
            args={
                "depth_multiplier": depth,
                "width_multiplier": width,
                **({"experts": experts} if experts else {"static": True}),
            },
            against=f"depth-{depth}-width-{width}-" + {2: "static", 4: "k2", 8: "k4"}[experts] if experts else "",
            direction={0: None, 2: 1, 4: 1, 8: 0}[experts],
        )
        for depth in (1.0, 0.5)
        for width in (0.35, 0.5)
        for experts in (0, 2, 4, 8)
    ),
    further=tuple((f"depth-0.5-width-{width}-k4", f"depth-1.0-width-{width}-static", None) for width in (0.35, 0.5)),
    settings=DESK,
    training={**ADAM, **fixed(30), "epochs": 20, "eval_every": 5},
)

_PLACES = {"C1": 67.4, "C2": 67.4, "C3": 68.2, "C1 C3": 68.7, "C2 C3": 68.4, "C1 C2": 68.6, "C1 C2 C3": 69.4}
PLACES = Study(
    name="places",
    title="which convolutions of a block are dynamic: C1, C2, C3",
    source=f"{CHEN}, Table 5",
    claim="Every place helps, all three help most, and of single ones the last 1x1 convolution does.",
    network="dy_mobilenetv2_050",
    arms=(
        StudyArm(slug="static", label="static", args={"static": True}, published=65.4),
        *(
            StudyArm(
                slug=convs.lower().replace(" ", "-"),
                label=convs,
                args={"convs": convs},
                published=top1,
                against="static",
            )
            for convs, top1 in _PLACES.items()
        ),
    ),
    further=(("c1-c2-c3", "c3", 1), ("c3", "c1", 1), ("c3", "c2", 1)),
    settings=DESK,
    training={**ADAM, **fixed(30), "epochs": 20, "eval_every": 5},
)

_TEMPERATURES = {1: 64.8, 5: 65.7, 10: 67.5, 20: 69.4, 30: 69.4, 40: 69.2}
TEMPERATURE = Study(
    name="temperature",
    title="softmax temperature 1 to 40, and annealed",
    source=f"{CHEN}, Table 6",
    claim="A large temperature is needed early in training; annealing it adds a little.",
    network="dy_mobilenetv2_050",
    arms=(
        StudyArm(slug="static", label="static", args={"static": True}, published=65.4),
        *(
            StudyArm(
                slug=f"temperature-{temperature}",
                label=f"temperature {temperature}",
                training=fixed(temperature),
                published=top1,
                against="static",
            )
            for temperature, top1 in _TEMPERATURES.items()
        ),
        StudyArm(slug="annealed", label="30 to 1", training=ANNEALED, published=69.9, against="static"),
    ),
    further=(("temperature-30", "temperature-1", 1), ("annealed", "temperature-30", 1)),
    settings=DESK,
    training={**ADAM, **ANNEALED, "epochs": 20, "eval_every": 5},
)

SQUEEZE = Study(
    name="squeeze",
    title="dynamic convolution with and without squeeze-and-excitation",
    source=f"{CHEN}, Table 7",
    claim="Dynamic without squeeze-and-excitation is better than static with it; both together are best.",
    network="dy_mobilenetv3_small",
    arms=(
        StudyArm(slug="static-se", label="static with SE", args={"static": True}, published=67.4),
        StudyArm(
            slug="static",
            label="static without",
            args={"static": True, "se": False},
            published=65.4,
            against="static-se",
        ),
        StudyArm(slug="dynamic-se", label="dynamic with SE", published=70.3, against="static-se"),
        StudyArm(slug="dynamic", label="dynamic without", args={"se": False}, published=69.6, against="static-se"),
    ),
    further=(("dynamic-se", "dynamic", 1),),
    settings=DESK,
    training={**ADAM, **ANNEALED, "epochs": 20, "eval_every": 5},
)

KEYPOINTS = Study(
    name="keypoints",
    title="dynamic backbone and dynamic head of a keypoint network",
    source=f"{CHEN}, Table 11",
    claim="Both help; most of the gain is the backbone's.",
    network="keypoints_b_dy_mobilenetv2_050",
    arms=(
        StudyArm(
            slug="static", label="static", args={"dynamic_backbone": False, "dynamic_head": False}, published=59.2
        ),
        StudyArm(slug="head", label="dynamic head", args={"dynamic_backbone": False}, published=60.3, against="static"),
        StudyArm(
            slug="backbone", label="dynamic backbone", args={"dynamic_head": False}, published=62.3, against="static"
        ),
        StudyArm(slug="both", label="both dynamic", published=62.8, against="static"),
    ),
    further=(("backbone", "head", 1), ("both", "backbone", 1)),
    task="keypoints",
    settings={"image_size": (64, 64), "batch_size": 8, "data_args": {"sigmas": 0.05}},
    training={
        "epochs": 40,
        "opt": "adam",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "sched": "multistep",
        "milestones": (28, 36),
        "rotation": 180.0,
        "channels_last": True,
        "temperature_end": 1.0,
        "temperature_epochs": 10,
        "eval_every": 10,
    },
)

STUDIES = {
    study.name: study
    for study in (
        EVIDENCE,
        WIDE,
        DEEP_TEMPERATURE,
        SIGMOID,
        UPGRADE,
        METHODS,
        ROUTING,
        BEGIN,
        EXPERTS,
        KERNELS,
        PLACES,
        TEMPERATURE,
        SQUEEZE,
        KEYPOINTS,
    )
}
"""Every study by its name."""


def find_study(name: str) -> Study:
    """The study of that name.

    Raises:
        UserError: there is none; the nearest is named.
    """
    if name not in STUDIES:
        raise UserError(
            f"There is no study {name!r}. {suggest(name, STUDIES)} 'dynaconv ablate --list' describes them."
        )
    return STUDIES[name]
