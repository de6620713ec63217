"""Throw-away databases for tests: each a copy of a service's freshly migrated one, reached by the service's login."""

import asyncio
import secrets
from pathlib import Path
from typing import Protocol

from deploy.databases import (
    DatabasePasswords,
    DatabaseUrls,
    copy_database,
    create_database,
    database_url,
    drop_database,
    drop_logins,
)
from shared.postgres import migrate, service_migrations

_PASSWORDS = DatabasePasswords(owner="throw-away", app="throw-away")


class Server(Protocol):
    """A running server, ours or one that was given."""

    @property
    def admin_url(self) -> str:
        """The URL of a login that may do everything."""
        ...


class Broker(Server, Protocol):
    """A running RabbitMQ to which logins can be added."""

    def url(self, user: str, password: str) -> str:
        """Return the AMQP URL for a login, to the virtual host ``/``."""
        ...

    async def import_definitions(self, path: Path) -> None:
        """Add what a definitions file holds to the running node; what is there already stays.

        Args:
            path: an absolute path.
        """
        ...


class Templates:
    """The migrated template of each service, made when it is first needed, on one server.

    Names begin with ``tenure_test_`` and a random part, so a server that also runs an installation is not disturbed.

    Args:
        admin_url: a login that may create roles and databases.
    """

    def __init__(self, admin_url: str) -> None:
        self.admin_url = admin_url
        self._prefix = f"tenure_test_{secrets.token_hex(3)}"
        self._made: dict[str, DatabaseUrls] = {}

    async def template(self, service: str) -> str:
        """Return the name of a service's template database."""
        name = f"{self._prefix}_{service}"
        if service not in self._made:
            urls = await create_database(self.admin_url, name, _PASSWORDS)
            await migrate(urls.owner, service_migrations(service))
            self._made[service] = urls
        return name

    def urls(self, service: str, database: str) -> DatabaseUrls:
        """Return the URLs of a copy of a service's template."""
        made = self._made[service]
        return DatabaseUrls(owner=database_url(made.owner, database), app=database_url(made.app, database))

    async def drop(self) -> None:
        """Remove the templates and their logins; copies must be gone."""
        for service in self._made:
            await drop_database(self.admin_url, f"{self._prefix}_{service}")
            await drop_logins(self.admin_url, f"{self._prefix}_{service}")
        self._made.clear()


class FreshDatabases:
    """Makes databases for one test, and removes them after it.

    Args:
        templates: what they are copied from.
    """

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._lock = asyncio.Lock()
        self._databases: list[str] = []

    async def __call__(self, service: str) -> str:
        """Return the URL of a new, migrated, empty database of a service, as the service's own login."""
        return (await self.urls(service)).app

    async def urls(self, service: str) -> DatabaseUrls:
        """Return both URLs of such a database, for a test that must also act as its owner."""
        async with self._lock:  # two at once would make the template twice, or copy it while it is being copied
            template = await self._templates.template(service)
            database = f"{template}_{secrets.token_hex(4)}"
            await copy_database(self._templates.admin_url, template, database)
        self._databases.append(database)
        return self._templates.urls(service, database)

    async def drop(self) -> None:
        """Remove what was made, cutting the connections that a failed test left open."""
        for database in self._databases:
            await drop_database(self._templates.admin_url, database)
        self._databases.clear()
