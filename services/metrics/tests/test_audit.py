"""The audit trail: each decision is appended once, and nobody changes it unseen."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from deploy.databases import DatabaseUrls, database_url
from deploy.local.throwaway import FreshDatabases, Server
from services.metrics import audit, queries
from services.metrics.audit import BEGINNING, content_of
from services.metrics.handlers import SUBSCRIPTIONS
from shared.access import ADMINISTRATOR, Principal, Role
from shared.audit import decision
from shared.clock import ManualClock
from shared.contracts import CATALOGUE, identity, onboarding, tenant
from shared.contracts.base import INSTALLATION, Decision
from shared.ids import TimeOrderedIds
from shared.messaging.dispatch import Dispatch
from shared.messaging.event import Event
from shared.messaging.subscriptions import bind
from shared.postgres import Connection, Pool, open_pool, transaction
from shared.testing import eventually

ANNA = Principal(id="user:anna", role=Role.TENANT_ADMIN, tenant_id="t1")
IDS = TimeOrderedIds()

_FACTS: dict[str, type[Decision]] = {"tenant": tenant.DecisionRecorded, "onboard": onboarding.DecisionRecorded}


def made(tenant_id: str = "t1", action: str = "api_key.issued", **more: Any) -> Decision:
    """Make a decision; the fact depends on the action, as it does in life."""
    told = decision(
        _FACTS.get(action.partition(".")[0], identity.DecisionRecorded),
        ANNA,
        tenant_id=tenant_id,
        action=action,
        subject="thing:1",
        clock=ManualClock(),
        ids=IDS,
    )
    return told.model_copy(update=more)


_SWAP = """
    UPDATE audit_entry SET seq = -seq WHERE seq IN (2, 3);
    UPDATE audit_entry SET seq = 5 + seq WHERE seq < 0
"""


async def hear(pool: Pool, *decisions: Decision) -> None:
    """Let the service hear decisions in one batch, as the kernel does."""
    clock = ManualClock(datetime(2026, 1, 2, tzinfo=UTC))
    dispatch = Dispatch(service="metrics", subscriptions=bind(SUBSCRIPTIONS, clock=clock), clock=clock, ids=IDS)
    async with transaction(pool) as connection:
        said = await dispatch.handle(
            connection, [Event(IDS.new(), each.owner, each.decided_at, each) for each in decisions]
        )
    assert not said


async def trail(pool: Pool, tenant_id: str = "t1") -> Sequence[asyncpg.Record]:
    return await pool.fetch("SELECT * FROM audit_entry WHERE tenant_id = $1 ORDER BY seq", tenant_id)


async def broken_at(pool: Pool, tenant_id: str = "t1") -> int | None:
    return (await audit.verify(pool, tenant_id)).broken_at


@pytest.fixture
async def urls(fresh_database: FreshDatabases) -> DatabaseUrls:
    return await fresh_database.urls("metrics")


@pytest.fixture
async def pool(urls: DatabaseUrls) -> AsyncIterator[Pool]:
    pool = await open_pool(urls.app)
    yield pool
    await pool.close()


@pytest.fixture
async def owner(urls: DatabaseUrls) -> AsyncIterator[Connection]:
    """Whoever owns the tables."""
    connection: Connection = await asyncpg.connect(urls.owner)
    yield connection
    await connection.close()


@pytest.fixture
async def intruder(urls: DatabaseUrls, postgres_server: Server) -> AsyncIterator[Connection]:
    """Somebody who can do everything to the database, and makes triggers look away."""
    name = urlsplit(urls.app).path.removeprefix("/")
    connection: Connection = await asyncpg.connect(database_url(postgres_server.admin_url, name))
    await connection.execute("SET session_replication_role = replica")
    yield connection
    await connection.close()


def test_the_decisions_of_every_service_are_heard() -> None:
    decisions = {message for message in CATALOGUE.values() if issubclass(message, Decision)}

    assert decisions
    assert decisions <= SUBSCRIPTIONS.keys()


async def test_a_decision_is_kept_as_it_was_told(pool: Pool) -> None:
    told = made(role="TenantAdmin", reason="Ada left.", before={"role": "TenantUser"}, after={"scopes": ["read", None]})
    await hear(pool, told)

    (entry,) = await trail(pool)
    assert dict(entry) == {
        **told.model_dump(),
        "service": "identity",
        "seq": 1,
        "recorded_at": datetime(2026, 1, 2, tzinfo=UTC),
        "previous_hash": BEGINNING,
        "hash": entry["hash"],
        "written_in": entry["written_in"],  # for the lake
    }


async def test_anybody_can_work_out_the_hashes_again(pool: Pool) -> None:
    await hear(pool, made(after={"name": "Zoë", "n": 1, "isGood": True}), made(action="tenant.details_changed"))

    previous = bytes(32)
    for entry in await trail(pool):
        content = {**content_of(entry), "previousHash": previous.hex()}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert entry["hash"] == hashlib.sha256(text.encode()).digest()
        previous = entry["hash"]


async def test_each_tenant_has_a_chain_of_its_own_in_the_order_of_arrival(pool: Pool) -> None:
    actions = ["api_key.issued", "onboard.ordered", "tenant.details_changed", "api_key.revoked"]
    await hear(pool, *(made(action=each) for each in actions[:3]), made(INSTALLATION), made(action=actions[3]))
    await hear(pool, made(action="api_key.rotated"), made("t2"))

    assert [(each["seq"], each["action"]) for each in await trail(pool)] == list(
        enumerate([*actions, "api_key.rotated"], start=1)
    )
    assert [each["seq"] for each in await trail(pool, "t2")] == [1]
    assert [each["seq"] for each in await trail(pool, INSTALLATION)] == [1]


async def test_a_decision_that_is_told_again_is_kept_once(pool: Pool) -> None:
    first, second = made(), made(action="api_key.revoked")
    await hear(pool, first, first)
    await hear(pool, first, second, first)

    assert [each["action"] for each in await trail(pool)] == ["api_key.issued", "api_key.revoked"]
    assert await broken_at(pool) is None


async def test_replicas_that_append_to_the_same_chains_wait_for_each_other_and_never_in_a_circle(pool: Pool) -> None:
    tenants = [f"t{number}" for number in range(8)]
    orders = [tenants, tenants[::-1]] * 4
    await asyncio.gather(*(hear(pool, *(made(each) for each in order)) for order in orders))

    for each in tenants:
        found = await audit.verify(pool, each)
        assert (found.checked, found.broken_at) == (8, None)


async def test_whoever_appends_waits_for_whoever_does_so_already(pool: Pool) -> None:
    async with transaction(pool) as connection:
        await audit.append(connection, [made()], now=datetime.now(UTC))
        late = asyncio.create_task(hear(pool, made(action="api_key.revoked")))
        await eventually(lambda: _has_waiting(pool), describe="the second to wait")
    await late

    assert [each["seq"] for each in await trail(pool)] == [1, 2]
    assert await broken_at(pool) is None


async def _has_waiting(pool: Pool) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await pool.fetchval(waiting))


async def test_the_trail_outlives_its_tenant(pool: Pool) -> None:
    await hear(pool, made())

    assert await pool.fetchval("SELECT count(*) FROM live_record") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET actor = 'nobody'",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry",
        "DELETE FROM audit_chain",
        "TRUNCATE audit_chain",
        "UPDATE audit_chain SET seq = seq - 1",
        "UPDATE audit_chain SET hash = sha256('x')",
        "UPDATE audit_chain SET tenant_id = 't2'",
    ],
)
async def test_neither_the_service_nor_the_owner_of_the_tables_rewrites_anything(
    pool: Pool, owner: Connection, statement: str
) -> None:
    await hear(pool, made())

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="only appended to"):
        await owner.execute(statement)
    assert len(await trail(pool)) == 1


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit_entry SET actor = 'user:bela' WHERE seq = 3", 3),
        ("UPDATE audit_entry SET before = '{}' WHERE seq = 2", 2),
        ("UPDATE audit_entry SET after = NULL WHERE seq = 2", 2),
        ("UPDATE audit_entry SET decided_at = decided_at + interval '1 microsecond' WHERE seq = 4", 4),
        ("UPDATE audit_entry SET recorded_at = recorded_at - interval '1 d' WHERE seq = 4", 4),
        ("UPDATE audit_entry SET service = 'tenant' WHERE seq = 1", 1),
        ("UPDATE audit_entry SET decision_id = gen_random_uuid() WHERE seq = 5", 5),
        ("DELETE FROM audit_entry WHERE seq = 1", 1),
        ("DELETE FROM audit_entry WHERE seq = 3", 3),
        ("DELETE FROM audit_entry WHERE seq = 5", 5),
        ("DELETE FROM audit_entry", 1),
        (_SWAP, 2),
        ("DELETE FROM audit_chain", 1),
        ("UPDATE audit_chain SET seq = 4", 5),
        ("UPDATE audit_chain SET hash = sha256('x')", 5),
        ("UPDATE audit_entry SET tenant_id = 't1', seq = 6 WHERE tenant_id = 't2'", 6),
    ],
)  # fmt: skip
async def test_what_a_superuser_changes_is_found(pool: Pool, intruder: Connection, statement: str, seq: int) -> None:
    await hear(pool, *(made(before={"n": number}, after={"n": number + 1}) for number in range(5)), made("t2"))
    assert await broken_at(pool) is None

    await intruder.execute("ALTER TABLE audit_entry DROP CONSTRAINT audit_entry_seq_check")
    await intruder.execute(statement)

    assert await broken_at(pool) == seq


async def test_an_entry_that_is_sealed_anew_does_not_fit_to_the_next_one(pool: Pool, intruder: Connection) -> None:
    await hear(pool, made(), made(), made())
    forged = {**(await trail(pool))[1], "actor": "user:bela"}
    await intruder.execute("UPDATE audit_entry SET actor = 'user:bela', hash = $1 WHERE seq = 2", audit.hash_of(forged))

    assert await broken_at(pool) == 3


async def test_a_long_chain_is_looked_at_in_steps_and_in_parts(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_CHUNK", 3)
    await hear(pool, *(made() for _ in range(11)))

    first = await audit.verify(pool, "t1", most=5)
    second = await audit.verify(pool, "t1", from_seq=6, most=5)
    third = await audit.verify(pool, "t1", from_seq=11, most=5)

    assert [(each.checked, each.broken_at, each.next_seq) for each in (first, second, third)] == [
        (5, None, 6),
        (5, None, 11),
        (1, None, None),
    ]
    assert first.end == second.end == third.end
    assert first.end.seq == 11


async def test_a_part_that_does_not_fit_to_the_one_before_is_found(pool: Pool, intruder: Connection) -> None:
    await hear(pool, *(made() for _ in range(4)))
    await intruder.execute("UPDATE audit_entry SET hash = sha256('x') WHERE seq = 2")

    assert (await audit.verify(pool, "t1", from_seq=3)).broken_at == 3


async def test_what_is_appended_while_a_chain_is_looked_at_does_not_break_it(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hear(pool, made(), made())
    read = queries.audit.entries_from

    async def slowly(*arguments: Any, **more: Any) -> Any:
        await hear(pool, made())
        return await read(*arguments, **more)

    monkeypatch.setattr(queries.audit, "entries_from", slowly)
    found = await audit.verify(pool, "t1")

    assert (found.checked, found.broken_at, found.end.seq) == (2, None, 2)


def test_numbers_that_could_be_written_in_two_ways_are_refused() -> None:
    for details in ({"n": 1.5}, {"n": [{"m": 2**53}]}):
        with pytest.raises(ValueError, match="must be whole"):
            decision(
                identity.DecisionRecorded, ADMINISTRATOR, tenant_id=INSTALLATION, action="a.b", subject="c:d",
                after=details, clock=ManualClock(), ids=IDS,
            )  # fmt: skip


async def test_a_time_is_sealed_with_all_its_digits(pool: Pool) -> None:
    odd = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC) + timedelta(hours=1)
    await hear(pool, made(decided_at=odd), made(decision_id=UUID(int=7)))

    assert await broken_at(pool) is None
    assert content_of((await trail(pool))[0])["decidedAt"] == "2026-03-01T13:00:00.000001Z"
