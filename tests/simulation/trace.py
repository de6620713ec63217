"""What happened in one simulation, in order: the thing that must be the same when a seed is run again."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any


class Trace:
    """Keeps what is said and makes lines of it only when somebody reads them.

    Args:
        time: virtual seconds.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._entries: list[tuple[Any, ...]] = []

    @property
    def now(self) -> float:
        """The virtual time."""
        return self._time()

    def add(self, who: str, what: str, *details: object) -> None:
        """Note that something happened now.

        Args:
            details: what differs between two that are alike; nothing whose text depends on an address or on real time.
        """
        self._entries.append((self._time(), who, what, *details))

    def lines(self) -> Iterator[str]:
        """Return one line for each entry."""
        for moment, who, what, *details in self._entries:
            yield f"{moment:10.4f} {who:12} {what} {' '.join(map(str, details))}".rstrip()

    def digest(self) -> str:
        """Return what two equal traces have in common and two others have not."""
        digest = hashlib.blake2b(digest_size=16)
        for line in self.lines():
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._entries)
