"""Base of settings: frozen, keyword-only, validated once, with errors that a person can use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from dynaconv.errors import UserError, suggest


class Frozen(BaseModel):
    """A pydantic model. Errors are :class:`~dynaconv.errors.UserError` and name the nearest known field."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        known = type(self).model_fields
        for name in values:
            if name not in known:
                raise UserError(f"There is no setting {name!r}. {suggest(name, known)}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(_sentence(error)) from error

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From a dictionary of values that are still to be checked."""
        return cls(**values)


def _sentence(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        where = ".".join(str(step) for step in problem["loc"]) or "settings"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "value_error":
            parts.append(message)  # our own sentence, which names what came
        else:
            parts.append(f"{where} is {problem['input']!r}: {message[0].lower()}{message[1:]}")
    return "; ".join(parts)
