"""What the service needs of whatever holds the environments of pooled tenants."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias
from uuid import UUID

Sink: TypeAlias = Callable[[bytes], Coroutine[Any, Any, None]]
"""Takes a stream piece by piece."""


class NoEnvironmentError(Exception):
    """The tenant has no environment that a login could be issued for, or that could be exported."""


class ThrottledError(Exception):
    """Nobody may work in the tenant's environment at the moment."""


@dataclass(frozen=True, slots=True)
class Partition:
    """What a tenant's partition is to be like.

    Attributes:
        connections: how many each login may hold, or None for the driver's default.
        is_throttled: whether logins end and none is issued.
    """

    tenant_id: str
    connections: int | None = None
    is_throttled: bool = False


@dataclass(frozen=True, slots=True)
class Login:
    """A short-lived login that sees the rows of one tenant.

    Attributes:
        password: exists here and with whoever asked for it; nothing stores it, and no representation shows it.
        expires_at: it opens no session from then on, and the sessions it has opened see nothing.
    """

    driver: str
    host: str
    port: int
    database: str
    username: str
    password: str = field(repr=False)
    expires_at: datetime

    @property
    def url(self) -> str:
        """All a client needs to connect, password included."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{self.username}:{self.password}@{host}:{self.port}/{self.database}"


class PoolDriver(Protocol):
    """Makes, configures and removes the partitions of pooled tenants.

    Everything may be repeated and changes nothing then. Each tenant is named at most once in a call.
    """

    async def provision(self, partitions: Sequence[Partition]) -> None:
        """Make a partition for each tenant, in one go however many they are; throttling is not part of it."""
        ...

    async def configure(self, partitions: Sequence[Partition]) -> None:
        """Make the partitions that exist be as described, their logins and open sessions included."""
        ...

    async def export(self, tenant_id: str, write: Sink) -> dict[str, int]:
        """Write all rows of a tenant as lines of JSON, as they are at one moment and always in the same order.

        Args:
            write: gets piece after piece, cut anywhere.

        Returns:
            How many rows each table has, the empty ones included.

        Raises:
            NoEnvironmentError: the tenant has no partition.
        """
        ...

    async def deprovision(self, tenant_ids: Sequence[str]) -> None:
        """Disconnect the tenants and remove their rows, logins and partitions, whatever is left of them."""
        ...

    async def remove(self, environments: Mapping[str, UUID | None]) -> dict[str, dict[str, int]]:
        """Deprovision, and return how many rows of each table were deleted.

        Args:
            environments: by tenant, what the removal is known by when it is repeated: it is then answered as before.
        """
        ...

    async def issue_login(self, tenant_id: str) -> Login:
        """Make a new login of the tenant's.

        Raises:
            NoEnvironmentError: the tenant has no partition.
            ThrottledError: it has one, in which nobody may work.
        """
        ...

    async def sweep_logins(self) -> int:
        """Remove expired logins, ending what sessions they still have, and return how many there were."""
        ...
