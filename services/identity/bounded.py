"""A mapping that forgets what was asked for least recently, so that memory stays bounded whatever clients send."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Bounded(Generic[KeyT, ValueT]):
    """Holds at most so many values.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[KeyT, ValueT] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: KeyT) -> ValueT | None:
        """Return a value, which is the most recent then, or None."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def peek(self, key: KeyT) -> ValueT | None:
        """Return a value as `get` does, and leave it as recent as it was."""
        return self._values.get(key)

    def put(self, key: KeyT, value: ValueT) -> None:
        """Hold a value, the most recent one."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def drop(self, key: KeyT) -> None:
        """Forget a value, if it is there."""
        self._values.pop(key, None)

    def recent_first(self) -> Iterator[tuple[KeyT, ValueT]]:
        """Go through all of them, from the one that was asked for last."""
        return reversed(self._values.items())
