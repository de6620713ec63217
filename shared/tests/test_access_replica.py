"""What a service knows of identity, in whatever order and however often it is told."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import asyncpg
import pytest

from shared.access import replica
from shared.contracts.base import INSTALLATION, Fact
from shared.contracts.identity import (
    ApiKeyChanged,
    ApiKeySecret,
    SessionsRevoked,
    SigningKeyPublished,
    TenantAccessChanged,
)
from shared.messaging.subscriptions import bind
from shared.postgres import Pool, transaction
from shared.testing.one_service import OneService
from shared.testing.three_services import told

SOON = datetime(2026, 1, 2, tzinfo=UTC)
LATER = datetime(2026, 1, 3, tzinfo=UTC)
TABLES = ("access_signing_key", "access_tenant", "access_revoked_session", "access_api_key")


@pytest.fixture
def service(service: OneService) -> OneService:
    """A service that hears nothing but what identity tells."""
    service.dispatch = type(service.dispatch)(
        service="billing", subscriptions=bind(replica.SUBSCRIPTIONS), clock=service.clock, ids=service.ids
    )
    return service


async def tell(service: OneService, *facts: Fact) -> None:
    """Let the service hear a batch of facts, to which it has nothing to say."""
    async with transaction(service.pool) as connection:
        assert not await service.dispatch.handle(connection, [told(fact) for fact in facts])


async def known(pool: Pool) -> dict[str, list[tuple[Any, ...]]]:
    return {table: [tuple(row) for row in await pool.fetch(f"SELECT * FROM {table} ORDER BY 1")] for table in TABLES}


async def forget_all(pool: Pool) -> None:
    for table in TABLES:
        await pool.execute(f"DELETE FROM {table}")


def signing_key(key_id: str = "k1", *, x: str = "x", expires_at: datetime = SOON) -> SigningKeyPublished:
    return SigningKeyPublished(key_id=key_id, public_key={"kty": "EC", "x": x}, expires_at=expires_at)


def access(
    epoch: int, tenant_id: str = "t1", *, is_blocked: bool = False, forget_at: datetime | None = None
) -> TenantAccessChanged:
    return TenantAccessChanged(tenant_id=tenant_id, epoch=epoch, is_blocked=is_blocked, forget_at=forget_at)


def api_key(
    revision: int, tenant_id: str = "t1", *, key_id: str = "a", digest: str = "00", forget_at: datetime | None = None
) -> ApiKeyChanged:
    return ApiKeyChanged(
        tenant_id=tenant_id,
        key_id=key_id,
        revision=revision,
        role="TenantAdmin",
        scopes=("read",),
        secrets=() if forget_at else (ApiKeySecret(digest=digest),),
        forget_at=forget_at,
    )


HISTORIES: dict[str, Sequence[Fact]] = {
    "of a tenant that is blocked and opened": [access(1, is_blocked=True), access(2), access(3)],
    "of an API key": [api_key(1), api_key(2, digest="01"), api_key(3, forget_at=LATER)],
    "of a tenant that goes, and of its key": [
        access(1, is_blocked=True),
        access(2, is_blocked=True, forget_at=LATER),
        api_key(1),
        api_key(2, digest="01"),
    ],
    "of a tenant that goes, and of a key that went before": [
        access(1, is_blocked=True, forget_at=LATER),
        api_key(1),
        api_key(2, forget_at=LATER),
    ],
    "of sessions": [
        SessionsRevoked(session_ids=("s1", "s2"), forget_at=SOON),
        SessionsRevoked(session_ids=("s2", "s3"), forget_at=SOON),
    ],
    "of signing keys": [signing_key(), signing_key(expires_at=LATER), signing_key("k2")],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
async def test_the_order_of_what_is_told_does_not_matter(service: OneService, history: Sequence[Fact]) -> None:
    """Nor does it whether it comes in one batch or in many, once or twice."""
    await tell(service, *history)
    in_order = await known(service.pool)

    for facts in permutations(history):
        for batches in (
            [[fact] for fact in facts],
            [facts],
            [facts[:2], facts[2:]],
            [[*facts, *facts]],
            [facts, facts],
        ):
            await forget_all(service.pool)
            for batch in batches:
                await tell(service, *batch)
            assert await known(service.pool) == in_order, facts


async def test_the_last_word_on_a_tenants_access_counts(service: OneService) -> None:
    await tell(service, access(2, is_blocked=True), access(1), access(7, "t2"))

    async with service.pool.acquire() as connection:
        t1, t2, t3 = [await standing(connection, tenant_id) for tenant_id in ("t1", "t2", "t3")]

    assert (t1["epoch"], t1["is_blocked"]) == (2, True)
    assert (t2["epoch"], t2["is_blocked"]) == (7, False)
    assert (t3["epoch"], t3["is_blocked"]) == (0, False)


async def standing(connection: Any, tenant_id: str | None, session_id: str = "s0") -> asyncpg.Record:
    return await replica.standing(connection, session_id=session_id, tenant_id=tenant_id, key_id=None)


async def test_a_public_key_is_never_replaced_by_another_of_its_name(service: OneService) -> None:
    await tell(service, signing_key(x="first"))
    await tell(service, signing_key(x="second", expires_at=LATER))

    assert (await known(service.pool))["access_signing_key"] == [("k1", {"kty": "EC", "x": "first"}, LATER)]


async def test_a_key_that_was_revoked_is_known_no_more_whatever_is_told_late(service: OneService) -> None:
    await tell(service, api_key(2, forget_at=LATER), api_key(1, key_id="b"))
    await tell(service, api_key(1))

    async with service.pool.acquire() as connection:
        assert await replica.api_key(connection, "a") is None
        found = await replica.api_key(connection, "b")

    assert found is not None
    assert (found["tenant_id"], found["role"], found["scopes"]) == ("t1", "TenantAdmin", ["read"])


async def test_a_tenant_that_is_purged_takes_its_keys_with_it_and_no_others(service: OneService) -> None:
    await tell(
        service,
        api_key(1),
        api_key(1, key_id="b"),
        api_key(1, "t2", key_id="c"),
        api_key(1, INSTALLATION, key_id="d"),
    )
    await tell(service, access(1, is_blocked=True, forget_at=LATER))
    await tell(service, api_key(2), api_key(1, key_id="e"))

    async with service.pool.acquire() as connection:
        left = {key_id for key_id in "abcde" if await replica.api_key(connection, key_id) is not None}

    assert left == {"c", "d"}
    assert {row[0]: row[5] for row in (await known(service.pool))["access_api_key"]} == {
        "a": [],
        "b": [],
        "c": [{"digest": "00", "expiresAt": None}],
        "d": [{"digest": "00", "expiresAt": None}],
        "e": [],
    }


async def test_a_key_of_the_installation_is_of_no_tenant(service: OneService) -> None:
    await tell(service, api_key(1, INSTALLATION))

    async with service.pool.acquire() as connection:
        found = await replica.api_key(connection, "a")

    assert found is not None
    assert found["tenant_id"] is None


async def test_a_block_of_a_tenant_is_seen_at_its_keys(service: OneService) -> None:
    await tell(service, api_key(1), api_key(1, "t2", key_id="b"), access(1, is_blocked=True))

    async with service.pool.acquire() as connection:
        found = [await replica.api_key(connection, key_id) for key_id in "ab"]

    assert [row and row["is_blocked"] for row in found] == [True, False]


async def test_a_session_that_is_revoked_is_told_from_others(service: OneService) -> None:
    await tell(service, SessionsRevoked(session_ids=("s1", "s2"), forget_at=SOON))

    async with service.pool.acquire() as connection:
        revoked = [(await standing(connection, None, each))["is_revoked"] for each in ("s1", "s2", "s3")]

    assert revoked == [True, True, False]


async def test_nothing_is_forgotten_before_its_time(service: OneService) -> None:
    await tell(service, signing_key(), signing_key("k2", expires_at=LATER))
    await tell(service, access(1), access(1, "t2", forget_at=SOON), access(1, "t3", forget_at=LATER))
    await tell(service, SessionsRevoked(session_ids=("s1",), forget_at=SOON))
    await tell(service, SessionsRevoked(session_ids=("s2",), forget_at=LATER))
    await tell(service, api_key(1), api_key(1, key_id="b", forget_at=SOON), api_key(1, key_id="c", forget_at=LATER))
    counts = []

    for now in (SOON - timedelta(seconds=1), SOON, LATER):
        async with transaction(service.pool) as connection:
            await replica.forget(connection, now=now)
        counts.append({table: [row[0] for row in rows] for table, rows in (await known(service.pool)).items()})

    assert [list(count.values()) for count in counts] == [
        [["k1", "k2"], ["t1", "t2", "t3"], ["s1", "s2"], ["a", "b", "c"]],
        [["k2"], ["t1", "t3"], ["s2"], ["a", "c"]],
        [[], ["t1"], [], ["a"]],
    ]
