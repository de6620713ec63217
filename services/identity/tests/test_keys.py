import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from joserfc.jwk import ECKey

from deploy.local.throwaway import FreshDatabases
from services.identity.keys import MOST_KEYS, Order, authenticate, keep_uses, note_own_uses
from services.identity.queries import keys as queries
from services.identity.tests.keyring import (
    ANNA,
    BELA,
    DAY,
    OPERATOR,
    VISITOR,
    Keyring,
    is_good,
    keep,
    known_keys,
    make_members,
    open_keyring,
    purge,
)
from shared.access import Principal, Role, api_keys, tokens
from shared.access.authenticator import InvalidCredentialError, KnownCredentials
from shared.contracts import billing, tenant
from shared.contracts.base import INSTALLATION, KeyUse
from shared.contracts.identity import SigningKeyPublished, TenantAccessChanged
from shared.http import Problem
from shared.postgres import Connection, Pool, open_pool, transaction
from shared.testing import eventually

HOUR = timedelta(hours=1)


@pytest.fixture
async def keyring(fresh_database: FreshDatabases) -> AsyncIterator[Keyring]:
    async with open_keyring(await fresh_database("identity")) as keyring:
        yield keyring


@pytest.fixture
async def elsewhere(fresh_database: FreshDatabases) -> AsyncIterator[Pool]:
    """The database of another service, which only hears of keys."""
    pool = await open_pool(await fresh_database("billing"))
    yield pool
    await pool.close()


def admin(*scopes: str, tenant_id: str | None = "t1") -> Principal:
    role = Role.TENANT_ADMIN if tenant_id else Role.SYSTEM_ADMIN
    return Principal(id="key:maker", role=role, tenant_id=tenant_id, scopes=frozenset(scopes))


async def texts_of_everything(pool: Pool) -> dict[str, str]:
    """Return every row of every table as text, by table; bytes of events are read as text too."""
    rows = await pool.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    found = {}
    for (table,) in rows:
        lines = await pool.fetch(f"SELECT * FROM {table} AS each")
        found[table] = "\n".join(
            value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            for line in lines
            for value in line
        )
    return found


# What is kept


async def test_a_key_is_of_the_form_that_scanners_know_and_names_its_row(keyring: Keyring) -> None:
    issued = await keyring.issue()

    parsed = api_keys.parse(issued.text)

    assert parsed is not None
    assert parsed.id == issued.row["key_id"]
    assert issued.text not in repr(issued)


async def test_a_mistyped_key_is_none(keyring: Keyring) -> None:
    text = (await keyring.issue()).text
    mistyped = text[:-1] + ("a" if text[-1] != "a" else "b")

    async with keyring.pool.acquire() as connection:
        assert await authenticate(connection, text, keyring.clock.now()) is not None
        assert await authenticate(connection, mistyped, keyring.clock.now()) is None


async def test_nothing_that_is_kept_or_told_is_a_usable_key(keyring: Keyring) -> None:
    first = await keyring.issue()
    texts = [
        first.text,
        (await keyring.keys.rotate(ANNA, first.row["key_id"], overlap=HOUR)).text,
        (await keyring.issue(OPERATOR, Role.SYSTEM_ADMIN)).text,
    ]

    kept = await texts_of_everything(keyring.pool)

    digest = api_keys.digest(texts[0]).hex()
    assert {table for table, text in kept.items() if digest in text} == {"api_key", "access_api_key", "outbox"}
    for text in texts:
        secret = text.rpartition("_")[2]
        assert not [table for table, content in kept.items() if secret in content or secret[:20] in content]


# Who is let in


@pytest.mark.parametrize(
    ("asker", "role", "tenant_id"),
    [
        (ANNA, Role.TENANT_ADMIN, "t1"),
        (ANNA, Role.TENANT_USER, "t1"),
        (OPERATOR, Role.SYSTEM_ADMIN, None),
        (OPERATOR, Role.CUSTOMER_SUPPORT, None),
    ],
)
async def test_a_key_speaks_for_its_role_and_tenant(
    keyring: Keyring, asker: Principal, role: Role, tenant_id: str | None
) -> None:
    issued = await keyring.keys.issue(asker, Order(name="ci", role=role, scopes=frozenset({"usage:write"})))

    principal = await keyring.credentials.of_api_key(issued.text)

    assert principal == Principal(
        id=f"key:{issued.row['key_id']}", role=role, tenant_id=tenant_id, scopes=frozenset({"usage:write"})
    )


async def test_both_secrets_are_good_for_the_overlap_and_only_the_new_one_after_it(keyring: Keyring) -> None:
    old = await keyring.issue()
    new = await keyring.keys.rotate(ANNA, old.row["key_id"], overlap=HOUR)

    await keyring.clock.advance(HOUR.total_seconds() - 1)
    assert (await keyring.is_good(old.text), await keyring.is_good(new.text)) == (True, True)

    await keyring.clock.advance(1)
    assert (await keyring.is_good(old.text), await keyring.is_good(new.text)) == (False, True)


async def test_without_an_overlap_the_secret_before_ends_at_once(keyring: Keyring) -> None:
    old = await keyring.issue()

    new = await keyring.keys.rotate(ANNA, old.row["key_id"], overlap=timedelta(0))

    assert (await keyring.is_good(old.text), await keyring.is_good(new.text)) == (False, True)


async def test_at_most_two_secrets_are_good_at_a_time(keyring: Keyring) -> None:
    first = await keyring.issue()
    second = await keyring.keys.rotate(ANNA, first.row["key_id"], overlap=DAY)
    third = await keyring.keys.rotate(ANNA, first.row["key_id"], overlap=DAY)

    assert [await keyring.is_good(each.text) for each in (first, second, third)] == [False, True, True]


async def test_a_key_ends_when_it_was_meant_to_however_it_was_rotated(keyring: Keyring) -> None:
    old = await keyring.issue(lifetime=HOUR)
    new = await keyring.keys.rotate(ANNA, old.row["key_id"], overlap=DAY)

    await keyring.clock.advance(HOUR.total_seconds() - 1)
    assert (await keyring.is_good(old.text), await keyring.is_good(new.text)) == (True, True)

    await keyring.clock.advance(1)
    assert (await keyring.is_good(old.text), await keyring.is_good(new.text)) == (False, False)
    with pytest.raises(Problem) as problem:
        await keyring.keys.rotate(ANNA, old.row["key_id"], overlap=DAY)
    assert (problem.value.status, problem.value.code) == (409, "api_key_expired")


async def test_a_revoked_key_is_good_no_longer_and_cannot_be_rotated(keyring: Keyring) -> None:
    issued = await keyring.issue()

    await keyring.keys.revoke(ANNA, issued.row["key_id"])

    assert not await keyring.is_good(issued.text)
    with pytest.raises(Problem) as problem:
        await keyring.keys.rotate(ANNA, issued.row["key_id"], overlap=DAY)
    assert (problem.value.status, problem.value.code) == (409, "api_key_revoked")


async def test_a_client_is_proven_by_a_good_key_alone(keyring: Keyring) -> None:
    old = await keyring.issue()
    new = await keyring.keys.rotate(ANNA, old.row["key_id"], overlap=timedelta(0))
    other = await keyring.issue()
    await keyring.keys.revoke(ANNA, other.row["key_id"])
    now = keyring.clock.now()

    async with keyring.pool.acquire() as connection:
        row = await authenticate(connection, new.text, now)
        nobody = [await authenticate(connection, text, now) for text in (old.text, other.text, "", "tenure_")]
        await connection.execute("INSERT INTO tenant_block VALUES ('t1', NULL, now())")
        blocked = await authenticate(connection, new.text, now)

    assert row is not None
    assert (row["key_id"], row["tenant_id"]) == (old.row["key_id"], "t1")
    assert nobody == [None] * 4
    assert blocked is None


# Bounds


@pytest.mark.parametrize(
    ("own", "wanted", "is_allowed"),
    [
        ({"read", "write"}, {"read", "write"}, True),
        ({"read", "write"}, {"usage:write", "invoices:read"}, True),
        ({"read", "api-keys:write"}, {"read", "users:read", "api-keys:write"}, True),
        ({"read", "api-keys:write"}, {"read", "write"}, False),
        ({"read", "api-keys:write"}, {"users:write"}, False),
        ({"api-keys:write"}, {"write"}, False),
        ({"api-keys:write"}, {"api-keys:read"}, False),
        ({"usage:write", "api-keys:write"}, {"read"}, False),
    ],
)
async def test_the_scopes_of_a_key_are_never_more_than_those_of_who_makes_it(
    keyring: Keyring, own: set[str], wanted: set[str], *, is_allowed: bool
) -> None:
    asking = keyring.keys.issue(admin(*own), Order(name="ci", scopes=frozenset(wanted)))
    if is_allowed:
        assert set((await asking).row["scopes"]) == wanted
        return

    with pytest.raises(Problem) as problem:
        await asking

    assert (problem.value.status, problem.value.code) == (403, "insufficient_scope")
    assert await keyring.told() == []


async def test_nobody_gets_more_scopes_by_rotating_a_key_that_has_them(keyring: Keyring) -> None:
    issued = await keyring.issue()

    with pytest.raises(Problem) as problem:
        await keyring.keys.rotate(admin("api-keys:write"), issued.row["key_id"], overlap=DAY)

    assert (problem.value.status, problem.value.code) == (403, "insufficient_scope")
    assert await keyring.is_good(issued.text)


@pytest.mark.parametrize("role", [Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT])
async def test_the_role_of_a_key_is_never_above_that_of_who_makes_it(keyring: Keyring, role: Role) -> None:
    with pytest.raises(Problem) as problem:
        await keyring.keys.issue(ANNA, Order(name="ci", role=role))

    assert (problem.value.status, problem.value.code) == (403, "forbidden")


@pytest.mark.parametrize(
    ("tenant_id", "role"), [("t1", Role.SYSTEM_ADMIN), ("t1", Role.CUSTOMER_SUPPORT), (None, Role.TENANT_ADMIN)]
)
async def test_a_role_that_does_not_belong_to_the_tenant_is_refused(
    keyring: Keyring, tenant_id: str | None, role: Role
) -> None:
    with pytest.raises(Problem) as problem:
        await keyring.keys.issue(OPERATOR, Order(name="ci", tenant_id=tenant_id, role=role))

    assert (problem.value.status, [error.pointer for error in problem.value.errors]) == (422, ["/role"])


@pytest.mark.parametrize(("asker", "role"), [(ANNA, "TenantUser"), (OPERATOR, "CustomerSupport")])
async def test_a_key_gets_the_least_role_unless_more_is_asked_for(
    keyring: Keyring, asker: Principal, role: str
) -> None:
    issued = await keyring.issue(asker, None)

    assert issued.row["role"] == role


async def test_support_that_visits_a_tenant_leaves_no_key_behind(keyring: Keyring) -> None:
    issued = await keyring.issue()

    with pytest.raises(Problem, match="outlast its visit") as making:
        await keyring.issue(VISITOR, Role.TENANT_USER)
    with pytest.raises(Problem, match="outlast its visit") as rotating:
        await keyring.keys.rotate(VISITOR, issued.row["key_id"], overlap=DAY)

    assert (making.value.status, rotating.value.status) == (403, 403)


@pytest.mark.parametrize("action", ["rotate", "revoke"])
async def test_another_tenants_key_is_answered_like_none_at_all(keyring: Keyring, action: str) -> None:
    issued = await keyring.issue(ANNA)
    problems = []
    for key_id in (issued.row["key_id"], api_keys.new_id()):
        with pytest.raises(Problem) as problem:
            await (
                keyring.keys.revoke(BELA, key_id)
                if action == "revoke"
                else keyring.keys.rotate(BELA, key_id, overlap=DAY)
            )
        problems.append((problem.value.status, problem.value.code, problem.value.detail.replace(key_id, "it")))

    assert problems == [(404, "unknown_api_key", "There is no API key it.")] * 2
    assert await keyring.is_good(issued.text)


@pytest.mark.parametrize(
    ("asker", "tenant_id"), [(OPERATOR, "t0"), (OPERATOR, INSTALLATION), (ANNA, "t2"), (ANNA, "_")]
)
async def test_no_key_is_made_for_a_tenant_that_is_not_there_for_who_asks(
    keyring: Keyring, asker: Principal, tenant_id: str
) -> None:
    with pytest.raises(Problem) as problem:
        await keyring.keys.issue(asker, Order(name="ci", tenant_id=tenant_id, role=Role.TENANT_USER))

    assert (problem.value.status, problem.value.code) == (404, "unknown_tenant")
    assert problem.value.detail == f"There is no tenant {tenant_id}."


async def test_no_key_is_made_for_a_blocked_tenant(keyring: Keyring) -> None:
    await keyring.pool.execute("INSERT INTO tenant_block VALUES ('t1', 'unpaid', now())")

    with pytest.raises(Problem) as problem:
        await keyring.keys.issue(OPERATOR, Order(name="ci", tenant_id="t1"))

    assert (problem.value.status, problem.value.code) == (409, "tenant_blocked")


# Limits and races


async def fill(keyring: Keyring, count: int) -> None:
    await keyring.pool.execute(
        """
        INSERT INTO api_key (key_id, tenant_id, name, role, scopes, secrets, revision, created_by, created_at)
        SELECT 'key' || number, 't1', 'ci', 'TenantUser', '{read}', '[]', 1, 'user:anna', $2
        FROM generate_series(1, $1::integer) AS number
        """,
        count,
        keyring.clock.now(),
    )


async def test_of_many_who_make_keys_at_once_only_as_many_succeed_as_there_is_room_for(keyring: Keyring) -> None:
    await fill(keyring, MOST_KEYS - 3)

    made = await asyncio.gather(*(keyring.issue() for _ in range(50)), return_exceptions=True)

    refused = [each for each in made if isinstance(each, Problem)]
    assert len(refused) == 47
    assert {(each.status, each.code) for each in refused} == {(409, "too_many_api_keys")}
    assert await keyring.pool.fetchval("SELECT count(*) FROM api_key WHERE tenant_id = 't1'") == MOST_KEYS
    assert len(await keyring.changes()) == 3
    await keyring.issue(BELA)  # another tenant has its own room


async def test_keys_that_are_revoked_or_have_expired_take_no_room(keyring: Keyring) -> None:
    await fill(keyring, MOST_KEYS - 2)
    await keyring.issue(lifetime=HOUR)
    revoked = await keyring.issue()
    with pytest.raises(Problem):
        await keyring.issue()

    await keyring.keys.revoke(ANNA, revoked.row["key_id"])
    await keyring.issue()
    await keyring.clock.advance(HOUR.total_seconds())

    await keyring.issue()


async def test_of_many_rotations_at_once_two_secrets_are_left(keyring: Keyring) -> None:
    first = await keyring.issue()
    key_id = first.row["key_id"]

    rotated = await asyncio.gather(*(keyring.keys.rotate(ANNA, key_id, overlap=DAY) for _ in range(20)))

    good = [each.row["revision"] for each in [first, *rotated] if await keyring.is_good(each.text)]
    assert sorted(good) == [20, 21]
    assert sorted(fact.revision for fact in await keyring.changes()) == list(range(1, 22))


async def test_whoever_makes_a_key_while_its_tenant_is_purged_is_told_that_there_is_none(keyring: Keyring) -> None:
    async with asyncio.TaskGroup() as group, transaction(keyring.pool) as purging:
        await queries.forget_keys(purging, ["t1"])
        making = group.create_task(refusal(keyring))
        await eventually(lambda: is_waiting(keyring.pool), describe="who makes the key waits")
        await purging.execute("DELETE FROM membership WHERE tenant_id = 't1'")

    assert making.result() == (404, "unknown_tenant")
    assert await keyring.known_keys() == set()


async def test_a_key_that_is_being_made_while_its_tenant_is_purged_does_not_stay(keyring: Keyring) -> None:
    async with asyncio.TaskGroup() as group, keyring.keys._changes.transaction() as change:
        await queries.lock_keys(change.connection, ["t1"])
        group.create_task(purge(keyring))
        await eventually(lambda: is_waiting(keyring.pool), describe="the purge waits")
        await change.connection.execute(
            "INSERT INTO api_key (key_id, tenant_id, name, role, scopes, secrets, revision, created_by, created_at)"
            " VALUES ('late', 't1', 'ci', 'TenantUser', '{read}', '[]', 1, 'user:anna', now())"
        )

    assert await keyring.pool.fetch("SELECT * FROM live_record WHERE tenant_id = 't1'") == []


async def refusal(keyring: Keyring) -> tuple[int, str]:
    with pytest.raises(Problem) as problem:
        await keyring.issue()
    return problem.value.status, problem.value.code


async def is_waiting(pool: Pool) -> bool:
    return bool(
        await pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        )
    )


# What is told


async def test_every_change_is_known_here_and_told_with_the_next_revision(keyring: Keyring) -> None:
    key_id = (await keyring.issue()).row["key_id"]
    state = (key_id, "t1", 1, "TenantAdmin", ("read", "write"), 1, False)
    assert await keyring.known_keys() == {state}

    await keyring.keys.rotate(ANNA, key_id, overlap=HOUR)
    assert await keyring.known_keys() == {(key_id, "t1", 2, "TenantAdmin", ("read", "write"), 2, False)}

    await keyring.keys.revoke(ANNA, key_id)
    await keyring.keys.revoke(ANNA, key_id)  # tells nothing
    assert await keyring.known_keys() == {(key_id, "t1", 3, "TenantAdmin", ("read", "write"), 0, True)}
    facts = await keyring.changes()
    assert [(fact.key_id, fact.tenant_id, fact.revision, len(fact.secrets)) for fact in facts] == [
        (key_id, "t1", 1, 1),
        (key_id, "t1", 2, 2),
        (key_id, "t1", 3, 0),
    ]
    assert [fact.forget_at is None for fact in facts] == [True, True, False]


async def test_a_change_that_cannot_be_told_is_not_made(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = await keyring.issue()

    async def fail(*_: object, **__: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr("shared.changes.outbox.insert", fail)
    with pytest.raises(ConnectionResetError):
        await keyring.keys.revoke(ANNA, issued.row["key_id"])

    assert await keyring.is_good(issued.text)
    assert len(await keyring.changes()) == 1


async def test_facts_in_any_order_leave_other_services_with_the_last_state(keyring: Keyring, elsewhere: Pool) -> None:
    issued = await keyring.issue()
    texts = [issued.text]
    texts += [(await keyring.keys.rotate(ANNA, issued.row["key_id"], overlap=HOUR)).text for _ in range(2)]
    facts = await keyring.changes()
    credentials = KnownCredentials(elsewhere, clock=keyring.clock, issuer="http://test")

    for order in itertools.permutations(facts):
        await elsewhere.execute("DELETE FROM access_api_key")
        for fact in order:
            await keep(elsewhere, [fact])
        assert [await is_good(credentials, text) for text in texts] == [False, True, True]
        assert await known_keys(elsewhere) == await keyring.known_keys()

    await keyring.keys.revoke(ANNA, issued.row["key_id"])
    await keep(elsewhere, [*reversed(await keyring.changes())])
    await keep(elsewhere, facts)  # late
    assert [await is_good(credentials, text) for text in texts] == [False] * 3


async def test_a_purge_leaves_no_key_of_the_tenant_and_all_of_the_others(keyring: Keyring) -> None:
    gone, stays, operators = (
        await keyring.issue(ANNA),
        await keyring.issue(BELA),
        await keyring.issue(OPERATOR, Role.SYSTEM_ADMIN),
    )
    live = "SELECT count(*) FROM live_record WHERE tenant_id = 't1' AND place = 'api_key'"
    assert await keyring.pool.fetchval(live) == 1
    assert await keyring.pool.fetchval("SELECT count(*) FROM live_record WHERE tenant_id = '_'") == 0

    await purge(keyring)

    assert await keyring.pool.fetchval(live) == 0
    left = {row["key_id"] for row in await keyring.pool.fetch("SELECT key_id FROM api_key")}
    assert left == {stays.row["key_id"], operators.row["key_id"]}
    assert [await keyring.is_good(each.text) for each in (gone, stays, operators)] == [False, True, True]


async def test_forgetting_counts_the_keys_of_each_tenant_and_spares_the_operators(keyring: Keyring) -> None:
    await make_members(keyring.pool, ["t3"])
    for asker in (ANNA, ANNA, BELA):
        await keyring.issue(asker)
    operators = await keyring.issue(OPERATOR, Role.SYSTEM_ADMIN)

    async with transaction(keyring.pool) as connection:
        assert await queries.forget_keys(connection, ["t1", "t2", "t3", INSTALLATION]) == {"t1": 2, "t2": 1}

    assert await keyring.is_good(operators.text)


# When keys were last used


async def last_uses(keyring: Keyring) -> dict[str, object]:
    rows = await keyring.pool.fetch("SELECT key_id, last_used_at FROM api_key")
    return {row["key_id"]: row["last_used_at"] for row in rows}


async def test_the_latest_use_that_any_service_tells_of_stays(keyring: Keyring) -> None:
    busy, idle = (await keyring.issue()).row["key_id"], (await keyring.issue()).row["key_id"]
    times = [keyring.clock.now() + minutes * timedelta(minutes=1) for minutes in range(4)]
    facts = [
        billing.ApiKeysUsed(uses=(KeyUse(key_id=busy, used_at=times[2]), KeyUse(key_id="gone", used_at=times[3]))),
        billing.ApiKeysUsed(uses=(KeyUse(key_id=busy, used_at=times[1]),)),
    ]

    async with transaction(keyring.pool) as connection:
        await keep_uses(connection, facts)
        assert await last_uses_in(connection, busy) == times[2]
        await keep_uses(connection, [tenant.ApiKeysUsed(uses=(KeyUse(key_id=busy, used_at=times[0]),))])
        assert await last_uses_in(connection, busy) == times[2]
        await note_own_uses(connection, {busy: times[3]})

    assert await last_uses(keyring) == {busy: times[3], idle: None}


async def last_uses_in(connection: Connection, key_id: str) -> object:
    return await connection.fetchval("SELECT last_used_at FROM api_key WHERE key_id = $1", key_id)


async def test_what_is_used_at_this_service_is_kept_without_telling_anybody(keyring: Keyring) -> None:
    keyring.kernel.key_uses.write = note_own_uses
    issued = await keyring.issue()
    await keyring.is_good(issued.text)
    told = await keyring.told()

    await keyring.kernel.key_uses.report()

    assert await last_uses(keyring) == {issued.row["key_id"]: keyring.clock.now()}
    assert await keyring.told() == told


async def test_a_key_is_used_by_a_token_that_was_given_for_it_until_it_is_revoked(keyring: Keyring) -> None:
    keyring.kernel.key_uses.write = note_own_uses
    key_id = (await keyring.issue()).row["key_id"]
    token = await token_for(keyring, key_id)

    principal = await keyring.credentials.of_token(token)
    await keyring.kernel.key_uses.report()

    assert (principal.id, principal.tenant_id, principal.user_id) == (f"key:{key_id}", "t1", None)
    assert await last_uses(keyring) == {key_id: keyring.clock.now()}
    await keyring.keys.revoke(ANNA, key_id)
    with pytest.raises(InvalidCredentialError, match="revoked"):
        await keyring.credentials.of_token(token)


async def token_for(keyring: Keyring, key_id: str) -> str:
    signing, now = ECKey.generate_key("P-256", {"kid": "k1"}), int(keyring.clock.now().timestamp())
    async with keyring.keys._changes.transaction() as change:
        public = signing.as_dict(private=False)
        change.tell(SigningKeyPublished(key_id="k1", public_key=public, expires_at=keyring.clock.now() + DAY))
    claims = tokens.AccessClaims(
        iss="http://127.0.0.1:8080",
        sub=key_id,
        client_id=key_id,
        aud=tokens.AUDIENCE,
        iat=now,
        nbf=now,
        exp=now + 600,
        jti="1",
        sid="1",
        role=Role.TENANT_ADMIN,
        scope="read",
        epoch=0,
        tenant_id="t1",
    )
    return tokens.sign(claims, signing)


async def test_a_key_that_lets_nobody_in_was_not_used(keyring: Keyring) -> None:
    keyring.kernel.key_uses.write = note_own_uses
    revoked, blocked = await keyring.issue(ANNA), await keyring.issue(BELA)
    await keyring.keys.revoke(ANNA, revoked.row["key_id"])
    async with keyring.keys._changes.transaction() as change:
        change.tell(TenantAccessChanged(tenant_id="t2", epoch=1, is_blocked=True))

    assert [await keyring.is_good(each.text) for each in (revoked, blocked)] == [False, False]
    await keyring.kernel.key_uses.report()

    assert set((await last_uses(keyring)).values()) == {None}
