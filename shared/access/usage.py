"""When API keys were last used: noted in memory where they are used, told to identity at most once a minute.

What a crash takes with it is the last minute's notes: a key then seems to have been used a little earlier than it was.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import cast

import structlog

from shared.clock import Clock
from shared.contracts import CATALOGUE
from shared.contracts.base import Fact, KeysUsed, KeyUse
from shared.messaging import outbox
from shared.messaging.dispatch import Dispatch
from shared.messaging.outbox import Relay
from shared.postgres import CONTENTION, Connection, Pool, is_unavailable, transaction

log = structlog.get_logger(__name__)

Uses = Mapping[str, datetime]
"""Ids of keys, each with when it was last used."""

Write = Callable[[Connection, Uses], Awaitable[Sequence[Fact]]]
"""Writes uses down in a transaction, and returns what is to be told of them."""

_SECONDS = timedelta(minutes=1).total_seconds()
_MOST_NOTES = 10_000
_MOST_TOLD = 1_000


class KeyUses:
    """Remembers when each key was last used, until that is taken; of no more keys than memory is meant for."""

    def __init__(self) -> None:
        self._uses: dict[str, datetime] = {}
        self._noted = asyncio.Event()

    def note(self, key_id: str, at: datetime) -> None:
        """Note that a key was used; not where too many others were, which a minute later are told."""
        known = self._uses.get(key_id)
        if known is None and len(self._uses) >= _MOST_NOTES:
            return
        self._uses[key_id] = at if known is None else max(known, at)
        self._noted.set()

    def take(self) -> Uses:
        """Return what was noted and forget it."""
        taken, self._uses = self._uses, {}
        self._noted.clear()
        return taken

    async def wait(self) -> None:
        """Wait until something is noted."""
        await self._noted.wait()


class UsageReport:
    """Tells identity which keys were used.

    Attributes:
        write: what becomes of the uses: a fact of this service, unless identity itself keeps them.
    """

    def __init__(
        self, uses: KeyUses, *, service: str, pool: Pool, dispatch: Dispatch, relay: Relay, clock: Clock
    ) -> None:
        self._uses = uses
        self._pool = pool
        self._dispatch = dispatch
        self._relay = relay
        self._clock = clock
        self.write: Write = telling(service)

    async def run(self) -> None:
        """Report what is noted, for ever; then wait a minute for more. Outages are waited out."""
        while True:
            await self._uses.wait()
            try:
                await self.report()
            except Exception as error:
                if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                    raise
                log.warning("uses of keys wait", action="key_uses_unavailable", error=repr(error))
            await self._clock.sleep(_SECONDS)

    async def report(self) -> None:
        """Write down what was noted and send what is to be told; where that fails, it stays noted."""
        if not (uses := self._uses.take()):
            return
        try:
            async with transaction(self._pool) as connection:
                outgoing = [self._dispatch.tell(fact) for fact in await self.write(connection, uses)]
                await outbox.insert(connection, outgoing, now=self._clock.now())
        except BaseException:
            for key_id, at in uses.items():
                self._uses.note(key_id, at)
            raise
        await self._relay.send(outgoing)


def telling(service: str) -> Write:
    """Return what makes uses a fact of a service, several where one would be too large."""

    async def tell(_connection: Connection, uses: Uses) -> Sequence[Fact]:
        fact = cast("type[KeysUsed]", CATALOGUE[f"{service}.api_keys_used.v1"])
        told = [KeyUse(key_id=key_id, used_at=at) for key_id, at in uses.items()]
        return [fact(uses=tuple(told[first : first + _MOST_TOLD])) for first in range(0, len(told), _MOST_TOLD)]

    return tell
