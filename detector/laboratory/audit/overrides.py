"""A piece of advice: what to change and why, with the overrides that a command line takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Advice:
    """One thing that was looked at.

    changes: config key -> value; none where all is well. reason: why, with the figures.
    """

    topic: str
    reason: str
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def overrides(self) -> list[str]:
        """As the command line takes them."""
        return [f"{key}={written(value)}" for key, value in self.changes.items()]


def written(value: Any) -> str:
    """A value as an override has it."""
    if isinstance(value, tuple | list):
        return f"[{','.join(written(v) for v in value)}]"
    return value if isinstance(value, str) else repr(value)
