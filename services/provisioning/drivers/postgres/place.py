"""What pool, bridge and silo have in common: where one tenant's rows are, or are to be."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from shared.postgres import Connection


class StillInsideError(Exception):
    """Sessions of a tenant's did not end although they were told to. What they have written may still be committed."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table in which tenants have rows.

    Attributes:
        name: without its schema, and not quoted.
        key: the columns of its primary key in their order, ``tenant_id`` included; empty where there is none.
        columns: those that a row is written with, in their order: not the generated ones.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """What a tenant's place is to be like.

    Attributes:
        connections: how many each login may hold; None for the default, ten.
        is_throttled: whether no login is valid and none is issued.
    """

    tenant_id: str
    connections: int | None = None
    is_throttled: bool = False


class Place(Protocol):
    """Where one tenant's rows are, or are to be. All of it may be repeated, and two may do it at once."""

    @property
    def schema(self) -> str:
        """The schema of its tables."""
        ...

    async def exists(self) -> bool:
        """Tell whether it is there, whole and not on its way out."""
        ...

    async def prepare(self, connections: int | None) -> None:
        """Make it, empty and open; one that is there keeps rows, logins and throttling, and is brought up to date."""
        ...

    async def tables(self) -> list[Table]:
        """Return its tables in an order in which rows can be inserted: those that others refer to first."""
        ...

    def session(self, *, writes: bool) -> AbstractAsyncContextManager[Connection]:
        """Open a session of the tenant's own, throttled or not, under a login that is made for this alone.

        It sees and writes what row-level security lets the tenant see and write, from behind the same wall; it is good
        for an hour, for one connection, and until `configure` throttles or `remove` is called. Its ``search_path`` is
        the place's schema and nothing else, `READ_SETTINGS` are set, and no statement is timed out. It gets `jsonb` as
        text.

        Args:
            writes: whether it may insert, update and delete in all tables, set their sequences (and read them) and make
                temporary tables, whatever the tenant is granted.

        Raises:
            NoEnvironmentError: there is no such place.
        """
        ...

    async def configure(self, *, connections: int | None, is_throttled: bool) -> None:
        """Set what new and existing logins may do; then put out who is inside where nobody may be.

        Throttling is how a place is frozen: when this returns, nobody is inside, nothing that was not committed will
        be, and nobody gets in but by `session`. It puts out those as well that are there.

        Raises:
            StillInsideError: somebody does not go.
        """
        ...

    async def remove(self) -> dict[str, int]:
        """Remove all of it with its logins, and return how many rows each table had; nothing where nothing is there.

        Tables are named as an export names them: ``app.note``, also where they are in another schema.
        """
        ...
