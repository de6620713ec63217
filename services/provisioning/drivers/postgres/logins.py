"""Short-lived logins: what they are called, and where and how sessions are opened with them."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg

from services.provisioning.drivers.port import Login
from shared.postgres import Connection

DRIVER = "postgres"

LIFETIME = timedelta(minutes=15)
"""How long a login is valid: the shortest that AWS gives a session of an assumed role."""

READ_SETTINGS: Mapping[str, str] = {
    "statement_timeout": "0",  # the caller sets the bound, for all tables together
    # How values are written, whatever the server's defaults are.
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
"""What sessions have in which rows are read to be kept or compared."""

_DEFAULT_PORT = 5432
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Credentials:
    """A name and a password that were never used before."""

    username: str = field(default_factory=lambda: f"tenant_{secrets.token_hex(8)}")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)


class Address:
    """Where a database is reached, by its owner and by tenants.

    Args:
        url: the owner's login.
    """

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    @property
    def database(self) -> str:
        """The name of the database."""
        return unquote(self._url.path.removeprefix("/"))

    @property
    def url(self) -> str:
        """The owner's login."""
        return urlunsplit(self._url)

    def of(self, database: str) -> "Address":
        """Return where another database of the same server is reached."""
        return Address(urlunsplit(self._url._replace(path=f"/{quote(database, safe='')}")))

    def login(self, credentials: Credentials, expires_at: datetime) -> Login:
        """Return all that a tenant needs to connect."""
        return Login(
            driver=DRIVER,
            host=self._url.hostname or "localhost",
            port=self._url.port or _DEFAULT_PORT,
            database=self.database,
            username=credentials.username,
            password=credentials.password,
            expires_at=expires_at,
        )

    @asynccontextmanager
    async def owner(self, *, seconds: float) -> AsyncIterator[Connection]:
        """Open a session of the owner's for as long as a block lasts.

        Args:
            seconds: the bound for each statement.
        """
        connection = await asyncpg.connect(
            self.url,
            timeout=_CONNECT_SECONDS,
            command_timeout=seconds,
            server_settings={"application_name": "tenure postgres driver"},
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=_CONNECT_SECONDS)

    @asynccontextmanager
    async def session(self, credentials: Credentials, *, schema: str) -> AsyncIterator[Connection]:
        """Open a session of a tenant's for as long as a block lasts, with `READ_SETTINGS`."""
        place = self._url.netloc.rpartition("@")[2]
        login = f"{credentials.username}:{credentials.password}"
        quoted = schema.replace('"', '""')
        session = await asyncpg.connect(
            urlunsplit(self._url._replace(netloc=f"{login}@{place}")),
            timeout=_CONNECT_SECONDS,
            server_settings={**READ_SETTINGS, "application_name": "tenure carrier", "search_path": f'"{quoted}"'},
        )
        try:
            yield session
        finally:
            await session.close(timeout=_CONNECT_SECONDS)
