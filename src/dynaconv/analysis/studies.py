"""The studies of ``dynaconv ablate`` by name: our own, as data, and the papers' (:mod:`.paper_studies`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dynaconv.analysis.paper_studies import PAPERS
from dynaconv.analysis.study import ADAM, ANNEALED, CHEN, CONDCONV, DYNAMIC, SMALL, STATIC, THIN, Study, StudyArm, fixed
from dynaconv.errors import UserError, suggest

EVIDENCE = Study(
    name="evidence",
    title="static, CondConv, Dynamic, and static networks widened to the same throughput and the same parameters",
    claim=(
        "Both papers: dynamic networks are better than static ones of the same width. Chen et al.: dynamic convolution "
        "with 4 experts is better than CondConv with 8. Is a wider static network better still?"
    ),
    network="small_resnet",
    own_args=THIN,
    arms=(
        STATIC,
        CONDCONV,
        DYNAMIC,
        StudyArm(
            slug="wide-throughput",
            label="static, dynamic's throughput",
            as_costly="time",
            like="dynamic",
            against="static",
        ),
        StudyArm(
            slug="wide-parameters",
            label="static, dynamic's parameters",
            as_costly="parameters",
            like="dynamic",
            against="static",
        ),
    ),
    further=(
        ("dynamic", "wide-throughput", None),
        ("dynamic", "wide-parameters", None),
        ("condconv", "wide-throughput", None),
        ("dynamic", "condconv", 1),
    ),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 30, "eval_every": 5},
)

WIDE = replace(
    EVIDENCE,
    name="wide",
    title="as evidence, on a wide network and 5,000 images (the counter-case: public threads report losses)",
    claim="Public threads: on small data wide networks lose by dynamic convolution. Do they?",
    own_args={"width_multiplier": 2.0, "blocks": [2, 2, 2, 2], "stem_stride": 2},
    arms=tuple(replace(arm, direction=-1 if arm.method else arm.direction) for arm in EVIDENCE.arms[:4]),
    further=(("dynamic", "wide-throughput", None), ("condconv", "wide-throughput", None)),
    settings={**SMALL, "most_images": 5_000},
)

DEEP_TEMPERATURE = Study(
    name="deep-temperature",
    title="temperature 1, 30 and annealed in a deep network",
    source=f"{CHEN}, section 4.2",
    claim="A low temperature from the beginning trains badly in a deep dynamic network; annealing is best.",
    network="small_resnet",
    own_args={"width_multiplier": 0.5, "blocks": [5, 5, 5], "stem_stride": 2},
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
            label="30 to 1, annealed",
            method="dynamic",
            experts=4,
            against="temperature-1",
            direction=1,
        ),
        replace(STATIC, against="temperature-1", direction=None),
    ),
    further=(("annealed", "temperature-30", 1),),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 8, "eval_every": 5},
)

SIGMOID = Study(
    name="sigmoid",
    title="sigmoid routers against softmax routers, each as its paper has it",
    source=f"{CHEN}, section 4.1",
    claim="Routing weights that sum to one (softmax) make the experts easier to learn than sigmoids do.",
    network="small_resnet",
    own_args=THIN,
    arms=(
        StudyArm(slug="sigmoid", label="sigmoid, K=4", method="dynamic", experts=4, router="sigmoid"),
        replace(DYNAMIC, slug="softmax", label="softmax, K=4", against="sigmoid"),  # softmax is the method's own
    ),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 30, "eval_every": 5},
)

HIDDEN = Study(
    name="hidden",
    title="width of the softmax routers' hidden layer in a thin network",
    claim=(
        "No paper's: a quarter of the channels is 2 ReLU units in a layer of 8, and both can die. Are 8 units better, "
        "or none?"
    ),
    network="small_resnet",
    own_args=THIN,
    arms=(
        replace(DYNAMIC, label="dynamic K=4, C/4 units", against=""),
        replace(DYNAMIC, slug="hidden-8", label="8 units", hidden=8, against="dynamic", direction=None),
        replace(DYNAMIC, slug="hidden-0", label="no hidden layer", hidden=0, against="dynamic", direction=None),
    ),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 30, "eval_every": 5},
)

UPGRADE = Study(
    name="upgrade",
    title="a trained static network upgraded to a dynamic one, against training from scratch at equal epochs",
    claim="No paper's: does it pay to train a static network first and to make it dynamic after half of the epochs?",
    network="small_resnet",
    own_args=THIN,
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

_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "dropout": ("expert dropout 0.1", {"expert_dropout": 0.1}),
    "balance": ("load balance 0.1", {"load_balance": 0.1}),
    "diversity": ("expert diversity 0.1", {"expert_diversity": 0.1}),
    "cosine": ("temperature falls as a cosine", {"temperature_schedule": "cosine"}),
    "exponential": ("temperature falls exponentially", {"temperature_schedule": "exponential"}),
}
REGULARISATION = Study(
    name="regularisation",
    title="expert dropout, load balance, diversity of the experts, other temperature schedules",
    claim="No paper's: does one of the options that keep experts alive and different help a thin network?",
    network="small_resnet",
    own_args=THIN,
    arms=(
        replace(DYNAMIC, against=""),
        replace(STATIC, against="dynamic", direction=-1),
        *(
            replace(DYNAMIC, slug=slug, label=label, training=training, against="dynamic", direction=None)
            for slug, (label, training) in _OPTIONS.items()
        ),
    ),
    settings=SMALL,
    training={**ADAM, **ANNEALED, "epochs": 30, "eval_every": 5},
)

_OURS = (EVIDENCE, WIDE, DEEP_TEMPERATURE, SIGMOID, HIDDEN, UPGRADE, REGULARISATION)
STUDIES = {study.name: study for study in (*_OURS, *PAPERS)}
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
