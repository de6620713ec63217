"""What the service needs of whatever holds the environments of pooled tenants."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


class NoEnvironmentError(Exception):
    """The tenant has no environment that a login could be issued for."""


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
    """Makes and removes the partitions of pooled tenants. Everything may be repeated and changes nothing then."""

    async def provision(self, tenant_ids: Sequence[str]) -> None:
        """Make a partition for each tenant, in one go however many they are."""
        ...

    async def deprovision(self, tenant_ids: Sequence[str]) -> None:
        """Disconnect the tenants and remove their rows, logins and partitions, whatever is left of them."""
        ...

    async def issue_login(self, tenant_id: str) -> Login:
        """Make a new login of the tenant's.

        Raises:
            NoEnvironmentError: the tenant has no partition.
        """
        ...

    async def sweep_logins(self) -> int:
        """Remove expired logins, ending what sessions they still have, and return how many there were."""
        ...
