"""The service put together: what it does without being asked."""

import asyncio
from datetime import timedelta
from pathlib import Path

import httpx2

from deploy.local.throwaway import FreshDatabases
from services.provisioning.app import build
from services.provisioning.drivers.aws import open_aws
from services.provisioning.drivers.postgres.place import Partition
from services.provisioning.mail import open_queue
from services.provisioning.settings import ProvisioningSettings
from services.provisioning.tests.cloud import MANAGEMENT_ROLE, TOPIC, Cloud
from services.provisioning.tests.mail_kit import Mail, bounce, opened
from services.provisioning.tests.support import Application
from shared.clock import SystemClock
from shared.messaging.topology import Manifest, exchange_of
from shared.postgres import Pool, open_pool
from shared.service import Ports
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker, MemoryBus

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "provisioning" / "terraform_style.py"


async def test_what_has_expired_is_removed_and_what_has_not_is_served(
    fresh_database: FreshDatabases, application: Application
) -> None:
    clock, url = SystemClock(), await fresh_database("provisioning")
    pool = await open_pool(url)
    await application.driver.provision([Partition("a")])
    valid, expired = await application.driver.issue_login("a"), await application.driver.issue_login("a")
    await application.pool.execute(
        "UPDATE tenancy.login SET expires_at = now() - interval '1 second' WHERE login = $1", expired.username
    )
    await pool.executemany(
        "INSERT INTO export VALUES (gen_random_uuid(), 'a', $1, $1, '{}', 1, repeat('0', 64))",
        [(clock.now() + timedelta(days=days),) for days in (-1, 1)],
    )
    settings = ProvisioningSettings.from_environment(
        {
            "TENURE_PROVISIONING_DATABASE_URL": url,
            "TENURE_APPLICATION_DATABASE_URL": application.url,
            "TENURE_AMQP_URL": "amqp://127.0.0.1/",
            "TENURE_ADMIN_KEY": "key",
        }
    )
    broker = MemoryBroker(Manifest.load(), clock)

    async with build(settings, Ports(bus=lambda service: MemoryBus(broker, service))) as service:
        stopping = asyncio.Event()
        running = asyncio.create_task(service.run(stopping))
        await eventually(lambda: is_swept(pool, application, valid.username), describe="both are swept")
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(service.api),
            base_url="http://test",
            headers={"Authorization": "Bearer key"},
        ) as client:
            assert len((await client.get("/v1/exports")).json()["items"]) == 1
        stopping.set()
        await running
    await broker.close()
    await pool.close()


async def is_swept(pool: Pool, application: Application, login: str) -> bool:
    exports = await pool.fetchval("SELECT count(*) FROM export")
    return exports == 1 and await application.logins() == {login}


async def test_drivers_that_are_told_of_are_there(fresh_database: FreshDatabases, application: Application) -> None:
    clock = SystemClock()
    settings = ProvisioningSettings.from_environment(
        {
            "TENURE_PROVISIONING_DATABASE_URL": await fresh_database("provisioning"),
            "TENURE_APPLICATION_DATABASE_URL": application.url,
            "TENURE_AMQP_URL": "amqp://127.0.0.1/",
            "TENURE_ADMIN_KEY": "key",
            "TENURE_PROVISIONING_SCRIPT": str(SCRIPT),
            "TENURE_PROVISIONING_WEBHOOK_URL": "http://127.0.0.1:1/tenure",
            "TENURE_PROVISIONING_WEBHOOK_SECRETS": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        }
    )
    broker = MemoryBroker(Manifest.load(), clock)

    async with (
        build(settings, Ports(bus=lambda service: MemoryBus(broker, service))) as service,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(service.api),
            base_url="http://test",
            headers={"Authorization": "Bearer key"},
        ) as client,
    ):
        drivers = (await client.get("/v1/drivers")).json()["items"]
        unsigned = await client.post(f"/v1/driver-callbacks/{'0' * 64}", json={})
    await broker.close()

    assert [driver["name"] for driver in drivers] == ["postgres", "script", "webhook"]
    assert unsigned.status_code == 401


async def test_what_amazon_tells_of_mails_reaches_the_other_services_and_acts(
    fresh_database: FreshDatabases, application: Application, cloud: Cloud
) -> None:
    clock, url, queue_url = SystemClock(), await fresh_database("provisioning"), opened(cloud)
    pool = await open_pool(url)
    settings = ProvisioningSettings.from_environment(
        {
            "TENURE_PROVISIONING_DATABASE_URL": url,
            "TENURE_APPLICATION_DATABASE_URL": application.url,
            "TENURE_AMQP_URL": "amqp://127.0.0.1/",
            "TENURE_ADMIN_KEY": "key",
            "TENURE_PROVISIONING_AWS_REGION": "eu-central-1",
            "TENURE_PROVISIONING_AWS_ENDPOINT_URL": cloud.url,
            "TENURE_PROVISIONING_AWS_MANAGEMENT_ROLE_ARN": MANAGEMENT_ROLE,
            "TENURE_PROVISIONING_AWS_MAIL_PREFIX": "aws",
            "TENURE_PROVISIONING_AWS_MAIL_DOMAIN": "example.org",
            "TENURE_PROVISIONING_AWS_ORGANIZATIONAL_UNIT_ID": cloud.unit_id,
            "TENURE_PROVISIONING_AWS_TOPIC_ARN": TOPIC,
            "TENURE_PROVISIONING_AWS_MAIL_QUEUE_URL": queue_url,
            "TENURE_PROVISIONING_AWS_MAIL_LEAST_SENDS": "10",
        }
    )
    broker = MemoryBroker(Manifest.load(), clock)
    broker.declare_queue("listener")
    broker.bind(exchange_of("provisioning"), "listener", "#")
    terms = cloud.terms()
    async with open_aws(terms, clock=clock) as driver:
        with open_queue(terms, queue_url) as queue:
            mail = Mail(cloud, pool, driver, queue, queue_url)
            account_id = await mail.silo("a")

    async with build(settings, Ports(bus=lambda service: MemoryBus(broker, service))) as service:
        stopping = asyncio.Event()
        running = asyncio.create_task(service.run(stopping))
        mail.say(bounce(account_id, at=clock.now(), recipients=3))
        await eventually(lambda: cloud.plan.mute == {account_id}, within=30, describe="the account sends no more")
        await eventually(
            lambda: {"provisioning.mail_reported.v1", "provisioning.mail_sending_paused.v1"} <= said(broker),
            describe="others hear of it",
        )
        stopping.set()
        await running
    await broker.close()
    await pool.close()


def said(broker: MemoryBroker) -> set[str]:
    return {message.routing_key for message in broker.messages("listener")}
