import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

import aio_pika
import httpx2
import orjson
import pytest

from deploy.local.secrets import load_or_create
from deploy.parking import Parked, Parking, RefusedError, open_parking
from deploy.tests.conftest import ROOT, Up, environment_of
from shared.clock import SystemClock
from shared.contracts.metrics import TrackTenant, UntrackTenant
from shared.ids import TimeOrderedIds
from shared.messaging.admission import ATTEMPT, ORIGIN, Arrival
from shared.messaging.event import Event
from shared.messaging.ladder import REASON, Ladder
from shared.messaging.rabbitmq import RabbitBus
from shared.messaging.topology import RETRY_DELAYS, exchange_of, retry_exchange_of
from shared.testing import eventually

pytestmark = pytest.mark.broker

SERVICE = "metrics"


@pytest.fixture
def url(installation: Up) -> str:
    """The broker login of the service."""
    kept = dict(line.split("=", 1) for line in (installation.folder / "operator.env").read_text().splitlines())
    return kept[f"TENURE_{SERVICE.upper()}_AMQP_URL"]


@pytest.fixture(autouse=True)
async def nothing_parked(url: str) -> AsyncIterator[None]:
    yield
    async with open_parking(SERVICE, url) as parking:
        async for parked in parking.messages():
            await parking.discard(parked)


@pytest.fixture
async def client(installation: Up) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {load_or_create(installation.folder).admin_key}"}
    async with httpx2.AsyncClient(base_url=installation.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


async def test_a_failed_message_is_listed_and_takes_effect_when_it_is_replayed(
    installation: Up, url: str, client: httpx2.AsyncClient
) -> None:
    workflow_id, tenant_id = TimeOrderedIds().new(), "parked-tenant"
    await park_failed(url, ask(workflow_id, TrackTenant(tenant_id=tenant_id, quotas={"seats": 7})))

    listed = command(installation, "list", SERVICE)
    assert f"{SERVICE}: 1 parked" in listed
    assert "failed" in listed
    assert "metrics.track_tenant.v1" in listed
    assert "RuntimeError: out of order" in listed
    assert f"attempts {len(RETRY_DELAYS)}, login {SERVICE}" in listed
    assert await quotas(client, tenant_id) == []

    replayed = command(installation, "replay", SERVICE, "--all")
    assert "1 replayed, 0 left" in replayed
    await eventually(lambda: has_quota(client, tenant_id), within=10)
    assert f"{SERVICE}: nothing parked" in command(installation, "list")
    await clean_up(url, ask(workflow_id, UntrackTenant(tenant_id=tenant_id)), client)


async def test_a_forged_message_is_shown_in_full_and_never_replayed(installation: Up, url: str) -> None:
    await publish_forged(url)
    shown = command(installation, "show", SERVICE, "--all")
    assert "forged" in shown
    assert "without its headers" in shown
    assert '"secret plan"' in shown

    assert "0 replayed, 1 left" in command(installation, "replay", SERVICE, "--all")
    parked_id = (await parked_ids(url))[0]
    assert "it is forged" in command(installation, "replay", SERVICE, "--id", parked_id, code=1)
    assert await parked_ids(url) == [parked_id]


async def test_one_message_is_chosen_by_the_beginning_of_its_id(installation: Up, url: str) -> None:
    for number in range(2):
        await park_failed(url, ask(TimeOrderedIds().new(), UntrackTenant(tenant_id=f"nobody-{number}")))
    first, second = await parked_ids(url)
    assert "2 ids begin with 0" in command(installation, "discard", SERVICE, "--id", "0", "--yes", code=1)
    assert "No message of metrics" in command(installation, "discard", SERVICE, "--id", "zzz", "--yes", code=1)
    assert await parked_ids(url) == [first, second]
    removed = command(installation, "discard", SERVICE, "--id", second, "--yes")
    assert '"tenant_id": "nobody-1"' in removed or '"tenantId": "nobody-1"' in removed
    assert await parked_ids(url) == [first]


async def test_nothing_is_discarded_without_a_yes(installation: Up, url: str) -> None:
    await publish_forged(url)
    parked = await parked_ids(url)
    assert "Nothing was removed" in command(installation, "discard", SERVICE, "--all", code=1, answer="no\n")
    assert "Nothing was removed" in command(installation, "discard", SERVICE, "--all", code=1, answer="")
    assert await parked_ids(url) == parked
    assert "1 removed" in command(installation, "discard", SERVICE, "--all", answer="y\n")
    assert await parked_ids(url) == []


async def test_nothing_is_lost_when_the_command_is_killed_while_it_holds_messages(installation: Up, url: str) -> None:
    await publish_forged(url)
    parked = await parked_ids(url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.parking", "discard", SERVICE, "--all"),
        cwd=ROOT,
        env=environment_of(installation.folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert parked[0] in (await process.stdout.readline()).decode()
    assert await parked_ids(url) == []  # it holds them
    process.kill()
    await process.communicate()

    async def is_back() -> bool:
        return await parked_ids(url) == parked

    await eventually(is_back, within=10)


async def test_a_message_that_no_queue_takes_stays_parked(url: str) -> None:
    await park_failed(url, ask(TimeOrderedIds().new(), UntrackTenant(tenant_id="nobody")))
    parked = await parked_ids(url)
    async with open_parking(SERVICE, url) as parking:
        elsewhere = Parking("nowhere", SERVICE, parking._channel, parking._queue)
        with pytest.raises(aio_pika.exceptions.AMQPError):
            await elsewhere.replay(await anext(parking.messages()))
    assert await parked_ids(url) == parked


async def test_what_the_broker_parked_itself_is_replayed_only_if_its_publisher_signed_it(url: str) -> None:
    async with open_parking(SERVICE, url) as parking:
        for signer, is_believed in (("onboarding", True), ("billing", False), (SERVICE, True)):
            parked = delivered_too_often(signer)
            assert (parked.reason, parked.origin) == ("delivery_limit", "tenure.onboarding")
            assert parking.is_forged(parked) != is_believed
    with pytest.raises(RefusedError, match="forged"):
        await parking.replay(delivered_too_often("billing"))


async def test_headers_of_an_application_make_no_service_believe_what_the_broker_has_parked(url: str) -> None:
    """Sent again to the work queue, under the service's own login, it would be an ask of onboarding's."""
    headers = {ORIGIN: "tenure.onboarding", REASON: "failed", ATTEMPT: 0}
    parked = delivered_too_often(None, queue="metrics.usage", **headers)
    async with open_parking(SERVICE, url) as parking:
        assert (parked.origin, parked.is_usage) == ("tenure.usage", True)
        assert not parking.is_forged(parked)
        assert parking._copy(parked).headers == {ATTEMPT: 0, ORIGIN: "tenure.usage"}
    assert not delivered_too_often(SERVICE, queue="metrics.work", **{ORIGIN: "tenure.usage"}).is_usage


async def test_usage_that_is_refused_is_listed_with_the_reasons_and_replayed_to_where_it_was(
    installation: Up, url: str
) -> None:
    event = {"specversion": "1.0", "source": "/shop", "id": "1", "type": "api_call", "subject": "nobody-at-all"}
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        exchange = await channel.get_exchange(retry_exchange_of(SERVICE), ensure=False)
        message = aio_pika.Message(orjson.dumps(event), content_type="application/cloudevents+json")
        await exchange.publish(message, "usage")

    async def is_parked() -> bool:
        return len(await parked_ids(url)) == 1

    await eventually(is_parked, within=10)
    [first] = await parked_ids(url)
    listed = command(installation, "show", SERVICE, "--all")
    assert "refused" in listed
    assert "1 of 1 not taken: unknown_tenant (1). The first: Tenant nobody-at-all is not metered." in listed
    assert '"refusalcode": "unknown_tenant"' in listed

    assert "1 replayed" in command(installation, "replay", SERVICE, "--id", first)
    await eventually(is_parked, within=10)
    assert await parked_ids(url) != [first]


def test_a_broker_that_is_away_is_said_and_not_thrown(installation: Up) -> None:
    outcome = run(installation, "list", TENURE_AMQP_URL="amqp://a:secret@127.0.0.1:1/", **away())
    assert outcome.returncode == 2
    assert "could not be asked" in outcome.stdout
    assert "Traceback" not in outcome.stdout


def away() -> dict[str, str]:
    return {f"TENURE_{SERVICE.upper()}_AMQP_URL": "amqp://a:secret@127.0.0.1:1/"}


def ask(workflow_id: UUID, message: TrackTenant | UntrackTenant) -> Event:
    return Event(
        id=TimeOrderedIds().new(),
        publisher="onboarding",
        time=datetime.now(UTC),
        message=message,
        workflow_id=workflow_id,
        step="track-tenant",
    )


async def park_failed(url: str, event: Event) -> None:
    """Let the service's own ladder park a message that has failed for the last time."""
    bus = RabbitBus(url, name="test")
    ladder = Ladder(service=SERVICE, bus=bus, clock=SystemClock(), ids=TimeOrderedIds())
    arrival = Arrival(event, event.encode(), exchange_of("onboarding"), len(RETRY_DELAYS))
    await ladder.climb(arrival, RuntimeError("out of order"))
    await bus.close()


async def publish_forged(url: str) -> None:
    """Put a message onto the service's retry ladder past the service, and wait until it is found out."""
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        exchange = await channel.get_exchange(retry_exchange_of(SERVICE), ensure=False)
        body = b'[{"type": "metrics.track_tenant.v1", "data": "secret plan"}]'
        message = aio_pika.Message(body, content_type="application/cloudevents-batch+json", user_id=SERVICE)
        await exchange.publish(message, "work")

    async def is_parked() -> bool:
        return len(await parked_ids(url)) == 1

    await eventually(is_parked, within=10)


async def parked_ids(url: str) -> list[str]:
    async with open_parking(SERVICE, url) as parking:
        return [parked.id async for parked in parking.messages()]


async def quotas(client: httpx2.AsyncClient, tenant_id: str) -> list[object]:
    return list((await client.get("/v1/quotas", params={"tenantId": tenant_id})).json().get("items", []))


async def has_quota(client: httpx2.AsyncClient, tenant_id: str) -> bool:
    return bool(await quotas(client, tenant_id))


async def clean_up(url: str, undo: Event, client: httpx2.AsyncClient) -> None:
    """Take the tenant back the same way it came."""
    await park_failed(url, undo)
    async with open_parking(SERVICE, url) as parking:
        async for parked in parking.messages():
            await parking.replay(parked)
    tenant_id = undo.message.tenant_id

    async def is_gone() -> bool:
        return not await quotas(client, tenant_id)

    await eventually(is_gone, within=10)


def delivered_too_often(signer: str | None, queue: str = f"{SERVICE}.work", **headers: object) -> Parked:
    """Return a message as RabbitMQ dead-letters it from a queue.

    Args:
        headers: that its publisher gave it.
    """
    deaths = [{"reason": "delivery_limit", "exchange": "tenure.onboarding", "queue": queue, "count": 1}]
    delivered = SimpleNamespace(
        message_id="0198", user_id=signer, body=b"[]", content_type="", headers={**headers, "x-death": deaths}
    )
    return Parked(delivered)  # type: ignore[arg-type] # what RabbitMQ would say of it, without RabbitMQ


def command(installation: Up, *arguments: str, code: int = 0, answer: str = "") -> str:
    outcome = run(installation, *arguments, answer=answer)
    assert outcome.returncode == code, outcome.stdout
    return outcome.stdout


def run(installation: Up, *arguments: str, answer: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deploy.parking", *arguments],
        cwd=ROOT,
        env=environment_of(installation.folder, **environment),
        check=False,
        input=answer,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
