"""Is nothing left lying about, has nobody ended by itself, and has everybody made do with the memory there is?"""

from collections.abc import Iterable

from deploy.audit import audit
from shared.contracts import SERVICES
from shared.messaging.topology import parking_queue_of
from shared.service import MEMORY_MEGABYTES
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.fleet import Fleet

_MEGABYTE = 2**20


async def check_plant(fleet: Fleet) -> list[Finding]:
    """Look at queues, outboxes, processes and the residue audit."""
    residue = (await audit(fleet.stack.audited)).findings
    return [
        *(Finding("residue", f"audit: {each}") for each in residue),
        *await _left_over(fleet),
        *(Finding("unplanned exits", each) for each in fleet.unplanned),
        *_memory(fleet),
    ]


async def _left_over(fleet: Fleet) -> Iterable[Finding]:
    queues, outboxes = await fleet.ledger.queues(), await fleet.ledger.outboxes()
    parking = {parking_queue_of(service) for service in SERVICES}
    parked = [Finding("parked", f"{count} in {name}") for name, count in queues.items() if name in parking]
    waiting = [Finding("stuck", f"{count} in {name}") for name, count in queues.items() if name not in parking]
    return parked + waiting + [Finding("stuck", f"{count} in the outbox of {name}") for name, count in outboxes.items()]


def _memory(fleet: Fleet) -> Iterable[Finding]:
    for service, peak in fleet.peaks.items():
        if peak > MEMORY_MEGABYTES * _MEGABYTE:
            yield Finding("memory", f"{service} had {peak // _MEGABYTE} MB, allowed are {MEMORY_MEGABYTES}")
