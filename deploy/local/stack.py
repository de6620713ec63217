"""What the services stand on, on one machine: servers, logins, schemas and topology, private to one data folder.

Servers that the environment names (``TENURE_AMQP_URL``, ``TENURE_<SERVICE>_DATABASE_URL``) are used instead of embedded
ones.
"""

import asyncio
import functools
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from aio_pika.exceptions import AMQPError

from deploy.databases import APPLICATION, DatabaseUrls, create_databases
from deploy.local.container import ContainerBroker, engine_answers
from deploy.local.postgres import PostgresServer
from deploy.local.processes import in_thread
from deploy.local.rabbitmq import BrokerServer, MissingBrokerError, find_broker
from deploy.local.secrets import Secrets, load_or_create
from deploy.logins import environment_of, logins_of
from deploy.manifest import manifest
from deploy.operator import keep_logins
from deploy.topology import DEPLOY, WATCHER, declare, definitions
from shared.contracts import SERVICES
from shared.postgres import migrate, service_migrations

Say = Callable[[str], None]

DEFAULT_ISSUER = "http://127.0.0.1:8080"
LAKE = "TENURE_METRICS_LAKE"

_UNUSABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, AMQPError, ValueError)


class GivenServerError(Exception):
    """A server that the environment names cannot be used; the message says which variable, and what to do."""


@dataclass(frozen=True)
class Stack:
    """A running set of servers.

    Attributes:
        environment: what each service has to be told, by service.
        databases: all logins, for the operator and for audits; none of a service's but its own goes to it.
        postgres: the embedded server; None where databases were given.
        broker: the embedded node; None where a broker was given or runs in a container.
        watcher_url: an AMQP login for subscribers outside.
    """

    environment: Mapping[str, Mapping[str, str]]
    databases: Mapping[str, DatabaseUrls]
    admin_key: str
    postgres: PostgresServer | None
    broker: BrokerServer | None
    watcher_url: str

    @property
    def audited(self) -> Mapping[str, str]:
        """The logins with which an audit reads every database."""
        return {name: urls.owner if name == APPLICATION else urls.app for name, urls in self.databases.items()}


@asynccontextmanager
async def running_stack(
    folder: Path, *, say: Say, durable: bool = True, issuer: str = DEFAULT_ISSUER, lake: Path | None = None
) -> AsyncIterator[Stack]:
    """Start what is missing, bring schemas and topology up to date, and stop what was started at the end.

    Args:
        folder: where data and generated secrets are kept.
        say: told one line for each part that is ready.
        durable: whether Postgres waits for the disk; only throw-away data may do without.
        issuer: the origin, which makes the access tokens; ``TENURE_ISSUER`` takes its place.
        lake: the absolute folder of the data lake, None for none; ``TENURE_METRICS_LAKE`` takes its place, empty too.
    """
    secrets = load_or_create(folder)
    async with AsyncExitStack() as exits:
        async with asyncio.TaskGroup() as group:
            databases = group.create_task(_databases(folder, secrets, exits, say, durable=durable))
            broker = group.create_task(_broker(folder, secrets, exits, say))
        postgres, urls = databases.result()
        node, amqp_urls = broker.result()
        told = {"TENURE_ADMIN_KEY": secrets.admin_key, "TENURE_ISSUER": os.environ.get("TENURE_ISSUER") or issuer}
        environment = {service: told | environment_of(service, urls, amqp_urls, secrets) for service in SERVICES}
        if lake is not None:
            environment["metrics"][LAKE] = os.environ.get(LAKE, str(lake))
        keep_logins(folder, logins_of(environment, urls, amqp_urls[WATCHER]))
        yield Stack(environment, urls, secrets.admin_key, postgres, node, amqp_urls[WATCHER])


async def _databases(
    folder: Path, secrets: Secrets, exits: AsyncExitStack, say: Say, *, durable: bool
) -> tuple[PostgresServer | None, Mapping[str, DatabaseUrls]]:
    started = _now()
    if given := _given_databases():
        server, urls = None, given
    else:
        server = PostgresServer(folder / "postgres", durable=durable)
        await server.start()
        exits.push_async_callback(server.stop)
        urls = await create_databases(server.admin_url, secrets.databases)
    say(f"Postgres    {'embedded, data in ' + str(server.folder) if server else 'given'}{_took(started)}")
    started = _now()
    applied = await asyncio.gather(*(_migrated(each, urls[each].owner, given=server is None) for each in SERVICES))
    say(f"Schemas     {len(SERVICES)} databases, {sum(map(len, applied))} migrations applied{_took(started)}")
    return server, urls


async def _migrated(service: str, url: str, *, given: bool) -> Sequence[str]:
    try:
        return await migrate(url, service_migrations(service))
    except _UNUSABLE as error:
        if not given:
            raise
        raise _unusable(f"TENURE_{service.upper()}_DATABASE_URL", url, error) from error


async def _broker(
    folder: Path, secrets: Secrets, exits: AsyncExitStack, say: Say
) -> tuple[BrokerServer | None, Mapping[str, str]]:
    started = _now()
    if given := os.environ.get("TENURE_AMQP_URL"):
        try:
            await declare(given, manifest())
        except _UNUSABLE as error:
            raise _unusable("TENURE_AMQP_URL", given, error) from error
        say(f"RabbitMQ    given{_took(started)}")
        return None, dict.fromkeys([*SERVICES, WATCHER], given)
    passwords = {**secrets.broker, DEPLOY: secrets.broker_deploy, WATCHER: secrets.broker_watcher}
    path = folder / "definitions.json"
    path.write_text(json.dumps(definitions(manifest(), passwords), indent=1), encoding="utf-8")
    path.chmod(0o600)
    server = await _own_broker(folder / "rabbitmq", path.resolve(), say)
    await server.start()
    exits.push_async_callback(server.stop)
    where = "own node" if isinstance(server, BrokerServer) else "container"
    say(f"RabbitMQ    {where} on port {server.port}{_took(started)}")
    urls = {user: server.url(user, password) for user, password in passwords.items()}
    return server if isinstance(server, BrokerServer) else None, urls


async def _own_broker(folder: Path, definitions: Path, say: Say) -> BrokerServer | ContainerBroker:
    """Choose what runs the broker: RabbitMQ on this machine, installed if need be, else a Docker engine."""
    try:
        program = await in_thread(functools.partial(find_broker, say))
    except MissingBrokerError:
        if not await in_thread(engine_answers):
            raise
        say("RabbitMQ    not on this machine; a Docker engine runs it, which may have to download it first")
        return ContainerBroker(folder, definitions=definitions)
    return BrokerServer(folder, definitions=definitions, program=program)


def _given_databases() -> Mapping[str, DatabaseUrls] | None:
    names = {service: f"TENURE_{service.upper()}_DATABASE_URL" for service in SERVICES}
    names[APPLICATION] = "TENURE_APPLICATION_DATABASE_URL"
    if not any(os.environ.get(name) for name in names.values()):
        return None
    if missing := [name for name in names.values() if not os.environ.get(name)]:
        raise GivenServerError(
            f"Some databases are given and some are not. Set {', '.join(missing)} too, or none of them."
        )
    return {
        owner: DatabaseUrls(
            owner=os.environ.get(name.replace("_URL", "_OWNER_URL"), os.environ[name]), app=os.environ[name]
        )
        for owner, name in names.items()
    }


def _unusable(variable: str, url: str, error: Exception) -> GivenServerError:
    place = urlsplit(url).netloc.rpartition("@")[2] or "nothing that is a URL"
    reason = str(error) or type(error).__name__
    return GivenServerError(
        f"{variable} names {place}, which cannot be used: {reason}\n"
        f"Start that server, correct the variable, or unset it and let Tenure run a server of its own."
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _took(started: float) -> str:
    return f"  ({_now() - started:.1f} s)"
