"""How Chen et al. 2020 train (section 5.1): batch 256, SGD with momentum 0.9, one setup per architecture.

The temperature goes from 30 to 1 linearly in the first 10 epochs (section 4.2). Not told: Nesterov or not (plain is
taken), whether normalisation and biases decay (they do, as torch's SGD does unless told otherwise), the strength of
label smoothing (0.1) and mixup (0.2), augmentation (random crop and mirroring), whether the temperature steps by epoch
or by iteration (by epoch), and how the static networks were trained (the same way here).
"""

from __future__ import annotations

from dynaconv.recipes.row import Setup

PAPER = "Chen et al. 2020"

_NOTES = (
    "Not told, and chosen: plain momentum, decay of all parameters, random crop and mirroring, temperature by epoch, "
    "and how the static networks were trained (the same way here)."
)
_SGD = {"opt": "momentum", "momentum": 0.9, "decay_all": True}
_ANNEALED = {
    "temperature_start": 30.0,
    "temperature_end": 1.0,
    "temperature_epochs": 10,
    "temperature_per": "epoch",
}

DY_RESNET = Setup(
    settings={
        **_SGD,
        **_ANNEALED,
        "epochs": 100,
        "lr": 0.1,
        "weight_decay": 1e-4,
        "sched": "multistep",
        "milestones": (30, 60, 90),
        "decay_rate": 0.1,
    },
    batch_size=256,
    notes=_NOTES,
)

DY_MOBILENETV2 = Setup(
    settings={
        **_SGD,
        **_ANNEALED,
        "epochs": 300,
        "lr": 0.05,
        "weight_decay": 4e-5,
        "sched": "cosine",
        "min_lr": 0.0,
    },
    batch_size=256,
    notes=_NOTES,
)

DY_MOBILENETV2_SMOOTHED = DY_MOBILENETV2.but("The strength of label smoothing is not told; 0.1.", label_smoothing=0.1)

DY_MOBILENETV2_MIXED = DY_MOBILENETV2_SMOOTHED.but("The strength of mixup is not told; 0.2.", mixup=0.2)

DY_MOBILENETV3 = Setup(
    settings={
        **_SGD,
        **_ANNEALED,
        "epochs": 300,
        "lr": 0.1,
        "weight_decay": 3e-5,
        "sched": "cosine",
        "min_lr": 0.0,
    },
    batch_size=256,
    notes=_NOTES,
)


def fixed_temperature(setup: Setup, temperature: float) -> Setup:
    """The setup without annealing (Table 6, and the default of all ablations: 30)."""
    return setup.but(
        f"The temperature stays at {temperature:g}.",
        temperature_start=temperature,
        temperature_end=temperature,
        temperature_epochs=0,
    )
