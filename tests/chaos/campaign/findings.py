"""What a checker has found wrong, by what it means to whoever relied on it."""

from dataclasses import dataclass
from typing import Literal

Meaning = Literal[
    "lost", "doubled", "stuck", "residue", "wrong", "parked", "unplanned exits", "memory", "unrecovered", "vacuous"
]

MEANINGS: tuple[Meaning, ...] = (
    "lost",
    "doubled",
    "stuck",
    "residue",
    "wrong",
    "parked",
    "unplanned exits",
    "memory",
    "unrecovered",
    "vacuous",
)
"""All of them, in the order in which they are counted at the end."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be.

    Attributes:
        meaning: ``lost`` was promised and is not there; ``doubled`` is there more often than it was promised; ``stuck``
            does not end; ``residue`` is left of something that is over; ``wrong`` is any other difference;
            ``unrecovered`` did not go on after a fault; ``vacuous`` is a fault that has met nobody.
    """

    meaning: Meaning
    what: str

    def __str__(self) -> str:
        """Return it as one line, or more."""
        return f"{self.meaning}: {self.what}"
