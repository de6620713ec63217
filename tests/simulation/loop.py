"""An event loop on virtual time: nothing waits for a clock, and what runs next depends on nothing but what ran before.

Callbacks that are ready run first, in their order. When none is ready:

1. something real is under way (one database operation): wait for it, while virtual time stands still;
2. else somebody may have work that was held back (`when_idle`): let it begin;
3. else jump to the next timer.

So there is never more than one thing that the machine could answer sooner or later than at another time.
`looptime <https://github.com/nolar/looptime>`_ is the known loop of this kind; it does not know what is real, and waits
a little to find out.
"""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any

_LONGEST_REAL_WAIT = 60.0
_LONGEST_MOMENT = 200_000


class StandstillError(Exception):
    """Nothing is ready, nothing is under way, no timer is set; or one moment of virtual time does not end."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A selector event loop that has its own time.

    Attributes:
        under_way: how many real operations are; whoever begins one counts it.
        when_idle: called when nothing else can happen at this moment; returns whether it began something.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.under_way = 0
        self.when_idle: Callable[[], bool] = _nothing
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Return the seconds of virtual time since the last `rewind`."""
        return self.now

    def rewind(self) -> None:
        """Let virtual time begin anew; timers that are still set never go off."""
        for handle in list(self._scheduled):  # type: ignore[attr-defined]
            handle.cancel()
        self._scheduled.clear()  # type: ignore[attr-defined]
        self._timer_cancelled_count = 0
        self.now = 0.0


class _Selector(selectors.BaseSelector):
    """What the loop asks when it has nothing to do; only real operations are passed on."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return self._another_turn()
        self._turns = 0
        if self._loop.under_way:
            return self._wait()
        if self._loop.when_idle():
            return []
        if timeout is None:
            raise StandstillError("nothing will ever happen")
        self._loop.now += timeout
        return []

    def _another_turn(self) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if self._turns > _LONGEST_MOMENT:
            self._turns = 0
            raise StandstillError(f"{_LONGEST_MOMENT} turns of the loop without an end of this moment")
        return []

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(_LONGEST_REAL_WAIT)
        if not events:
            raise StandstillError(f"a real operation has taken {_LONGEST_REAL_WAIT} s")
        return events

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def _nothing() -> bool:
    return False
