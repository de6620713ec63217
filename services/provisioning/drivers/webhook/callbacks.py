"""What is known of whoever was asked and has not answered yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from services.provisioning.queries import callbacks
from shared.postgres import Pool

_SWEPT_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Waiting:
    """An answer that is expected.

    Attributes:
        since: when it was asked for.
        document: the answer; None until it is there.
    """

    since: datetime
    document: Mapping[str, Any] | None


class Callbacks(Protocol):
    """Where answers arrive; whichever process takes one, any other finds it."""

    async def expect(self, key: str, environment_id: UUID, *, now: datetime, until: datetime) -> None:
        """Take an answer to this key from now on; those to earlier keys of the environment are not needed any more.

        Args:
            until: when all is forgotten.
        """
        ...

    async def find(self, key: str) -> Waiting | None:
        """Return what has become of a key; None where no answer to it is expected. The answer stays where it is."""
        ...

    async def record(self, key: str, document: Mapping[str, Any]) -> bool:
        """Keep an answer, unless there is one, and return whether it is expected."""
        ...

    async def forget(self, key: str) -> None:
        """Expect no answer to a key any more."""
        ...


class PostgresCallbacks:
    """The `Callbacks` in the service's own database.

    Args:
        pool: connections to it.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def expect(self, key: str, environment_id: UUID, *, now: datetime, until: datetime) -> None:
        """See `Callbacks.expect`."""
        async with self._pool.acquire() as connection:
            await callbacks.expect_callback(
                connection, key, environment_id=environment_id, asked_at=now, forget_at=until
            )

    async def find(self, key: str) -> Waiting | None:
        """See `Callbacks.find`."""
        async with self._pool.acquire() as connection:
            found = await callbacks.callback(connection, key)
        return None if found is None else Waiting(found["asked_at"], found["document"])

    async def record(self, key: str, document: Mapping[str, Any]) -> bool:
        """See `Callbacks.record`."""
        async with self._pool.acquire() as connection:
            return await callbacks.record_callback(connection, key, document)

    async def forget(self, key: str) -> None:
        """See `Callbacks.forget`."""
        async with self._pool.acquire() as connection:
            await callbacks.delete_callback(connection, key)

    async def sweep(self, now: datetime) -> int:
        """Forget what is old enough, some at a time, and return how many there were."""
        swept = 0
        async with self._pool.acquire() as connection:
            while some := await callbacks.delete_expired_callbacks(connection, now=now, limit=_SWEPT_AT_ONCE):
                swept += some
        return swept
