"""Does whoever asks again under the same key get the first answer, and nothing new?"""

import asyncio
from random import Random

from tests.chaos.campaign.door import Door
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.journal import Promise
from tests.chaos.campaign.orders import Order

SAMPLE = 500

_AT_ONCE = 16


async def check_replays(door: Door, random: Random) -> list[Finding]:
    """Send some of the requests that were accepted once more, long after they have ended."""
    again = random.sample(door.accepted, min(SAMPLE, len(door.accepted)))
    free = asyncio.Semaphore(_AT_ONCE)
    found = await asyncio.gather(*(_repeat(door, order, promise, free) for order, promise in again))
    return [finding for finding in found if finding is not None]


async def _repeat(door: Door, order: Order, promise: Promise, free: asyncio.Semaphore) -> Finding | None:
    async with free:
        answer = await door.send(order, promise.key)
    workflow_id = answer.json().get("id")
    if workflow_id == promise.workflow_id and answer.headers.get("Idempotency-Replayed") == "true":
        return None
    return Finding("doubled", f"{promise.key} was promised {promise.workflow_id}, and again {answer.text[:200]}")
