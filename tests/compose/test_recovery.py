"""Containers die amid a load, and the whole stack is put away and taken out again: nothing is lost, doubled or left."""

import asyncio
import sys
from collections import Counter

import httpx2
import pytest

from shared.contracts import SERVICES
from shared.testing import eventually
from tests.chaos.load import Load
from tests.compose.stack import administered, composed, containers, inspected, tool, within

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

EACH = (*SERVICES, "postgres", "rabbitmq", "origin", "gateway")
USERS = {"postgres": "postgres", "rabbitmq": "rabbitmq"}
"""Who the processes belong to where it is not the container's own user."""

ORDERS = 60
_HEALED_SECONDS = 120.0
_ENDED_SECONDS = 200.0
_DIE = """for each in /proc/[0-9]*; do
    grep -q '^PPid:[[:space:]]1$' "$each/status" && kill -9 "${each#/proc/}"
done"""


async def crash(service: str) -> None:
    """Let the process of a container die as of a bug or for want of memory: nobody has stopped the container."""
    before = inspected(service)["RestartCount"]
    await asyncio.to_thread(within, service, _DIE, user=USERS.get(service))
    await eventually(
        lambda: _is_started_again(service, before), within=_HEALED_SECONDS, describe=f"{service} is started again"
    )


async def _is_started_again(service: str, before: int) -> bool:
    return bool(inspected(service)["RestartCount"] > before)


async def kill(service: str) -> None:
    """Kill a container by the engine, which takes that for an operator's wish and leaves it so until it is told."""
    await composed("kill", "--signal", "KILL", service)
    assert inspected(service)["State"]["Running"] is False
    await composed("up", "--detach", "--wait", "--no-recreate")


async def until_healed() -> None:
    async def is_healthy() -> bool:
        found = {each["Service"]: each["Health"] for each in await asyncio.to_thread(containers)}
        return {found[service] for service in EACH} == {"healthy"}

    await eventually(is_healthy, within=_HEALED_SECONDS, describe="all are healthy")


async def begun(load: Load) -> asyncio.Task[None]:
    """Place orders, and return as soon as some are accepted: their workflows are under way, and others wait."""
    placing = asyncio.create_task(load.place_all())
    await eventually(lambda: load.waiting < load.count, describe="orders are accepted")
    assert load.waiting
    return placing


async def ended(client: httpx2.AsyncClient, load: Load) -> Counter[str]:
    """Wait until all that was accepted has ended, and return how."""
    outcomes: dict[str, str] = {}

    async def have_ended() -> bool:
        for order in load.orders:
            if order.workflow_id not in outcomes:
                try:
                    found = (await client.get(f"/v1/workflows/{order.workflow_id}", params={"wait": 5})).json()
                except httpx2.TransportError:
                    return False
                if found.get("finishedAt"):
                    outcomes[order.workflow_id] = found["status"]
        return len(outcomes) == len(load.orders)

    await eventually(have_ended, within=_ENDED_SECONDS, describe=lambda: f"{len(outcomes)} have ended")
    for order in load.orders:
        assert outcomes[order.workflow_id] == ("compensated" if order.doomed else "completed"), order
    return Counter(outcomes.values())


async def audited() -> tuple[str, str]:
    """Return how many tenants there are, and what the audit has found besides."""
    said = await asyncio.to_thread(tool, "deploy.audit")
    alive, _, rest = said.strip().rpartition("\n")[2].partition(" tenants complete, ")
    return alive, rest.rpartition(", ")[2]


@pytest.mark.parametrize("service", EACH)
async def test_a_container_dies_amid_a_load_and_nothing_is_lost(service: str) -> None:
    alive_before = int((await audited())[0])
    async with administered() as client:
        load = Load(client, ORDERS, alive_before)
        placing = await begun(load)
        struck = [f"crashed with {load.waiting} requests waiting"]
        await crash(service)
        await placing
        again = Load(client, ORDERS, alive_before)
        placing = await begun(again)
        struck.append(f"killed with {again.waiting} requests waiting")
        await kill(service)
        await placing
        await until_healed()
        outcomes = await ended(client, load) + await ended(client, again)
        await load.repeat_all()

    setbacks = dict(load.setbacks + again.setbacks) or "nothing"
    sys.stdout.write(f"{service} {', '.join(struck)}; {dict(outcomes)}; clients met {setbacks}\n")
    assert await audited() == (str(alive_before + outcomes["completed"]), "0 findings.")


async def test_the_stack_is_put_away_and_taken_out_again_with_everything_in_it() -> None:
    async with administered() as client:
        load = Load(client, ORDERS, 0)
        await load.place_all()  # some are under way when the stack goes down
    before = (await audited())[0]

    await composed("down")
    await composed("up", "--detach", "--wait")

    async with administered() as client:
        await ended(client, load)
        found = (await client.get(f"/v1/workflows/{load.orders[0].workflow_id}")).json()
    assert found["customerName"] == load.orders[0].body["customerName"]
    alive, findings = await audited()
    assert (int(alive) >= int(before), findings) == (True, "0 findings.")
