"""All that customers were promised, beside all that there is."""

from collections.abc import Callable

from tests.chaos.campaign.check_events import check_events
from tests.chaos.campaign.check_plant import check_plant
from tests.chaos.campaign.check_promises import check_promises
from tests.chaos.campaign.check_tenants import check_tenants
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.fleet import Fleet
from tests.chaos.campaign.journal import Journal
from tests.chaos.campaign.traffic import Traffic
from tests.chaos.campaign.views import Views


async def compare(fleet: Fleet, traffic: Traffic, journal: Journal, say: Callable[[str], None]) -> list[Finding]:
    """Return what is not as it must be, when everything has come to rest."""
    records, tenants = fleet.records, traffic.tenants
    views = Views(fleet.client, {service: process.url for service, process in fleet.processes.items()})
    say(f"Comparing {len(journal.promises)} promises and {len(tenants)} tenants with what there is")
    return [
        *(Finding("wrong", oddity) for oddity in journal.oddities),
        *await check_promises(journal, records),
        *await check_events(fleet.watcher, records),
        *await check_tenants(tenants, records, views),
        *await check_plant(fleet),
    ]
