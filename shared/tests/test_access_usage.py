import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from shared.access.usage import KeyUses, UsageReport
from shared.contracts.base import KeysUsed, KeyUse
from shared.contracts.billing import ApiKeysUsed
from shared.messaging.event import decode
from shared.testing import hurry
from shared.testing.one_service import OneService

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def uses() -> KeyUses:
    return KeyUses()


@pytest.fixture
def report(service: OneService, uses: KeyUses) -> UsageReport:
    return UsageReport(
        uses,
        service="billing",
        pool=service.pool,
        dispatch=service.dispatch,
        relay=service.relay,
        clock=service.clock,
    )


async def told(service: OneService) -> list[KeysUsed]:
    """Return what is told of keys, the first first."""
    rows = await service.pool.fetch("SELECT event FROM outbox ORDER BY id")
    messages = [decode(orjson.loads(row["event"])).message for row in rows]
    return [each for each in messages if isinstance(each, KeysUsed)]


@asynccontextmanager
async def reporting(report: UsageReport) -> AsyncIterator[None]:
    running = asyncio.create_task(report.run())
    yield
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def test_the_latest_use_of_a_key_is_noted(uses: KeyUses) -> None:
    for seconds in (1, 3, 2):
        uses.note("a", START + seconds * SECOND)

    assert uses.take() == {"a": START + 3 * SECOND}
    assert uses.take() == {}


def test_no_more_keys_are_noted_than_there_is_memory_for(uses: KeyUses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.access.usage._MOST_NOTES", 2)
    for key in ("a", "b", "c"):
        uses.note(key, START)
    uses.note("a", START + SECOND)

    assert uses.take() == {"a": START + SECOND, "b": START}


async def test_what_was_used_is_told_once_as_a_fact_of_the_service(
    service: OneService, uses: KeyUses, report: UsageReport
) -> None:
    uses.note("a", START)

    await report.report()
    await report.report()

    assert await told(service) == [ApiKeysUsed(uses=(KeyUse(key_id="a", used_at=START),))]


async def test_many_uses_are_told_in_facts_of_bounded_size(
    service: OneService, uses: KeyUses, report: UsageReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.access.usage._MOST_TOLD", 2)
    for key in "abcde":
        uses.note(key, START)

    await report.report()

    facts: Sequence[KeysUsed] = await told(service)
    assert sorted("".join(use.key_id for use in fact.uses) for fact in facts) == ["ab", "cd", "e"]


async def test_the_first_use_is_told_at_once_and_later_ones_once_a_minute(
    service: OneService, uses: KeyUses, report: UsageReport
) -> None:
    async def are_told(count: int) -> bool:
        return len(await told(service)) == count

    async with reporting(report):
        uses.note("a", START)
        await hurry(service.clock, lambda: are_told(1), step=0, describe="the first use is told")
        for seconds in range(3):
            uses.note("a", START + seconds * SECOND)
        await service.clock.advance(59)
        await asyncio.sleep(0.1)
        assert await are_told(1)
        await hurry(service.clock, lambda: are_told(2), describe="the later ones are told")

    assert (await told(service))[1].uses == (KeyUse(key_id="a", used_at=START + 2 * SECOND),)


async def test_what_could_not_be_told_is_told_later_unless_something_newer_is(
    service: OneService, uses: KeyUses, report: UsageReport
) -> None:
    write, away = report.write, True

    async def fail_at_first(connection: object, taken: object) -> object:
        nonlocal away
        if away:
            away = False
            uses.note("a", START + SECOND)
            raise ConnectionResetError
        return await write(connection, taken)  # type: ignore[arg-type]

    report.write = fail_at_first  # type: ignore[assignment]
    uses.note("a", START)
    uses.note("b", START)
    async with reporting(report):
        await hurry(service.clock, lambda: _has_told(service), describe="it is told after all")

    (fact,) = await told(service)
    assert {use.key_id: use.used_at for use in fact.uses} == {"a": START + SECOND, "b": START}


async def _has_told(service: OneService) -> bool:
    return bool(await told(service))


async def test_a_bug_is_not_waited_out(uses: KeyUses, report: UsageReport) -> None:
    async def fail(*_: object) -> Sequence[KeysUsed]:
        raise ZeroDivisionError

    report.write = fail
    uses.note("a", START)

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(report.run(), 5)
