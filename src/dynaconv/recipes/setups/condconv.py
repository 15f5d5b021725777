"""How Yang et al. 2019 train (section 4.1).

Stated there: 224x224; dropout before the classifier with a keep probability between 0.6 and 1.0; AutoAugment's ImageNet
policy and mixup 0.2; for ResNet experts dropped at random. Everything else is another paper's:

* MobileNetV1, MobileNetV2, ResNet-50: "the same training hyperparameters for all models on ImageNet, following"
  Kornblith et al. 2019 ("Do better ImageNet models transfer better?"), "except we use BatchNorm momentum of 0.9 and
  disable exponential moving average on weights".
* MnasNet, EfficientNet: those papers' own, "with the batch size, learning rate, and training steps scaled
  appropriately for our hardware configuration"; how far is not told.

TensorFlow's batch norm momentum m is torch's 1 - m.
"""

from __future__ import annotations

from dynaconv.recipes.row import Setup

PAPER = "Yang et al. 2019"

# No softmax router anneals here: only Table 3 has one, at temperature 1.
_TEMPERATURE = {"temperature_start": 1.0, "temperature_end": 1.0, "temperature_epochs": 0}
_REGULARISED = {"auto_augment": "original", "mixup": 0.2}
_SEARCHED = (
    "The paper gives a search space (keep probability 0.6 to 1.0, AutoAugment, mixup 0.2) and no row's own choice: "
)
_BEHIND_KORNBLITH = (
    "Kornblith et al. 2019, which the paper follows, could not be read when this was written: Nesterov momentum 0.9, "
    "batch 4096, learning rate 1.6 after 10 epochs of warm-up and times 0.975 per epoch, weight decay 8e-5 and no "
    "label smoothing are from memory and unchecked; 250 epochs are ours. "
)

KORNBLITH = Setup(
    settings={
        "epochs": 250,
        "opt": "sgd",  # timm's: with Nesterov's momentum
        "lr": 1.6,
        "momentum": 0.9,
        "weight_decay": 8e-5,
        "sched": "step",
        "decay_rate": 0.975,
        "decay_epochs": 1,
        "warmup_epochs": 10,
        "warmup_lr": 0.0,
        "label_smoothing": 0.0,
        "ema": None,
        "accumulate": 4,
        **_REGULARISED,
        **_TEMPERATURE,
    },
    batch_size=4096,
    args={"bn_momentum": 0.1},
    notes=_BEHIND_KORNBLITH + _SEARCHED + "the dropout rate, and AutoAugment and mixup both on, are ours.",
)

# Section 4.3, the ablations: "no additional Dropout or data augmentation".
PLAIN_KORNBLITH = Setup(
    settings={**KORNBLITH.settings, "auto_augment": None, "mixup": 0.0},
    batch_size=KORNBLITH.batch_size,
    args=KORNBLITH.args,
    notes=_BEHIND_KORNBLITH + "Section 4.3: no additional dropout or data augmentation.",
)

_RMSPROP = {
    "epochs": 350,
    "opt": "rmsproptf",
    "momentum": 0.9,
    "opt_args": {"alpha": 0.9, "eps": 1e-3},
    "weight_decay": 1e-5,
    "sched": "step",
    "decay_rate": 0.97,
    "decay_epochs": 2.4,
    "warmup_epochs": 5,
    "warmup_lr": 0.0,
    "label_smoothing": 0.1,
    "ema": 0.9999,
    "ema_warmup": True,  # TensorFlow's average begins with less, too
    **_REGULARISED,
    **_TEMPERATURE,
}
_BATCH_NORM = {"bn_momentum": 0.01, "bn_eps": 1e-3}

# Tan et al. 2019 (RMSProp 0.9 / 0.9, batch norm 0.99, weight decay 1e-5, dropout 0.2, 0.256 at batch 4096 after 5
# epochs of warm-up, times 0.97 every 2.4 epochs); label smoothing, averaging, 350 epochs, batch 1024 and 0.016 per 256
# images from the configuration in tensorflow/tpu, models/official/mnasnet.
MNASNET = Setup(
    settings={**_RMSPROP, "lr": 0.064},
    batch_size=1024,
    interpolation="bicubic",
    args=_BATCH_NORM,
    notes=(
        "The batch size and learning rate of Yang et al. are not told; batch 1024 with 0.016 per 256 images is the "
        "default of MnasNet's own code. "
        + _SEARCHED
        + "the dropout rate is MnasNet's, AutoAugment and mixup both on are ours."
    ),
)

# Tan and Le 2019, section 5; label smoothing, averaging, warm-up and RMSProp's epsilon from tensorflow/tpu,
# models/official/efficientnet, where the policy of AutoAugment is one that timm calls "v0".
EFFICIENTNET = Setup(
    settings={**_RMSPROP, "lr": 0.128},
    batch_size=2048,
    interpolation="bicubic",
    args=_BATCH_NORM,
    notes=(
        "The batch size and learning rate of Yang et al. are not told; batch 2048 with 0.016 per 256 images is the "
        "default of the authors' code. "
        + _SEARCHED
        + "dropout 0.25 and survival 0.8 are their code's, AutoAugment and mixup both on are ours. AutoAugment is the "
        "published ImageNet policy, of which that code has a variant (timm's 'v0')."
    ),
)
