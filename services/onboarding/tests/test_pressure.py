import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from services.onboarding import pressure as module
from services.onboarding.api import Entrance
from services.onboarding.lifecycles.change_tier import CHANGE_TIER
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.pressure import LEAST, WINDOW, Pressure
from services.onboarding.tests.catalogue import REQUEST, answers, refusals
from services.onboarding.tests.support import Desk, go_on, hear, open_desk, open_replica, publish_catalog, told, waiting
from shared.clock import ManualClock, SystemClock
from shared.http import Problem
from shared.postgres import Pool
from shared.testing.eventually import eventually
from shared.testing.memory_bus import MemoryBroker

PARALLEL = ("create-administrators", "open-account", "track-tenant", "provision-environment")


def pressure_on(pool: Pool, *, most: int = 5000) -> Pressure:
    return Pressure(pool, SystemClock(), most=most, registry=CollectorRegistry())


class Counting(Pressure):
    """Counts how often it looks, and finds no database the first times."""

    def __init__(self, *args: Any, outages: int = 0, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.looks = 0
        self._outages = outages

    async def look(self) -> None:
        self.looks += 1
        if self.looks <= self._outages:
            raise ConnectionRefusedError("no database")
        await super().look()


def room(pressure: Pressure) -> int:
    """Return for how many more there is room, which they then take."""
    taken = 0
    while enters(pressure):
        taken += 1
    return taken


def enters(pressure: Pressure) -> bool:
    """Return whether one more could be accepted, which it then is."""
    with pressure.entering() as is_room:
        return is_room


async def test_there_is_room_for_some_however_little_has_ended(pool: Pool) -> None:
    pressure = pressure_on(pool)

    await pressure.look()

    assert room(pressure) == LEAST


async def test_the_bound_is_never_passed(pool: Pool) -> None:
    pressure = pressure_on(pool, most=7)

    await pressure.look()

    assert room(pressure) == 7


async def test_what_waits_for_an_answer_takes_room_wherever_it_was_accepted(desk: Desk, pool: Pool) -> None:
    for number in range(3):
        await desk.submit(f"Customer {number}")
    pressure = pressure_on(pool, most=7)

    await pressure.look()

    assert room(pressure) == 4


async def test_what_is_being_undone_takes_room(desk: Desk, pool: Pool) -> None:
    accepted = await desk.submit()
    workflow_id = UUID(accepted.workflow["id"])
    await desk.go_on(workflow_id, until=PARALLEL)
    refusal = refusals(accepted.workflow["tenantId"], code="no_room")["open-account"]
    await hear(pool, told(workflow_id, "open-account", refusal))
    assert await waiting(pool, workflow_id, "undoing")
    pressure = pressure_on(pool, most=7)

    await pressure.look()

    assert room(pressure) == 6


async def test_what_has_ended_makes_room(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start()
    pressure = pressure_on(pool, most=7)
    await pressure.look()
    assert room(pressure) == 6

    await desk.go_on(workflow_id)
    await pressure.look()

    assert room(pressure) == 7


async def test_a_workflow_that_lets_weeks_pass_takes_no_room(desk: Desk, pool: Pool) -> None:
    tenant_id = await desk.tenant()
    workflow_id = await desk.begin(OFFBOARD, tenant_id, graceDays=30, export=False)
    asked = await waiting(pool, workflow_id, "running")
    await hear(
        pool,
        told(
            workflow_id, "begin-offboarding", answers(tenant_id)["begin-offboarding"], ask_id=asked["begin-offboarding"]
        ),
    )
    assert await pool.fetchval("SELECT count(*) FROM step WHERE due = 'wait'") == 1
    pressure = pressure_on(pool, most=7)

    await pressure.look()

    assert room(pressure) == 7


async def test_there_is_room_for_as_many_as_have_ended_lately(
    desk: Desk, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST", 1)
    for number in range(3):
        await desk.tenant(f"Customer {number}")
    clock = ManualClock(await pool.fetchval("SELECT max(finished_at) FROM workflow"))
    pressure = Pressure(pool, clock, most=5000, registry=CollectorRegistry())

    await pressure.look()
    assert room(pressure) == 3

    await clock.advance((WINDOW + timedelta(seconds=1)).total_seconds())
    await pressure.look()
    assert room(pressure) == 1


async def test_what_is_about_to_be_accepted_takes_room_until_it_is_refused(pool: Pool) -> None:
    pressure = pressure_on(pool, most=3)

    with pressure.entering() as first, pressure.entering() as second:
        await pressure.look()
        assert first
        assert second
        assert not pressure.is_full()
        assert enters(pressure)
        assert pressure.is_full()
        await pressure.look()
        assert not pressure.is_full()
    with suppress(Problem), pressure.entering():
        raise Problem(409, code="taken", detail="Taken.")
    await pressure.look()

    assert room(pressure) == 3


async def test_when_there_is_no_room_only_the_urgent_is_accepted(database_url: str, broker: MemoryBroker) -> None:
    async with open_desk(database_url, broker, under_way=4) as desk:
        tenants = [await desk.tenant(f"Customer {number}") for number in range(3)]
        await desk.pressure.look()
        for number in range(4):
            await desk.submit(f"Newcomer {number}")

        for refused in (desk.submit("Late"), desk.begin(CHANGE_TIER, tenants[0], tier="premium")):
            with pytest.raises(Problem) as caught:
                await refused
            assert (caught.value.status, caught.value.code, caught.value.retryable) == (503, "overloaded", True)
            assert 1 <= int(caught.value.headers["Retry-After"]) <= 5
        assert await desk.begin(SUSPEND, tenants[1])
        with pytest.raises(Problem):  # the reserve has an end too
            await desk.begin(SUSPEND, tenants[2])


async def test_an_idle_service_asks_nothing_and_a_busy_one_looks(desk: Desk) -> None:
    pressure = Counting(desk.pool, SystemClock(), most=5000, registry=CollectorRegistry())
    running = asyncio.create_task(pressure.run())
    await asyncio.sleep(0.6)
    assert pressure.looks == 0

    workflow_id = await desk.start()
    assert enters(pressure)
    await eventually(lambda: pressure.looks > 1)
    await desk.go_on(workflow_id)
    await asyncio.sleep(0.6)
    seen = pressure.looks
    await asyncio.sleep(0.6)
    assert pressure.looks == seen
    running.cancel()


async def test_an_outage_of_the_database_is_waited_out(desk: Desk) -> None:
    pressure = Counting(desk.pool, SystemClock(), most=5000, registry=CollectorRegistry(), outages=2)
    await desk.start()
    running = asyncio.create_task(pressure.run())
    assert enters(pressure)

    await eventually(lambda: pressure.looks > 2)
    assert not running.done()
    assert pressure.taken == 1
    running.cancel()


async def test_only_orders_that_are_not_urgent_are_turned_away_unread(pool: Pool) -> None:
    pressure = pressure_on(pool, most=1)
    entrance = Entrance(pressure)
    assert enters(pressure)

    assert entrance.is_closed("POST", "/v1/onboardings")
    assert entrance.is_closed("PUT", "/v1/accounts")
    assert entrance.is_closed("POST", "/v1/tier-changes")
    assert entrance.is_closed("POST", "/v1/product-changes")
    for method, path in [
        ("POST", "/v1/suspensions"),
        ("POST", "/v1/reactivations"),
        ("POST", "/v1/offboardings"),
        ("GET", "/v1/workflows"),
        ("POST", "/v1/workflows/1/cancel"),
        ("GET", "/readyz"),
    ]:
        assert not entrance.is_closed(method, path)


async def test_no_more_are_read_than_there_is_room_for_and_each_that_is_read_has_its_place(pool: Pool) -> None:
    pressure = pressure_on(pool, most=3)
    entrance = Entrance(pressure)

    read = [path for path in ["/v1/onboardings"] * 10 if not entrance.is_closed("POST", path)]

    assert len(read) == 3
    assert [enters(pressure) for _ in range(4)] == [True, True, True, False]


async def test_the_urgent_takes_nobodys_place(pool: Pool) -> None:
    pressure = pressure_on(pool, most=4)
    assert [pressure.let_in() for _ in range(4)] == [True] * 4

    with pressure.entering(urgent=True) as is_room:
        assert is_room

    assert not pressure.let_in()
    assert pressure.taken == 5


async def test_the_places_of_those_who_are_refused_when_read_become_free(desk: Desk) -> None:
    entrance = Entrance(desk.pressure)
    while not entrance.is_closed("POST", "/v1/onboardings"):
        pass
    running = asyncio.create_task(desk.pressure.run())

    await eventually(lambda: not desk.pressure.is_full())
    running.cancel()


async def test_whoever_was_refused_is_accepted_once_there_is_room_and_operators_see_it(
    database_url: str, broker: MemoryBroker, pool: Pool
) -> None:
    await publish_catalog(pool)
    async with open_replica(database_url, broker, under_way=1) as replica:
        first = await order(replica.client, "Acme")
        refused = await order(replica.client, "Bolt")
        shown = (await replica.client.get("/metrics")).text

        assert (first.status_code, refused.status_code) == (202, 503)
        assert refused.json()["code"] == "overloaded"
        assert 1 <= int(refused.headers["retry-after"]) <= 5
        assert "tenure_onboarding_under_way 1.0" in shown
        assert "tenure_onboarding_room 1.0" in shown
        assert "tenure_onboarding_refused_total 1.0" in shown
        await go_on(pool, UUID(first.json()["id"]))
        await eventually(lambda: not replica.is_closed("POST", "/v1/onboardings"))
        assert (await order(replica.client, "Bolt")).status_code == 202


async def order(client: httpx2.AsyncClient, name: str) -> httpx2.Response:
    return await client.post("/v1/onboardings", json={**REQUEST, "customerName": name})
