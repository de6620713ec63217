"""The restore drill: a backup amid a load, everything destroyed, and all of it again from the backup alone."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest

from deploy.backup import steps
from deploy.backup.record import Record, checked
from deploy.local.accounts import reachable_folder, unprivileged_account
from deploy.local.stack import Stack, running_stack
from deploy.parking import open_parking
from deploy.tests.backup import places, vacant
from shared.messaging.event import Event, Outgoing
from shared.messaging.topology import exchange_of
from shared.postgres import Connection
from shared.service import Service
from shared.testing import eventually
from tests.chaos.load import Load
from tests.conftest import require_broker
from tests.intruder import broker_login, signed
from tests.system import System, running_system
from tests.test_forgeries import publish

pytestmark = [pytest.mark.asyncio, pytest.mark.broker, pytest.mark.timeout(300)]

_AT_A_TIME = 40
_SLOW_SECONDS = 1.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach, which is gone afterwards."""
    made = Path(tempfile.mkdtemp(prefix="tenure-backup-"))
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def installed(data: Path) -> AsyncIterator[tuple[Stack, System]]:
    """Run everything on a data folder."""
    async with running_stack(data, say=lambda _: None, durable=False) as stack:
        told = stack.environment
        async with running_system(told, audited=stack.audited, admin_key=stack.admin_key) as system:
            yield stack, system


async def park_something(stack: Stack) -> Sequence[str]:
    """Let billing park what it cannot read, and return what is parked."""
    login = broker_login(stack, "onboarding")
    await publish(login, exchange_of("onboarding"), "billing.open_account.v1", signed("onboarding", b"[{}]"))
    found: list[Sequence[str]] = []

    async def is_parked() -> bool:
        found.append(await parked(stack))
        return bool(found[-1])

    await eventually(is_parked, describe="billing has parked it")
    return found[-1]


async def parked(stack: Stack) -> Sequence[str]:
    async with open_parking("billing", broker_login(stack, "billing")) as parking:
        return [
            f"{each.id} {each.reason} {each.parked_at} {each.origin} {each.login} {each.message.body!r}"
            async for each in parking.messages()
        ]


@contextmanager
def slow(service: Service) -> Iterator[None]:
    """Let a service take its time, so that there is something in its queue at any moment."""
    dispatch = service.kernel.dispatch
    handle = dispatch.handle

    async def handle_slowly(connection: Connection, events: Sequence[Event]) -> list[Outgoing]:
        await asyncio.sleep(_SLOW_SECONDS)
        return await handle(connection, events)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "handle", handle_slowly)
        yield


async def saved_amid_load(stack: Stack, system: System, data: Path, backup: Path) -> tuple[Record, list[Load]]:
    """Back up while customers order, and return their orders."""
    assert stack.postgres is not None
    assert stack.broker is not None
    loads = [Load(system.client, _AT_A_TIME, 0)]
    where = places(data, stack.postgres, stack.broker)
    await loads[0].place_all()
    saving = asyncio.create_task(asyncio.to_thread(steps.save, backup, where, say))
    while not saving.done():
        loads.append(Load(system.client, _AT_A_TIME, 0))
        await loads[-1].place_all()
        await asyncio.sleep(1)
    record = await saving
    say(f"held for {record.held_seconds:.1f} s")
    return record, loads


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


async def counted(stack_url: str, query: str) -> int:
    connection = await asyncpg.connect(stack_url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def test_all_that_was_destroyed_is_there_again_and_goes_on(folder: Path) -> None:
    require_broker()
    before, after, backup = folder / "before", folder / "after", folder / "backup"
    backup.mkdir()
    before.mkdir()
    async with installed(before) as (stack, system):
        was_parked = await park_something(stack)
        with slow(system.services["billing"]), slow(system.services["metrics"]):
            record, loads = await saved_amid_load(stack, system, before, backup)
        record.write(backup)
    (after / "postgres").mkdir(parents=True)
    shutil.copy(before / "secrets.json", after / "secrets.json")
    password = reachable_folder(before / "postgres", unprivileged_account()) / "admin-password"
    where = vacant(after)
    shutil.copy(password, reachable_folder(after / "postgres", unprivileged_account()) / "admin-password")
    shutil.rmtree(before)

    steps.restore(backup, checked(backup), where, say)

    async with running_stack(after, say=lambda _: None, durable=False) as stack:
        onboarding = stack.databases["onboarding"].owner
        under_way = await counted(onboarding, "SELECT count(*) FROM workflow WHERE finished_at IS NULL")
        unsent = await counted(onboarding, "SELECT count(*) FROM outbox")
        assert under_way > 0
        assert stack.postgres is not None
        assert stack.broker is not None
        said = await asyncio.to_thread(steps.park_again, backup, places(after, stack.postgres, stack.broker))
        assert said == "1 messages parked again"
        assert await parked(stack) == was_parked
        async with running_system(stack.environment, audited=stack.audited, admin_key=stack.admin_key) as system:
            outcomes = await ended(system, loads)
            audit = await system.audit()
    say(f"{under_way} under way, {unsent} messages not sent; then {outcomes}")
    assert audit.findings == ()


async def ended(system: System, loads: Sequence[Load]) -> dict[str, int]:
    """Wait for the end of every workflow that is known; whatever was accepted before the backup began is."""
    outcomes: dict[str, int] = {}
    for number, order in enumerate(each for load in loads for each in load.orders):
        answer = await system.client.get(f"/v1/workflows/{order.workflow_id}")
        if answer.status_code == 404:
            assert number >= _AT_A_TIME
            outcomes["accepted later"] = outcomes.get("accepted later", 0) + 1
            continue
        status = (await system.finished(answer.json()))["status"]
        assert status == ("compensated" if order.doomed else "completed")
        outcomes[status] = outcomes.get(status, 0) + 1
    return outcomes
