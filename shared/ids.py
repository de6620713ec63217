"""Identities as a port: time-ordered in production, repeatable in simulation."""

import random
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from uuid_utils import compat

from shared.clock import Clock

_MILLISECONDS_SHIFT = 80
_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62


class Ids(Protocol):
    """Where every new identity comes from."""

    def new(self) -> UUID:
        """Return a UUID of version 7 that was never returned before (RFC 9562, section 5.7)."""
        ...


class TimeOrderedIds:
    """Identities from the machine's clock and its source of randomness."""

    def new(self) -> UUID:
        """Return a new UUID of version 7."""
        return compat.uuid7()


class SeededIds:
    """Identities that the seed and the clock determine; the twin of `TimeOrderedIds` for simulation.

    Args:
        seed: the same seed gives the same identities.
        clock: what the leading 48 bits are taken from.
    """

    def __init__(self, seed: int, clock: Clock) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose, never a secret
        self._clock = clock

    def new(self) -> UUID:
        """Return the next UUID of version 7."""
        return uuid7_at(self._clock.now(), self._random.getrandbits(74))


def moment_of(identity: UUID) -> datetime:
    """Return when an identity of version 7 was made, in milliseconds, aware, in UTC."""
    return datetime.fromtimestamp((identity.int >> _MILLISECONDS_SHIFT) / 1000, UTC)


def uuid7_at(moment: datetime, tail: int = 0) -> UUID:
    """Build the UUID of version 7 for a moment.

    Args:
        moment: aware; millisecond precision is kept.
        tail: the 74 bits that distinguish identities of one millisecond; 0 gives the smallest of all.
    """
    milliseconds = int(moment.timestamp() * 1000)
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return UUID(int=(milliseconds << _MILLISECONDS_SHIFT) | _VERSION_7 | (high << 64) | _VARIANT | low)
