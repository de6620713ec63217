"""Is nothing left lying about, has nobody ended by itself, and has everybody made do with the memory there is?"""

from collections.abc import Iterable

from deploy.audit import audit
from shared.contracts import SERVICES
from shared.messaging.topology import parking_queue_of
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.plant import Plant

MEMORY_MEGABYTES = 150
"""What no service may ever need more of."""

_MEGABYTE = 2**20


async def check_plant(plant: Plant) -> list[Finding]:
    """Look at queues, outboxes, processes and the residue audit."""
    residue = (await audit(plant.stack.audited)).findings
    return [
        *(Finding("residue", f"audit: {each}") for each in residue),
        *await _left_over(plant),
        *(Finding("unplanned exits", each) for each in plant.unplanned),
        *_memory(plant),
    ]


async def _left_over(plant: Plant) -> Iterable[Finding]:
    queues, outboxes = await plant.ledger.queues(), await plant.ledger.outboxes()
    parking = {parking_queue_of(service) for service in SERVICES}
    parked = [Finding("parked", f"{count} in {name}") for name, count in queues.items() if name in parking]
    waiting = [Finding("stuck", f"{count} in {name}") for name, count in queues.items() if name not in parking]
    return parked + waiting + [Finding("stuck", f"{count} in the outbox of {name}") for name, count in outboxes.items()]


def _memory(plant: Plant) -> Iterable[Finding]:
    for service, peak in plant.peaks.items():
        if peak > MEMORY_MEGABYTES * _MEGABYTE:
            yield Finding("memory", f"{service} had {peak // _MEGABYTE} MB, allowed are {MEMORY_MEGABYTES}")
