"""From a setup and what is its own to a recipe's dictionary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Dictionary = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the rows of one family share.

    Attributes:
        settings: of :class:`~dynaconv.train.settings.TrainSettings`.
        batch_size: examples of one optimizer step, over all processes.
        interpolation: of resizing, in training and evaluation.
        args: arguments of the network.
        notes: what the paper leaves open, and what was taken.
    """

    settings: Dictionary
    batch_size: int
    interpolation: str = "bilinear"
    args: Dictionary = field(default_factory=dict)
    notes: str

    def but(self, notes: str, **settings: Any) -> Setup:
        """The same with other settings, and further notes."""
        return Setup(
            settings={**self.settings, **settings},
            batch_size=self.batch_size,
            interpolation=self.interpolation,
            args=self.args,
            notes=f"{self.notes} {notes}",
        )


def row(
    setup: Setup,
    model: str,
    *,
    dropout: float,
    paper: str,
    row: str,
    top1: float | None,
    static_top1: float | None = None,
    drop_path: float | None = None,
    args: Dictionary | None = None,
    notes: str = "",
) -> Dictionary:
    """One recipe: what a paper's row says, as :class:`~dynaconv.train.recipe.Recipe` takes it.

    Args:
        setup: the family's settings.
        model: the network's name.
        dropout, drop_path: before the classifier; stochastic depth.
        paper, row: where the claim stands.
        top1, static_top1: published top-1 accuracy in percent, of this network and of its static twin.
        args: further arguments of the network.
        notes: deviations and open questions of this row alone.
    """
    return {
        "model": {
            "name": model,
            "dropout": dropout,
            **({} if drop_path is None else {"drop_path": drop_path}),
            "args": {**setup.args, **(args or {})},
        },
        "settings": {**setup.settings, "interpolation": setup.interpolation},
        "batch_size": setup.batch_size,
        "image_size": 224,
        "crop_pct": 0.875,
        "interpolation": setup.interpolation,
        "claim": {
            "paper": paper,
            "row": row,
            "top1": top1,
            "static_top1": static_top1,
            "reproduced": "no",
            "notes": " ".join(filter(None, [setup.notes, notes])),
        },
    }


def static_twin(recipe: Dictionary) -> Dictionary:
    """The recipe of the static twin: the same settings to the letter, ordinary layers."""
    claim, model = recipe["claim"], recipe["model"]
    return {
        **recipe,
        "model": {**model, "args": {**model["args"], "static": True}},
        "claim": {
            **claim,
            "row": f"{claim['row']}, static twin",
            "top1": claim["static_top1"],
            "static_top1": None,
            "notes": f"{claim['notes']} The settings are the dynamic network's, its regularisation included.",
        },
    }


def with_static_twin(recipe: Dictionary) -> dict[str, Dictionary]:
    """The recipes of a file that holds one row and its static twin."""
    return {"": recipe, "static": static_twin(recipe)}
