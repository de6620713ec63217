"""`python -m deploy.compose.prepare`: bring databases and broker to what this release needs, then hand out the logins.

The second job of the stack, before any service starts. It can be run as often as one likes. A database that is newer
than this release is refused: nothing is started on it.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg
import httpx2

from deploy.compose.secrets import broker_passwords, topology
from deploy.compose.volumes import OPERATOR, POSTGRES, POSTGRES_PASSWORD, ROOT, WATCHER, put
from deploy.databases import DatabaseUrls, create_databases
from deploy.local.secrets import Secrets, load_or_create
from deploy.logins import environment_of, logins_of
from deploy.operator import WATCHER_VARIABLE, keep_logins
from deploy.topology import DEPLOY
from shared.contracts import SERVICES
from shared.postgres import MigrationError, migrate, service_migrations

_POSTGRES = "postgres:5432"
_AMQP = "rabbitmq:5672"
_MANAGEMENT = "http://rabbitmq:15672"
_IMPORT_SECONDS = 60.0
_GIVEN = {"billing": ("TENURE_BILLING_STRIPE_KEY", "TENURE_BILLING_STRIPE_WEBHOOK_SECRET")}
"""Secrets that somebody else has made; a service gets them as it gets its own."""


def main(root: Path = ROOT) -> int:
    """Prepare everything and return the exit code: 1 where a server is away or its data are not this release's."""
    try:
        asyncio.run(prepare(root))
    except (MigrationError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, httpx2.HTTPError) as error:
        print(f"Nothing is started: {error or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


async def prepare(root: Path) -> None:
    """Make or bring up to date what every service needs, and tell each what is for it alone.

    Raises:
        MigrationError: a database has migrations that this release does not know, or others than it had.
    """
    made = load_or_create(root / OPERATOR)
    urls = await _databases(made, (root / POSTGRES / POSTGRES_PASSWORD).read_text(encoding="utf-8"))
    await _topology(made)
    passwords = broker_passwords(made)
    amqp_urls = {user: f"amqp://{user}:{quote(password, safe='')}@{_AMQP}/" for user, password in passwords.items()}
    environment = {service: environment_of(service, urls, amqp_urls, made) for service in SERVICES}
    for service, told in environment.items():
        given = {name: os.environ[name] for name in _GIVEN.get(service, ()) if name in os.environ}
        _hand_out(root / service, {"TENURE_ADMIN_KEY": made.admin_key, **told, **given})
    keep_logins(root / WATCHER, {WATCHER_VARIABLE: amqp_urls[WATCHER]})
    keep_logins(root / OPERATOR, logins_of(environment, urls, amqp_urls[WATCHER]))
    print(f"Logins      handed out to {len(SERVICES)} services")


async def _databases(made: Secrets, password: str) -> Mapping[str, DatabaseUrls]:
    started = time.monotonic()
    admin_url = f"postgresql://postgres:{quote(password, safe='')}@{_POSTGRES}/postgres"
    urls = await create_databases(admin_url, made.databases)
    applied = await asyncio.gather(*(migrate(urls[each].owner, service_migrations(each)) for each in SERVICES))
    print(f"Postgres    {len(urls)} databases, {sum(map(len, applied))} migrations applied{_took(started)}", flush=True)
    return urls


async def _topology(made: Secrets) -> None:
    """Let the broker have the exchanges, queues, bindings, logins and permissions of this release, while it runs."""
    started = time.monotonic()
    login = httpx2.BasicAuth(DEPLOY, made.broker_deploy)
    async with httpx2.AsyncClient(base_url=_MANAGEMENT, auth=login, timeout=_IMPORT_SECONDS, trust_env=False) as client:
        answer = await client.post("/api/definitions", json=topology(made))
        answer.raise_for_status()
    print(f"RabbitMQ    queues and permissions are this release's{_took(started)}", flush=True)


def _hand_out(folder: Path, told: Mapping[str, str]) -> None:
    for name, value in told.items():
        put(folder, name, value)


def _took(started: float) -> str:
    return f"  ({time.monotonic() - started:.1f} s)"


if __name__ == "__main__":
    sys.exit(main())
