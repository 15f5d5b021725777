"""The papers' ablations as studies of ``dynaconv ablate``, as data: what a paper printed of an arm stands beside it."""

from __future__ import annotations

from dataclasses import replace

from dynaconv.analysis.study import ADAM, ANNEALED, CHEN, CONDCONV, DESK, DYNAMIC, YANG, Study, StudyArm, fixed

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

PAPERS = (METHODS, ROUTING, BEGIN, EXPERTS, KERNELS, PLACES, TEMPERATURE, SQUEEZE, KEYPOINTS)
