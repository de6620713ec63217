"""Work on many tenants in one transaction, in which one that makes it fail does not keep the others waiting."""

from collections.abc import Awaitable, Callable, Sequence

from shared.messaging.event import Outgoing
from shared.postgres import is_transient


async def by_halves(
    tenant_ids: Sequence[str],
    work: Callable[[Sequence[str]], Awaitable[Sequence[Outgoing]]],
    park: Callable[[str, Exception], Awaitable[None]],
) -> Sequence[Outgoing]:
    """Work on tenants together; where that fails, on each half of them, until those are found with which it does.

    Args:
        work: takes effect for all that it is given and returns what is to be sent, or fails for all of them.
        park: puts a tenant off with which it fails, and says why.

    Returns:
        What is to be sent; it is in the outbox.

    Raises:
        Exception: the database is away, or somebody else in the way; nobody is put off for that.
    """
    try:
        return await work(tenant_ids)
    except Exception as error:
        if is_transient(error):
            raise
        if len(tenant_ids) == 1:
            await park(tenant_ids[0], error)
            return []
        middle = len(tenant_ids) // 2
        first = await by_halves(tenant_ids[:middle], work, park)
        return [*first, *await by_halves(tenant_ids[middle:], work, park)]
