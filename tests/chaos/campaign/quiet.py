"""The quiet after the faults: everything that was begun comes to its end."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.chaos.campaign.fleet import Fleet
from tests.chaos.campaign.traffic import Traffic

QUIET_SECONDS = 90.0

_LOOK_SECONDS = 0.5
_REPORT_SECONDS = 10.0
_SILENCE_SECONDS = 2.0


async def rest(traffic: Traffic, say: Callable[[str], None]) -> None:
    """Wait until every customer knows what has become of its order."""
    resting = asyncio.create_task(traffic.rest())
    while not resting.done():
        await asyncio.wait([resting], timeout=_REPORT_SECONDS)
        say(f"{traffic.under_way} orders are still under way")
    resting.result()


async def settle(fleet: Fleet) -> None:
    """Wait until outboxes and work queues are empty, for as long as is reasonable; what is left is found later."""
    deadline = asyncio.get_running_loop().time() + QUIET_SECONDS
    for left in (fleet.ledger.outboxes, _working(fleet)):
        while await left() and asyncio.get_running_loop().time() < deadline:
            await _pause()
    heard = -1
    while heard < fleet.watcher.heard:  # it has no way to know that nothing comes any more
        heard = fleet.watcher.heard
        await asyncio.sleep(_SILENCE_SECONDS)


async def _pause() -> None:
    await asyncio.sleep(_LOOK_SECONDS)


def _working(fleet: Fleet) -> Callable[[], Awaitable[dict[str, int]]]:
    async def working() -> dict[str, int]:
        return {name: count for name, count in (await fleet.ledger.queues()).items() if not name.endswith(".parking")}

    return working
