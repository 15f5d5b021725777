"""The policy for images that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dynaconv.errors import RunError, UserError

log = logging.getLogger(__name__)

POLICIES = ("error", "skip")


class BadImages:
    """Counts unreadable images, names each once in the log, and stops above the cap.

    Args:
        policy: ``error`` stops at the first; ``skip`` goes on without it.
        cap: number of different images that may be skipped.
    """

    def __init__(self, policy: str, cap: int) -> None:
        self.policy, self.cap = policy, cap
        self.reasons: dict[str, str] = {}

    def report(self, found: Iterable[tuple[str, str]]) -> None:
        """Take note of (name, reason) pairs; raise where the policy says so."""
        for name, reason in found:
            if self.policy == "error":
                raise UserError(
                    f"Cannot read the image {name}: {reason}. Repair or remove it, or pass --bad-images skip to go on "
                    f"without such images (at most {self.cap} of them)."
                )
            if name in self.reasons:
                continue
            self.reasons[name] = reason
            log.warning("skipped the image %s: %s", name, reason)
            if len(self.reasons) > self.cap:
                raise RunError(
                    f"{len(self.reasons)} images could not be read, more than the {self.cap} that may be skipped; "
                    f"the last is {name}: {reason}. Check the data, or raise --max-bad-images."
                )

    def state_dict(self) -> dict[str, str]:
        return dict(self.reasons)

    def load_state_dict(self, state: dict[str, str]) -> None:
        self.reasons = dict(state)


def default_cap(size: int) -> int:
    """1 % of the examples, at least 10."""
    return max(10, size // 100)
