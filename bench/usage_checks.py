"""What applications were told of their usage, and what the service says of it, beside the generator's own ledger."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from http import HTTPStatus
from urllib.parse import urlencode

import orjson

from bench.load import Client
from bench.usage import Batch, Place, Window, ledger
from bench.usage_load import PATH, Told

_WINDOWS: tuple[Window, ...] = ("hour", "month")
_PAGE = 200
_READERS = 4


@dataclass(frozen=True)
class Tally:
    """What applications were told of their events.

    Attributes:
        statuses: how often which.
        accepted: how often each event was called accepted, by its id.
        settled: the ids of events that were called accepted or duplicates.
    """

    statuses: Counter[str]
    accepted: Counter[str]
    settled: set[str]

    @classmethod
    def of(cls, told: Iterable[Told]) -> "Tally":
        """Read the answers."""
        tally = cls(Counter(), Counter(), set())
        for each in told:
            for event, result in zip(each.batch.events, orjson.loads(each.body)["results"], strict=True):
                tally.statuses[result["status"]] += 1
                tally.accepted[event.id] += result["status"] == "accepted"
                if result["status"] in {"accepted", "duplicate"}:
                    tally.settled.add(event.id)
        return tally

    @property
    def accepted_twice(self) -> list[str]:
        """Return the events that were called accepted more than once."""
        return [event_id for event_id, times in self.accepted.items() if times > 1]

    @property
    def never_accepted(self) -> set[str]:
        """Return the events that were only ever called duplicates: whoever took them did not live to say so."""
        return {event_id for event_id in self.settled if not self.accepted[event_id]}


async def mismatches(port: int, key: str, tenants: Iterable[str], batches: Collection[Batch]) -> list[str]:
    """Return in which hours and months the service says other than the ledger of all batches that were sent."""
    wrong = []
    for window in _WINDOWS:
        expected, found = ledger(batches, window), await _usage(port, key, tenants, window)
        wrong += [
            f"{tenant_id}, {meter}, {window} of {since:%d %H:%M}: {found.get(place)} instead of {expected.get(place)}"
            for place in sorted(expected.keys() | found.keys())
            for tenant_id, meter, since in [place]
            if expected.get(place) != found.get(place)
        ]
    return wrong


async def _usage(port: int, key: str, tenants: Iterable[str], window: Window) -> Mapping[Place, Decimal]:
    waiting, found = iter(tenants), dict[Place, Decimal]()
    async with asyncio.TaskGroup() as group:
        for _ in range(_READERS):
            group.create_task(_read_each(port, key, waiting, window, found))
    return found


async def _read_each(port: int, key: str, tenants: Iterator[str], window: Window, found: dict[Place, Decimal]) -> None:
    async with _client(port, key) as client:
        for tenant_id in tenants:
            found |= {
                (tenant_id, item["meter"], datetime.fromisoformat(item["from"])): Decimal(item["quantity"])
                async for item in _items(client, tenant_id, window)
            }


async def _items(client: Client, tenant_id: str, window: Window) -> AsyncIterator[Mapping[str, str]]:
    wanted = {"tenantId": tenant_id, "window": window, "limit": str(_PAGE)}
    while True:
        answer = await client.request("GET", f"{PATH}?{urlencode(wanted)}")
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"usage cannot be read: {answer.status} {answer.body.decode()}")
        page = orjson.loads(answer.body)
        for item in page["items"]:
            yield item
        if page["nextCursor"] is None:
            return
        wanted["cursor"] = page["nextCursor"]


@asynccontextmanager
async def _client(port: int, key: str) -> AsyncIterator[Client]:
    client = await Client.connect(port, key)
    try:
        yield client
    finally:
        client.close()
