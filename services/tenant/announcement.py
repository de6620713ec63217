"""The catalog, told to everybody whenever the service starts, so that requests can be checked at the edge."""

from services.tenant.handlers import published_catalog
from shared.messaging import outbox
from shared.postgres import transaction
from shared.service import Kernel


async def announce_catalog(kernel: Kernel) -> None:
    """Write the catalog as it stands into the outbox; the sweeper sends it as soon as the broker is there."""
    async with transaction(kernel.pool) as connection:
        outgoing = [kernel.dispatch.tell(await published_catalog(connection))]
        await outbox.insert(connection, outgoing, now=kernel.ports.clock.now())
    await kernel.relay.send(outgoing)
