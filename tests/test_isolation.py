"""What a service that has fallen into wrong hands can do to the others with its own logins: nothing."""

from itertools import permutations

import asyncpg
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from deploy.databases import APPLICATION, database_url
from deploy.local.stack import Stack
from shared.contracts import SERVICES
from shared.messaging.topology import (
    RETRY_DELAYS,
    STATUS_EXCHANGE,
    USAGE_EXCHANGE,
    USAGE_QUEUE,
    USAGE_READER,
    exchange_of,
    parking_queue_of,
    retry_exchange_of,
    retry_queue_of,
    work_queue_of,
)
from shared.postgres import Connection
from tests.intruder import broker_login, channel_of, refused_to_publish, refused_to_read, signed

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("own_servers")]

PAIRS = [pytest.param(own, other, id=f"{own}-{other}") for own, other in permutations(SERVICES, 2)]


# Postgres


def database_login(stack: Stack, service: str) -> str:
    return stack.environment[service][f"TENURE_{service.upper()}_DATABASE_URL"]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_enters_no_database_but_its_own(stack: Stack, service: str) -> None:
    for other in (*SERVICES, APPLICATION):
        if other == service:
            continue
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await asyncpg.connect(database_url(database_login(stack, service), f"tenure_{other}"))
    for common in ("postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await asyncpg.connect(database_url(database_login(stack, service), common))


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_changes_rows_of_its_database_and_nothing_else(stack: Stack, service: str) -> None:
    connection: Connection = await asyncpg.connect(database_login(stack, service))
    try:
        tables = await connection.fetchval(
            "SELECT array_agg(tablename::text) FROM pg_tables WHERE schemaname = 'public'"
        )
        assert "inbox" in tables
        for statement in _definitions(tables):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


def _definitions(tables: list[str]) -> list[str]:
    """Return statements that change what is there, not what is in it."""
    of_each = ("TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} ADD planted text", "CREATE INDEX ON {} ((1))")
    return [
        *(statement.format(table) for table in tables for statement in of_each),
        "CREATE TABLE planted ()",
        "CREATE TEMPORARY TABLE planted ()",
        "CREATE SCHEMA planted",
        "CREATE FUNCTION planted() RETURNS void LANGUAGE sql AS ''",
        "CREATE EXTENSION dblink",
        "CREATE ROLE planted",
        "COPY inbox TO PROGRAM 'true'",
        "SELECT pg_read_file('PG_VERSION')",
        "DROP SCHEMA public CASCADE",
    ]


async def test_the_login_that_makes_tenants_logins_reaches_no_service(stack: Stack) -> None:
    """Provisioning makes roles; that must not make it a member of another service's."""
    url = stack.environment["provisioning"]["TENURE_APPLICATION_DATABASE_URL"]
    for service in SERVICES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await asyncpg.connect(database_url(url, f"tenure_{service}"))
    connection: Connection = await asyncpg.connect(url)
    try:
        for statement in ("GRANT tenure_billing TO CURRENT_USER", "ALTER ROLE tenure_billing PASSWORD 'mine'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


# RabbitMQ


@pytest.mark.parametrize(("service", "other"), PAIRS)
async def test_a_service_publishes_only_as_itself(stack: Stack, service: str, other: str) -> None:
    for exchange in (exchange_of(other), retry_exchange_of(other)):
        await refused_to_publish(broker_login(stack, service), exchange, signed(service))


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_publishes_past_its_exchange(stack: Stack, service: str) -> None:
    url = broker_login(stack, service)
    for target in (work_queue_of("billing"), work_queue_of(service), parking_queue_of("tenant")):
        await refused_to_publish(url, "", signed(service), target)
    for exchange in (USAGE_EXCHANGE, "amq.topic", "amq.direct", "amq.fanout"):
        await refused_to_publish(url, exchange, signed(service))
    if service != "onboarding":
        await refused_to_publish(url, STATUS_EXCHANGE, signed(service), "status.onboard.completed.t1")


@pytest.mark.parametrize(("service", "other"), PAIRS)
async def test_a_service_reads_only_what_is_meant_for_it(stack: Stack, service: str, other: str) -> None:
    retries = [retry_queue_of(other, delay) for delay in RETRY_DELAYS]
    for queue in (work_queue_of(other), parking_queue_of(other), *retries):
        await refused_to_read(broker_login(stack, service), queue)


@pytest.mark.parametrize("service", [service for service in SERVICES if service != USAGE_READER])
async def test_what_applications_publish_is_read_by_one_service(stack: Stack, service: str) -> None:
    await refused_to_read(broker_login(stack, service), USAGE_QUEUE)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_declares_binds_and_removes_nothing(stack: Stack, service: str) -> None:
    own_queue, own_exchange = work_queue_of(service), exchange_of(service)
    attempts = (
        lambda channel: channel.declare_queue("planted"),
        lambda channel: channel.declare_queue(exclusive=True),
        lambda channel: channel.declare_exchange("planted", "topic"),
        lambda channel: channel.queue_delete(own_queue),
        lambda channel: channel.exchange_delete(own_exchange),
        lambda channel: _bind(channel, own_queue, exchange_of("billing" if service != "billing" else "tenant")),
        lambda channel: _bind(channel, own_queue, STATUS_EXCHANGE),
    )
    for attempt in attempts:
        async with channel_of(broker_login(stack, service)) as channel:
            with pytest.raises(ChannelAccessRefused):
                await attempt(channel)


async def _bind(channel: AbstractChannel, queue_name: str, exchange: str) -> None:
    queue = await channel.get_queue(queue_name, ensure=False)
    await queue.bind(exchange, "#", timeout=10)


@pytest.mark.parametrize(
    "exchange", ["", STATUS_EXCHANGE, USAGE_EXCHANGE, *map(exchange_of, SERVICES), *map(retry_exchange_of, SERVICES)]
)
async def test_a_subscriber_outside_publishes_nothing(stack: Stack, exchange: str) -> None:
    await refused_to_publish(stack.watcher_url, exchange, signed("watcher"))


async def test_a_subscriber_outside_reads_the_status_exchange_alone(stack: Stack) -> None:
    for service in SERVICES:
        await refused_to_read(stack.watcher_url, work_queue_of(service))
        await refused_to_read(stack.watcher_url, parking_queue_of(service))
        async with channel_of(stack.watcher_url) as channel:
            queue = await channel.declare_queue("sub.planted", exclusive=True)
            with pytest.raises(ChannelAccessRefused):
                await queue.bind(exchange_of(service), "#", timeout=10)
        async with channel_of(stack.watcher_url) as channel:
            with pytest.raises(ChannelAccessRefused):
                await channel.declare_queue(work_queue_of(service), passive=False)
