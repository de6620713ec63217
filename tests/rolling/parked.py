"""What old code parked because it did not know the type: when all run the new code, an operator replays it."""

from collections import Counter

from deploy.parking import Parked, Parking, open_parking
from tests.chaos.campaign.fleet import Fleet


async def replay_unknown(fleet: Fleet) -> Counter[str]:
    """Send everything of a type that the old code did not know to its service again; what failed stays to be found.

    Returns:
        How many messages of each service.
    """
    replayed = Counter[str]()
    for service, told in fleet.stack.environment.items():
        async with open_parking(service, told[f"TENURE_{service.upper()}_AMQP_URL"]) as parking:
            replayed[service] = await _replay(parking)
    return +replayed


async def _replay(parking: Parking) -> int:
    count = 0
    async for parked in parking.messages():
        if _is_unknown(parked):
            await parking.replay(parked)
            count += 1
    return count


def _is_unknown(parked: Parked) -> bool:
    """Tell whether a message was of an unknown type; releases without `shared.messaging.ladder.LOOKS_AT_UNKNOWN` park
    those at once, as undecodable."""
    return parked.reason == "unknown" or parked.detail.startswith("unknown type")
