"""The options of the commands, each in one place: its name, its type, and what it is.

An option that is a setting has no default here. If it is not given, it is not passed on, so that the default of the
settings applies; the help reads it there. A command takes whole groups of options::

    @takes(training=TRAINING)
    def train(model: str, training: Given) -> None: ...     # training == {"epochs": 3} after --epochs 3
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from dynaconv.errors import UserError

Given = dict[str, Any]
"""The values of a group's options that were typed, by name."""


@dataclass(frozen=True)
class Group:
    """Options that go to one class of settings.

    Attributes:
        options: name of the setting -> type and option.
        defaults: ``module:object`` whose attributes, or whose fields' defaults, are the defaults; imported for help.
        values: defaults that belong to the command and not to the settings.
    """

    options: Mapping[str, Any]
    defaults: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def only(self, *names: str) -> Group:
        """Return some of the options."""
        return replace(self, options={name: self.options[name] for name in names})

    def default(self, place: str | None = None, **values: Any) -> Group:
        """Return the same options with other defaults."""
        return replace(self, defaults=place or self.defaults, values={**self.values, **values})


def takes(**groups: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of groups: each group arrives as one dictionary, in the parameter of its name."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(function, eval_str=True).parameters.values():
            group = groups.get(own.name)
            if group is None:
                parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            for name, annotation in group.options.items():
                kind = inspect.Parameter.KEYWORD_ONLY
                default = group.values.get(name)
                parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))

        @functools.wraps(function)
        def command(**values: Any) -> None:
            given = {
                parameter: {
                    name: value for name in group.options if (value := values.pop(name)) is not None and value != []
                }
                for parameter, group in groups.items()
            }
            function(**values, **given)

        found: Any = command
        found.__signature__ = inspect.Signature(parameters)
        found.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        found.defaults = {name: group.defaults for group in groups.values() for name in group.options}
        return command

    return decorate


def choice(*words: str, help: str, names: tuple[str, ...] = ()) -> Any:
    """An option with shell completion for some words; the code that takes the value checks it."""
    return Option(*names, help=help, autocompletion=lambda: list(words))


MOST_WORKERS = MOST_THREADS = 1024  # many more cannot be started, and with them this process ends
DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps")
DATA_NAMES = "'digits', a folder (train/CLASS/IMAGE, val/CLASS/IMAGE), torch/NAME, hfds/NAME, wds/FOLDER."

Arg = Annotated[
    list[str] | None,
    Option("--arg", "--model-kwargs", help="An argument of the network, such as experts=8 or static=True; repeatable."),
]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, Option("--quiet", help="No progress bar.")]
Set = Annotated[list[str] | None, Option("--set", help="Any other setting of the training, NAME=VALUE; repeatable.")]
DataArg = Annotated[
    list[str] | None,
    Option("--data-arg", help="What else the task wants to know of its data, NAME=VALUE; repeatable."),
]
Pretrained = Annotated[bool, Option("--pretrained", help="Begin from timm's (or torchvision's) pretrained weights.")]
NETWORKS = (
    "timm's name ('dynaconv list' has the papers' networks), torchvision/NAME, your own function as "
    "path/to/file.py:function or package.module:function, or a saved network (a file of dynaconv.save, a run's folder)"
)
Weights = Annotated[
    Path | None,
    Option(help="Local weights of this network, .safetensors or .pth, or a run's folder; the head may be another one."),
]
Threads = Annotated[
    int | None,
    Option(
        min=1, max=MOST_THREADS, help="Processor threads of PyTorch. Fewer are faster where others use the cores too."
    ),
]
Run = Annotated[
    str,
    Argument(
        help="A run's folder (its best weights) or a .safetensors file; or a network by name, as in 'dynaconv train', "
        "with --weights or --pretrained."
    ),
]
Published = Annotated[bool, Option("--pretrained", help="timm's (or torchvision's) published weights.")]
Model = Annotated[
    str | None,
    Option("--model", help="path/to/file.py:function that builds the network, where a function of yours was trained."),
]
ImageSize = Annotated[
    int | None, Option(min=1, help="Pixels a side, for a network by name. Default: its own, or else the data set's.")
]
BatchSize = Annotated[int, Option(min=1, help="Images at a time.")]

TRAINING = Group(
    {
        "epochs": Annotated[int | None, Option(help="Passes over the training data.")],
        "lr": Annotated[float | None, Option(help="Learning rate.")],
        "opt": Annotated[str | None, Option("--opt", "--optimizer", help="Optimizer by timm's name.")],
        "sched": Annotated[
            str | None,
            choice("cosine", "step", "multistep", "poly", "tanh", "constant", help="Schedule of the learning rate."),
        ],
        "weight_decay": Annotated[float | None, Option(help="Of weights; biases and normalisation have none.")],
        "warmup_epochs": Annotated[int | None, Option(help="Epochs in which the learning rate rises.")],
        "label_smoothing": Annotated[float | None, Option(help="0 for off.")],
        "mixup": Annotated[float | None, Option(help="Alpha of mixup; 0 for off.")],
        "cutmix": Annotated[float | None, Option(help="Alpha of cutmix; 0 for off.")],
        "auto_augment": Annotated[str | None, Option(help="timm's policy, e.g. original or rand-m9-mstd0.5.")],
        "crop": Annotated[
            str | None, choice("resized", "pad", "none", help="Training crop: resized, pad or none; or the data set's.")
        ],
        "random_erasing": Annotated[float | None, Option(help="Probability of erasing a rectangle.")],
        "clip_grad": Annotated[float | None, Option(help="Largest gradient norm.")],
        "accumulate": Annotated[int | None, Option(help="Parts into which a batch is cut to save memory.")],
        "amp": Annotated[str | None, choice("no", "bf16", "fp16", help="Mixed precision: no, bf16 or fp16.")],
        "compile": Annotated[bool | None, Option("--compile/--no-compile", help="torch.compile.")],
        "channels_last": Annotated[
            bool | None, Option("--channels-last/--no-channels-last", help="Layout in memory. Default: the faster one.")
        ],
        "deterministic": Annotated[
            bool | None, Option("--deterministic/--no-deterministic", help="Only algorithms that repeat bit for bit.")
        ],
        "device": Annotated[str | None, choice(*DEVICES, help="auto, cpu, cuda, cuda:1 (the second GPU) or mps.")],
        "temperature_start": Annotated[float | None, Option(help="Of softmax routers, at first.")],
        "temperature_end": Annotated[float | None, Option(help="Of softmax routers, at last.")],
        "temperature_epochs": Annotated[int | None, Option(help="Epochs from the one to the other.")],
        "temperature_schedule": Annotated[
            str | None,
            choice("linear", "cosine", "exponential", "constant", help="How it gets from the one to the other."),
        ],
        "expert_dropout": Annotated[float | None, Option(help="Probability of dropping an expert in training.")],
        "load_balance": Annotated[float | None, Option(help="Factor of a loss that keeps all experts in use.")],
        "expert_diversity": Annotated[float | None, Option(help="Factor of a loss that keeps expert kernels apart.")],
    },
    "dynaconv.train.settings:TrainSettings",
)
"""The recipe."""

KEEPING = Group(
    {
        "seed": Annotated[int | None, Option(help="Of weights, order, augmentation and dropout.")],
        "ema": Annotated[float | None, Option(help="Decay of averaged weights.")],
        "checkpoint_every": Annotated[int | None, Option(help="Steps between checkpoints inside an epoch.")],
        "keep": Annotated[int | None, Option(help="Checkpoints kept besides the best.")],
        "log_every": Annotated[int | None, Option(help="Steps between points in TensorBoard.")],
        "tensorboard": Annotated[bool | None, Option("--tensorboard/--no-tensorboard", help="Log there too.")],
        "wandb": Annotated[bool | None, Option("--wandb/--no-wandb", help="Log at Weights & Biases too.")],
    },
    "dynaconv.train.settings:TrainSettings",
)
"""What one run keeps and logs."""

NETWORK = Group(
    {
        "method": Annotated[
            str | None, choice("dynamic", "condconv", help="Make the convolutions dynamic: 'dynamic' or 'condconv'.")
        ],
        "experts": Annotated[
            int | None,
            Option(help="Experts K of every dynamic layer: with --method, or of one of the papers' networks."),
        ],
        "share": Annotated[
            str | None, choice("layer", "block", help="Layers that share one routing: 'layer' or 'block'.")
        ],
        "dropout": Annotated[float | None, Option(help="Before the classifier.")],
        "drop_path": Annotated[float | None, Option(help="Stochastic depth.")],
    },
    "dynaconv.tasks.network:ModelSpec",
)

SIZES = Group(
    {
        "batch_size": Annotated[int | None, Option(help="Examples of one optimizer step, over all processes.")],
        "image_size": Annotated[
            str | None,
            Option(
                help="What the network sees: the side of a square; where the task takes it, height and width: 256x192."
            ),
        ],
    },
    "dynaconv.train.recipe:Recipe",
)

DATA = Group(
    {
        "workers": Annotated[int | None, Option(min=0, max=MOST_WORKERS, help="Loader processes.")],
        "bad_images": Annotated[str | None, choice("error", "skip", help="Unreadable images: 'error' or 'skip'.")],
        "max_bad_images": Annotated[
            int | None, Option(min=0, help="How many may be skipped. Default: 1 %, at least 10.")
        ],
        "data_root": Annotated[Path | None, Option(help="Folder of torch/ and hfds/ data sets.")],
        "train_split": Annotated[str | None, Option(help="Name of the training split.")],
        "eval_split": Annotated[str | None, Option(help="Name of the test split.")],
        "download": Annotated[bool | None, Option("--download", help="Fetch a torch/ data set.")],
    },
    values={"bad_images": "error"},
)
"""How to open the data."""

SERVING = Group(
    {
        "host": Annotated[str | None, Option(help="Address to listen on; 0.0.0.0 for every one of this machine.")],
        "port": Annotated[int | None, Option(help="Port; 0 takes a free one.")],
        "max_batch": Annotated[int | None, Option(help="Most images that the network sees at a time.")],
        "max_wait_ms": Annotated[float | None, Option(help="How long an image waits for others, in milliseconds.")],
        "queue": Annotated[int | None, Option(help="Most images in the service at a time; beyond that, status 429.")],
        "max_images": Annotated[int | None, Option(help="Most images of one request.")],
        "max_megabytes": Annotated[float | None, Option(help="Largest body of a request.")],
        "max_megapixels": Annotated[float | None, Option(help="Largest image.")],
        "timeout": Annotated[float | None, Option(help="Seconds for a body to arrive, and for its prediction.")],
        "decoders": Annotated[int | None, Option(help="Threads that decode images.")],
        "access_log": Annotated[bool | None, Option("--access-log", help="Log every request.")],
    },
    "dynaconv.serve.settings:ServeSettings",
)

ON = TRAINING.only("amp", "device", "channels_last")
"""On what a trained network runs."""


def assignments(option: str, words: list[str] | None) -> Given:
    """What an option that may be repeated assigns; a value is JSON, or a Python literal, or else a word.

    >>> assignments("--arg", ["experts=8", "convs=C1", "static=True", "channels=[8,16]"])
    {'experts': 8, 'convs': 'C1', 'static': True, 'channels': [8, 16]}

    Raises:
        UserError: not of the form ``NAME=VALUE``.
    """
    values = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise UserError(f"{option} {word!r}: expected NAME=VALUE, such as {option} experts=8.")
        values[name] = _value(value)
    return values


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
