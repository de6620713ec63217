"""Messages that claim to be somebody else's, by all the ways that are known: none is believed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractIncomingMessage
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed

from deploy.local.stack import Stack
from shared.contracts import SERVICES, identity, provisioning, tenant
from shared.contracts.base import Message
from shared.ids import TimeOrderedIds
from shared.messaging.event import SOURCE_PREFIX, join_batch
from shared.messaging.ladder import DETAIL, REASON, USER
from shared.messaging.topology import STATUS_EXCHANGE, exchange_of, parking_queue_of, retry_exchange_of, work_queue_of
from shared.testing import eventually
from tests.intruder import broker_login, channel_of, signed
from tests.snapshot import quiet_snapshot
from tests.system import System, withheld

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("own_servers")]

ATTACKER = "identity"


def forged(message: Message, *, source: str, step: str = "register-tenant", workflow_id: str | None = None) -> bytes:
    """Encode a message as if ``source`` had said it, on behalf of a step of some workflow."""
    event = {
        "specversion": "1.0",
        "id": str(TimeOrderedIds().new()),
        "type": message.routing_key(),
        "source": SOURCE_PREFIX + source,
        "subject": message.tenant_id,
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
        "correlationid": workflow_id or str(TimeOrderedIds().new()),
        "workflowstep": step,
        "data": message.model_dump(mode="json", by_alias=True),
    }
    return json.dumps(event).encode()


REGISTERED = tenant.TenantRegistered(tenant_id="forged", plan="premium", quotas={}, isolation="pool")
CREATED = identity.AdministratorsCreated(tenant_id="forged", user_ids=())
BOUND = CREATED.routing_key()
"""A key that leads from the attacker's own exchange to onboarding."""


@pytest_asyncio.fixture(loop_scope="session")
async def unchanged(system: System) -> AsyncIterator[None]:
    """Whatever the test does, no row of any database is another one afterwards."""
    before = await quiet_snapshot(system)
    yield
    assert await quiet_snapshot(system) == before


async def taken_from_parking(stack: Stack, service: str) -> AbstractIncomingMessage | None:
    """Take the first message out of a service's parking."""
    async with channel_of(broker_login(stack, service)) as channel:
        queue = await channel.get_queue(parking_queue_of(service), ensure=False)
        return await queue.get(no_ack=True, fail=False)


async def assert_parked_as_forged(stack: Stack, body: bytes, *, by: str | None, detail: str) -> None:
    """Expect a forged message in onboarding's parking, alone or as a batch of one, and take it out."""
    found: list[AbstractIncomingMessage] = []

    async def is_there() -> bool:
        message = await taken_from_parking(stack, "onboarding")
        if message is not None and message.headers[REASON] == "forged":
            found.append(message)
        return bool(found)

    await eventually(is_there, describe="a forged message in the parking of onboarding")
    (message,) = found
    assert json.loads(message.body) in (json.loads(body), *json.loads(body))
    assert message.headers[USER] == (by or "")
    assert detail in str(message.headers[DETAIL])


async def publish(url: str, exchange: str, routing_key: str, message: aio_pika.Message) -> None:
    async with channel_of(url) as channel:
        target = await channel.get_exchange(exchange, ensure=False)
        await target.publish(message, routing_key, mandatory=True, timeout=10)


async def test_another_login_in_the_message_is_refused_by_the_broker(stack: Stack, unchanged: None) -> None:
    async with channel_of(broker_login(stack, ATTACKER)) as channel:
        exchange = await channel.get_exchange(exchange_of(ATTACKER), ensure=False)
        with pytest.raises(ChannelPreconditionFailed, match="user_id"):
            await exchange.publish(signed("tenant", forged(REGISTERED, source="tenant")), BOUND, timeout=10)


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_a_copy_for_anothers_key_reaches_nobody(stack: Stack, unchanged: None, header: str) -> None:
    """The first forgery: sender-selected distribution evades topic permissions on a shared exchange."""
    body = join_batch([forged(tenant.DeregisterTenant(tenant_id="forged"), source="onboarding")])
    copies: list[Any] = ["tenant.deregister_tenant.v1", "tenant.tenant_registered.v1", work_queue_of("tenant")]

    # The last copy is for a key that is bound: it shows that the broker does look at the header.
    message = signed(ATTACKER, body, headers={header: [*copies, BOUND]})
    await publish(broker_login(stack, ATTACKER), exchange_of(ATTACKER), "identity.nothing.v1", message)

    await assert_parked_as_forged(stack, body, by=ATTACKER, detail="source onboarding came through tenure.identity")
    for service in SERVICES:
        assert await taken_from_parking(stack, service) is None


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_a_copy_through_the_private_exchange_reaches_its_owner_alone(
    stack: Stack, unchanged: None, header: str
) -> None:
    copies: list[Any] = [work_queue_of("tenant"), parking_queue_of("tenant"), "parking"]

    message = signed(ATTACKER, headers={header: copies})
    await publish(broker_login(stack, ATTACKER), retry_exchange_of(ATTACKER), "nobody", message)

    assert await taken_from_parking(stack, ATTACKER) is not None
    for service in SERVICES:
        assert await taken_from_parking(stack, service) is None


@pytest.mark.parametrize("source", ["tenant", ATTACKER])
async def test_anothers_fact_under_ones_own_key_is_parked(stack: Stack, unchanged: None, source: str) -> None:
    """What is bound is the key; what is believed is what the message says it is."""
    body = join_batch([forged(REGISTERED, source=source)])

    await publish(broker_login(stack, ATTACKER), exchange_of(ATTACKER), BOUND, signed(ATTACKER, body))

    detail = "source tenant came through tenure.identity" if source == "tenant" else "identity does not say"
    await assert_parked_as_forged(stack, body, by=ATTACKER, detail=detail)


async def test_a_message_without_its_login_is_parked(stack: Stack, unchanged: None) -> None:
    body = join_batch([forged(CREATED, source=ATTACKER)])

    await publish(broker_login(stack, ATTACKER), exchange_of(ATTACKER), BOUND, signed(None, body))

    await assert_parked_as_forged(stack, body, by=None, detail="login None published as identity")


async def test_a_service_answers_for_its_own_steps_alone(stack: Stack, system: System) -> None:
    """A fact that it may say, of a workflow that exists, but of a step that is another's."""
    async with withheld(system, provisioning.ProvisionEnvironment) as answers:
        workflow = await system.onboard("Waits for its environment")
        await eventually(lambda: len(answers) == 1)

    fact = identity.AdministratorsCreated(tenant_id=workflow["tenantId"], user_ids=())
    body = forged(fact, source=ATTACKER, step="provision-environment", workflow_id=workflow["id"])
    await publish(broker_login(stack, ATTACKER), exchange_of(ATTACKER), BOUND, signed(ATTACKER, join_batch([body])))
    await system.services["provisioning"].kernel.relay.send(answers)

    assert (await system.finished(workflow))["status"] == "completed"
    told = [entry["kind"] for entry in await system.history(workflow) if entry["step"] == "provision-environment"]
    assert told == ["asked", "succeeded"]  # and no late success: the forged answer would have been the first


LAUNDERING: dict[str, str | int] = {"x-dead-letter-routing-key": REGISTERED.routing_key(), "x-message-ttl": 1}


@pytest.mark.parametrize(
    "exchange", ["", STATUS_EXCHANGE, *map(exchange_of, SERVICES), *map(retry_exchange_of, SERVICES)]
)
async def test_no_login_makes_a_queue_that_dead_letters_into_anothers_exchange(stack: Stack, exchange: str) -> None:
    """The second forgery: the broker republishes what expires, and asks no topic permission for it."""
    urls = [stack.watcher_url, *(broker_login(stack, service) for service in SERVICES)]
    for url in urls:
        async with channel_of(url) as channel:
            with pytest.raises(ChannelAccessRefused):
                await channel.declare_queue("sub.laundry", arguments={**LAUNDERING, "x-dead-letter-exchange": exchange})


async def test_a_subscriber_outside_gets_nothing_around_the_status_exchange(stack: Stack) -> None:
    async with channel_of(stack.watcher_url) as channel:
        with pytest.raises(ChannelAccessRefused):
            await channel.declare_exchange("sub.laundry", arguments={"alternate-exchange": exchange_of("tenant")})
    async with channel_of(stack.watcher_url) as channel:
        own = await channel.declare_exchange("sub.laundry", auto_delete=True)
        target = await channel.get_exchange(exchange_of("tenant"), ensure=False)
        with pytest.raises(ChannelAccessRefused):
            await target.bind(own, "#", timeout=10)


@pytest_asyncio.fixture(loop_scope="session")
async def careless(stack: Stack) -> AsyncIterator[str]:
    """The attacker's login on a broker where somebody has forgotten to restrict it."""
    assert stack.broker is not None
    (kept,) = json.loads(await stack.broker.control("--formatter", "json", "list_user_permissions", ATTACKER))
    await stack.broker.control("set_permissions", ATTACKER, ".*", ".*", ".*")
    yield broker_login(stack, ATTACKER)
    await stack.broker.control("set_permissions", ATTACKER, kept["configure"], kept["write"], kept["read"])


async def test_even_a_login_without_limits_is_found_out_by_its_signature(
    stack: Stack, unchanged: None, careless: str
) -> None:
    body = join_batch([forged(REGISTERED, source="tenant")])
    message = signed(ATTACKER, body)
    detail = "login identity published as tenant"

    await publish(careless, exchange_of("tenant"), REGISTERED.routing_key(), message)
    await assert_parked_as_forged(stack, body, by=ATTACKER, detail=detail)

    async with channel_of(careless) as channel:
        await channel.declare_queue(
            "laundry", arguments={**LAUNDERING, "x-dead-letter-exchange": exchange_of("tenant")}
        )
        await channel.default_exchange.publish(message, "laundry", timeout=10)
        await assert_parked_as_forged(stack, body, by=ATTACKER, detail=detail)
        await channel.queue_delete("laundry")

    async with channel_of(careless) as channel:
        await channel.default_exchange.publish(message, work_queue_of("onboarding"), timeout=10)
        await assert_parked_as_forged(stack, body, by=ATTACKER, detail="login identity published as onboarding")
