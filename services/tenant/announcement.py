"""The catalog, told to everybody at every start and change, so that requests can be checked at the edge."""

from services.tenant.queries import catalog as queries
from shared.contracts.tenant import CatalogPublished
from shared.messaging import outbox
from shared.postgres import Connection, transaction
from shared.service import Kernel

CATALOG = "catalog"
"""What stands for a tenant where the catalog is announced, which belongs to none."""


async def published_catalog(connection: Connection) -> CatalogPublished:
    """Return the announcement of the catalog as it stands."""
    catalog = await queries.published(connection)
    return CatalogPublished(
        tenant_id=CATALOG,
        revision=catalog["revision"],
        tiers=catalog["tiers"],
        default_tier=catalog["default_tier"],
        products=catalog["products"],
    )


async def announce_catalog(kernel: Kernel) -> None:
    """Write the catalog as it stands into the outbox; the sweeper sends it as soon as the broker is there."""
    async with transaction(kernel.pool) as connection:
        outgoing = [kernel.dispatch.tell(await published_catalog(connection))]
        await outbox.insert(connection, outgoing, now=kernel.ports.clock.now())
    await kernel.relay.send(outgoing)
