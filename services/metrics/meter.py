"""What a meter is: which events it takes, and what it makes of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import asyncpg

from services.metrics.paths import Path, parse_path
from shared.http.problems import token

MISSING = object()
"""What a place finds where there is nothing."""


class Aggregation(StrEnum):
    """What a meter makes of the events of an hour."""

    COUNT = "count"
    SUM = "sum"
    MAX = "max"
    UNIQUE = "unique"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an event's data a meter looks."""

    path: Path

    @property
    def pointer(self) -> str:
        """The JSON pointer (RFC 6901) of it in the event."""
        return "/data" + "".join(f"/{token(str(step))}" for step in self.path)

    def find(self, data: Any) -> Any:
        """Return what is there, or `MISSING`."""
        for step in self.path:
            is_member = isinstance(step, str) and isinstance(data, dict) and step in data
            is_item = isinstance(step, int) and isinstance(data, list) and -len(data) <= step < len(data)
            if not (is_member or is_item):
                return MISSING
            data = data[step]
        return data


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter that events feed; it never changes.

    Attributes:
        event_type: the type of the events that it takes.
        value: None for a meter that counts.
        dimensions: by what it tells events apart, by name.
        allows_negative: whether values may be below zero.
    """

    name: str
    event_type: str
    aggregation: Aggregation
    value: Place | None = None
    dimensions: Mapping[str, Place] = field(default_factory=dict)
    allows_negative: bool = False

    @classmethod
    def of(cls, row: asyncpg.Record | Mapping[str, Any]) -> Self:
        """Make it from a row of the table of that name.

        Raises:
            ValueError: a path in it cannot be read.
        """
        return cls(
            name=row["name"],
            event_type=row["event_type"],
            aggregation=Aggregation(row["aggregation"]),
            value=None if row["value_path"] is None else Place(parse_path(row["value_path"])),
            dimensions={name: Place(parse_path(path)) for name, path in sorted(row["dimensions"].items())},
            allows_negative=row["allows_negative"],
        )
