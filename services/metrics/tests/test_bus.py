"""Usage events over a real RabbitMQ: what is taken, what comes twice, what is parked, and who may publish."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aio_pika
import httpx2
import orjson
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from deploy.local.throwaway import Broker, Server
from deploy.topology import definitions
from services.metrics import queries
from services.metrics.recording.body import BATCH, EVENT, MOST_EVENTS, NDJSON
from services.metrics.tests.bus_kit import MANIFEST, PUBLISHER, PUBLISHES_USAGE, Site, consuming
from services.metrics.tests.support import KEY, api_of, hours_of, take_usage_of, usage_event
from shared.clock import SystemClock
from shared.failpoints import armed, hits
from shared.messaging.topology import USAGE_EXCHANGE, USAGE_QUEUE, exchange_of, retry_exchange_of, work_queue_of
from shared.postgres import Pool, transaction
from shared.testing import eventually
from shared.testing.wire import Wire

pytestmark = pytest.mark.broker

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metering.md").read_text(encoding="utf-8")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def logins(broker_server: Broker, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The URLs of the service and of an application, on a broker with the topology of the service."""
    path = tmp_path_factory.mktemp("topology") / "definitions.json"
    passwords = {name: f"{name}-secret" for name in (*MANIFEST.services, PUBLISHER)}
    wanted = definitions(MANIFEST, passwords)
    wanted["permissions"] = [each for each in wanted["permissions"] if each["user"] in passwords] + [PUBLISHES_USAGE]
    path.write_text(json.dumps(wanted))
    await broker_server.import_definitions(path)
    return {name: broker_server.url(name, password) for name, password in passwords.items()}


@pytest.fixture
async def site(broker_server: Server, logins: Mapping[str, str]) -> AsyncIterator[Site]:
    async with await aio_pika.connect(broker_server.admin_url) as connection:
        site = Site(logins["metrics"], logins[PUBLISHER], await connection.channel())
        yield site
        for name in (USAGE_QUEUE, "metrics.parking", "metrics.work"):
            await (await site.admin.get_queue(name, ensure=False)).purge()


@pytest.fixture
async def usage(pool: Pool) -> Callable[[], Awaitable[Decimal]]:
    """Return how many API calls have been counted of the tenant ``t1``."""
    await take_usage_of(pool, "t1", "t2", now=datetime.now(UTC))

    async def counted() -> Decimal:
        hours = await hours_of(pool)
        return sum((quantity for (meter, _), quantity in hours.items() if meter == "api_calls"), Decimal())

    return counted


Usage = Callable[[], Awaitable[Decimal]]


async def counts(usage: Usage, expected: int) -> None:
    async def is_counted() -> bool:
        return await usage() == expected

    await eventually(is_counted, describe=f"{expected} are counted")


async def is_settled(site: Site, usage: Usage, expected: int) -> None:
    """After the consumer has ended: nothing comes back, and nothing has been refused."""
    assert await site.waiting() == 0
    assert await site.is_parked(0)
    assert await usage() == expected


async def test_one_event_an_array_and_lines_are_taken_as_over_http(site: Site, pool: Pool, usage: Usage) -> None:
    await site.send(usage_event(1))
    await site.send(usage_event(2), "application/json")
    await site.send([usage_event(3), usage_event(4)], "application/json; charset=utf-8")
    await site.send([usage_event(number) for number in range(5, 5 + MOST_EVENTS)], BATCH)
    await site.send(b"\n".join([orjson.dumps(usage_event("a")), b" ", orjson.dumps(usage_event("b")), b""]), NDJSON)
    await site.send([], BATCH)

    async with consuming(pool, site.url):
        await site.send(usage_event("later"))
        await counts(usage, 4 + MOST_EVENTS + 3)
        await eventually(lambda: _is(site.waiting, 0))

    await is_settled(site, usage, 4 + MOST_EVENTS + 3)


async def _is(question: Callable[[], Awaitable[int]], answer: int) -> bool:
    return await question() == answer


async def test_the_tenant_is_the_subject_and_there_must_be_one(site: Site, pool: Pool, usage: Usage) -> None:
    async with consuming(pool, site.url):
        await site.send([usage_event(1, tenant_id="t2"), usage_event(2, tenant_id=None)], BATCH)
        await eventually(lambda: site.is_parked(1))

    assert await hours_of(pool, "t2")
    [(_, [event])] = await site.parked()
    assert (event["id"], event["refusalcode"]) == ("2", "invalid_event")
    assert await usage() == 0


async def test_an_event_counts_once_whichever_way_it_comes(site: Site, pool: Pool, usage: Usage) -> None:
    api = api_of(pool, clock=SystemClock())
    async with (
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
        ) as client,
        consuming(pool, site.url),
    ):
        assert (await client.post("/v1/usage", json=usage_event(1))).json()["accepted"] == 1
        await site.send([usage_event(1), usage_event(2), usage_event(2)], BATCH)
        await site.send(usage_event(2))
        await counts(usage, 2)
        assert (await client.post("/v1/usage", json=usage_event(2))).json()["duplicates"] == 1
        await eventually(lambda: _is(site.waiting, 0))

    await is_settled(site, usage, 2)


async def test_what_was_committed_and_not_acknowledged_comes_again_and_counts_once(
    site: Site, pool: Pool, usage: Usage
) -> None:
    await site.send([usage_event(1), usage_event(2)], BATCH)
    with armed("usage_committed=hang"):
        async with consuming(pool, site.url):
            await counts(usage, 2)
            assert await site.waiting() == 0  # somebody has it, who dies now
        assert hits("usage_committed") == 1
    await eventually(lambda: _is(site.waiting, 1))

    async with consuming(pool, site.url):
        await site.send(usage_event(3))
        await counts(usage, 3)

    await is_settled(site, usage, 3)


@pytest.mark.parametrize("place", ["usage_inserted", "usage_committed"])
async def test_an_outage_of_the_database_is_waited_out(site: Site, pool: Pool, usage: Usage, place: str) -> None:
    with armed(f"{place}=raise"):
        async with consuming(pool, site.url):
            await site.send([usage_event(1), usage_event(2)], BATCH)
            await counts(usage, 2)
            await site.send(usage_event(3))
            await counts(usage, 3)
        assert hits(place) == 1

    await is_settled(site, usage, 3)


async def test_an_outage_of_the_broker_is_waited_out(
    site: Site, broker_server: Server, pool: Pool, usage: Usage
) -> None:
    async with Wire(broker_server.admin_url) as wire, consuming(pool, wire.through(site.url)):
        await site.send(usage_event(1))
        await counts(usage, 1)
        wire.break_off()
        await site.send(usage_event(2))
        await wire.mend()
        await counts(usage, 2)
        await eventually(lambda: _is(site.waiting, 0))

    await is_settled(site, usage, 2)


async def test_what_is_refused_is_parked_with_the_reasons_and_taken_when_there_is_room(
    site: Site, pool: Pool, usage: Usage
) -> None:
    await hold_to_seats(pool, 1)
    late = (datetime.now(UTC) - timedelta(days=36)).isoformat()
    async with consuming(pool, site.url):
        await site.send(usage_event("taken", data={"a": 1}))
        await counts(usage, 1)
        await site.send(
            [
                usage_event("taken", data={"a": 2}),
                usage_event("new", data={"exact": 0.1}),
                usage_event("late", time=late),
                usage_event("what", "dance"),
                usage_event("first", "seat", data={"user": "ada"}),
                usage_event("second", "seat", data={"user": "bob"}),
            ],
            BATCH,
            user_id=PUBLISHER,
        )
        await eventually(lambda: site.is_parked(1))
        [(parked, events)] = await site.parked()

        assert (parked.reason, parked.login, parked.origin) == ("refused", PUBLISHER, USAGE_EXCHANGE)
        assert parked.detail.startswith("4 of 6 not taken: conflict (1), too_late (1), unknown_meter (1), quota_exceed")
        assert parked.detail.endswith("The first: Another event with this `source` and `id` was accepted before.")
        assert {event["id"]: event["refusalcode"] for event in events} == {
            "taken": "conflict", "late": "too_late", "what": "unknown_meter", "second": "quota_exceeded",
        }  # fmt: skip
        assert "which is 1 in" in events[3]["refusaldetail"]
        assert await usage() == 2

        await hold_to_seats(pool, 2)
        await site.replay()
        await eventually(lambda: _has_seats(pool, 2))
        await eventually(lambda: site.is_parked(1))
        [(parked, events)] = await site.parked()

    assert [event["refusalcode"] for event in events] == ["conflict", "too_late", "unknown_meter"]
    assert (parked.reason, parked.origin) == ("refused", USAGE_EXCHANGE)
    assert await site.waiting() == 0


async def hold_to_seats(pool: Pool, limit: int) -> None:
    async with transaction(pool) as connection:
        await queries.quotas.put(connection, {("t1", "seats"): limit})


async def _has_seats(pool: Pool, count: int) -> bool:
    hours = await hours_of(pool)
    return sum(quantity for (meter, _), quantity in hours.items() if meter == "seats") == count


UNREADABLE: Mapping[str, tuple[bytes, str, str]] = {
    "no JSON": (b"{", EVENT, "malformed_json"),
    "not strict": (b'{"a": NaN}', EVENT, "malformed_json"),
    "NUL": (b'{"a": "\\u0000"}', BATCH, "malformed_json"),
    "nothing": (b"", EVENT, "malformed_json"),
    "no array": (b"{}", BATCH, "validation_failed"),
    "too many": (b"[" + b",".join([b"1"] * (MOST_EVENTS + 1)) + b"]", BATCH, "too_many_events"),
    "too large": (b"[" + b" " * 1024 * 1024 + b"]", BATCH, "body_too_large"),
    "no content type": (orjson.dumps(usage_event("untyped")), "", "unsupported_media_type"),
    "packed": (b"\x1f\x8b\x08", "application/gzip", "unsupported_media_type"),
}


async def test_what_is_no_usage_at_all_is_parked_as_it_came_and_holds_up_nothing(
    site: Site, pool: Pool, usage: Usage
) -> None:
    for body, content_type, _ in UNREADABLE.values():
        await site.send(body, content_type)
    await site.send(usage_event(1))
    async with consuming(pool, site.url):
        await eventually(lambda: site.is_parked(len(UNREADABLE)))
        await counts(usage, 1)

    found = {parked.message.body: parked for parked, _ in await site.parked()}
    for body, content_type, code in UNREADABLE.values():
        assert found[body].detail.startswith(f"{code}: ")
        assert (found[body].reason, found[body].message.content_type or "") == ("undecodable", content_type)
    assert await site.waiting() == 0


async def test_lines_and_items_that_are_no_objects_are_parked_by_themselves(
    site: Site, pool: Pool, usage: Usage
) -> None:
    lines = [orjson.dumps(usage_event(1)), b"{", b"\xff", orjson.dumps(usage_event(2, "dance")), b"5"]
    async with consuming(pool, site.url):
        await site.send(b"\n".join(lines), NDJSON)
        await site.send([usage_event(3), 1.5, None, [12345678901234567890]], BATCH)
        await eventually(lambda: site.is_parked(3))

    assert await usage() == 2
    parked = {parked.message.body: (parked.reason, parked.message.content_type) for parked, _ in await site.parked()}
    assert parked.pop(b"{\n\xff\n5") == ("undecodable", NDJSON)
    assert parked.pop(b"1.5\nnull\n[12345678901234567890]") == ("undecodable", NDJSON)
    [(body, how)] = parked.items()
    assert (orjson.loads(body)[0]["refusalcode"], how) == ("unknown_meter", ("refused", BATCH))


Deed = Callable[[AbstractChannel], Awaitable[Any]]


async def _publish(channel: AbstractChannel, exchange: str, key: str = "work") -> None:
    target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
    await target.publish(aio_pika.Message(b"[]"), key, timeout=10)


async def _read(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).get(timeout=10)


async def _bind(channel: AbstractChannel) -> None:
    await (await channel.get_queue(USAGE_QUEUE, ensure=False)).bind(exchange_of("metrics"), "#", timeout=10)


@pytest.mark.parametrize(
    "deed",
    [
        lambda channel: _read(channel, USAGE_QUEUE),
        lambda channel: _read(channel, "metrics.parking"),
        lambda channel: _read(channel, work_queue_of("metrics")),
        lambda channel: _publish(channel, exchange_of("metrics")),
        lambda channel: _publish(channel, retry_exchange_of("metrics")),
        lambda channel: _publish(channel, retry_exchange_of("metrics"), "usage"),
        lambda channel: _publish(channel, "", USAGE_QUEUE),
        lambda channel: _publish(channel, "tenure.status"),
        lambda channel: channel.declare_queue("shop.own"),
        lambda channel: channel.declare_exchange("tenure.usage.own"),
        lambda channel: channel.queue_delete(USAGE_QUEUE),
        lambda channel: channel.exchange_delete(USAGE_EXCHANGE),
        _bind,
    ],
)
async def test_an_application_may_publish_usage_and_nothing_else(site: Site, deed: Deed) -> None:
    async with await aio_pika.connect(site.shop_url) as connection:
        with pytest.raises(ChannelAccessRefused):
            await deed(await connection.channel())


async def test_the_service_itself_says_nothing_there(site: Site) -> None:
    async with await aio_pika.connect(site.url) as connection:
        with pytest.raises(ChannelAccessRefused):
            await _publish(await connection.channel(), USAGE_EXCHANGE)


async def test_the_example_of_the_documentation_sends_usage_with_the_login_that_it_makes(
    site: Site, pool: Pool, usage: Usage
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    rights = [PUBLISHES_USAGE[right] for right in ("configure", "write", "read")]
    assert f"set_permissions {PUBLISHER} " + " ".join(f"'{right}'" for right in rights) in PAGE

    now = datetime.now(UTC).isoformat()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", example.replace("2026-03-15T12:00:00Z", now)),
        env={"USAGE_AMQP_URL": site.shop_url, "TENANT": "t1"},
    )
    assert await process.wait() == 0

    async with consuming(pool, site.url):
        await counts(usage, 1)
