"""What a gateway is told about a request: who sent it and that it may pass, or why it may not."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

from services.identity.api.authorize import routes
from services.identity.tests.gatehouse import ADMIN_KEY, OPERATORS, Gatehouse, Replica, signing_key
from shared.access import Role, api_keys
from shared.clock import ManualClock
from shared.postgres import Pool

BOUND_SECONDS = 1.0
"""How long after it was revoked something may still be good."""


@pytest.fixture
async def house(pool: Pool) -> Gatehouse:
    """A gatehouse that has a signing key and one tenant, whose plan allows much."""
    house = Gatehouse(pool)
    await house.publish()
    await house.plan(50, 1000)
    return house


@pytest.fixture
def gate(house: Gatehouse) -> Replica:
    """The gate of one replica."""
    return house.replica()


def clock_of(house: Gatehouse) -> ManualClock:
    assert isinstance(house.clock, ManualClock)
    return house.clock


def named(answer: httpx2.Response) -> dict[str, str]:
    """Return what an application is told."""
    return {name: value for name, value in answer.headers.items() if name.startswith("x-")}


# Who may pass


async def test_an_application_is_told_who_asks_and_what_its_tier_lets_it_use(house: Gatehouse, gate: Replica) -> None:
    answer = await gate.ask(house.token(role=Role.TENANT_ADMIN, scope="orders:read invoices:write"))

    assert (answer.status_code, answer.content) == (200, b"")
    assert named(answer) == {
        "x-tenant-id": "t1",
        "x-user-id": "u1",
        "x-role": "TenantAdmin",
        "x-scope": "invoices:write orders:read",
        "x-api-key-id": "",
        "x-tier": "standard",
        "x-tier-limits": "requests-per-second=50, requests-per-day=1000",
        "x-ratelimit-limit": "50",
        "x-ratelimit-remaining": "49",
        "x-ratelimit-reset": "1",
    }


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
async def test_an_api_key_passes_in_either_header_and_is_named(header: str, house: Gatehouse, gate: Replica) -> None:
    key = await house.issue(scopes=["orders:read"])
    sent = {header: f"Bearer {key.text}" if header == "Authorization" else key.text}

    answer = await gate.client.get("/v1/authorize", headers=sent)

    assert answer.status_code == 200
    told = named(answer)
    assert (told["x-api-key-id"], told["x-user-id"], told["x-tenant-id"]) == (key.id, "", "t1")
    assert (told["x-role"], told["x-scope"]) == ("TenantUser", "orders:read")
    assert set(gate.uses.take()) == {key.id}


async def test_a_token_for_an_api_key_is_the_keys(house: Gatehouse, gate: Replica) -> None:
    key = await house.issue()
    token = house.token(sub=key.id, client_id=key.id)

    answer = await gate.ask(token)
    assert named(answer)["x-api-key-id"] == key.id
    assert named(answer)["x-user-id"] == ""

    await house.revoke_key(key)
    await clock_of(house).advance(BOUND_SECONDS + 0.001)
    assert await gate.outcome(token) == (401, "unauthenticated")


async def test_a_tenant_without_a_plan_passes_and_nothing_of_it_is_limited(house: Gatehouse, gate: Replica) -> None:
    answer = await gate.ask(house.token(tenant_id="t2"))

    assert answer.status_code == 200
    assert {name: named(answer)[name] for name in ("x-tier", "x-tier-limits", "x-ratelimit-limit")} == {
        "x-tier": "",
        "x-tier-limits": "",
        "x-ratelimit-limit": "",
    }


async def test_support_that_acts_in_a_tenant_passes_as_its_administrator(house: Gatehouse, gate: Replica) -> None:
    token = house.token(role=Role.CUSTOMER_SUPPORT, reason="Ticket 7")

    answer = await gate.ask(token, path="/v1/authorize?role=TenantAdmin")

    assert (answer.status_code, named(answer)["x-role"]) == (200, "TenantAdmin")


async def test_every_method_and_every_path_below_is_answered(house: Gatehouse, gate: Replica) -> None:
    token = house.token()

    for path in ("/v1/authorize", "/v1/authorize/", "/v1/authorize/orders/7%2F..%2F..?q=1"):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD"):
            answer = await gate.ask(token, method=method, path=path)
            assert (answer.status_code, answer.headers["x-tenant-id"]) == (200, "t1"), (method, path)


async def test_every_other_path_is_what_is_behind(gate: Replica) -> None:
    assert (await gate.ask(path="/v1/authorized")).text == "behind"
    assert (await gate.ask(path="/v1/users")).text == "behind"


@pytest.mark.parametrize("path", ["/v1/authorize?role=TenantUser", "/v1/authorize/orders"])
async def test_the_routes_answer_as_the_gate_does(path: str, house: Gatehouse, gate: Replica) -> None:
    api = FastAPI()
    api.include_router(routes(gate.gate))
    behind = Replica(house.pool, house.clock)
    behind.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://tenure")
    token = house.token()

    for credential in (token, None, "x"):
        before, after = await gate.ask(credential, path=path), await behind.ask(credential, path=path)
        assert (after.status_code, after.content) == (before.status_code, before.content)
        named_before = named(before) | {"x-ratelimit-remaining": ""}
        assert named(after) | {"x-ratelimit-remaining": ""} == named_before
    assert list(api.openapi()["paths"]) == ["/v1/authorize"]
    assert list(api.openapi()["paths"]["/v1/authorize"]) == ["get"]


# Nobody is proven


async def test_whoever_sends_nothing_is_asked_for_a_credential(gate: Replica) -> None:
    answer = await gate.ask()

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="tenure"'
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthenticated"


async def test_what_is_not_one_credential_is_none(house: Gatehouse, gate: Replica) -> None:
    token = house.token()
    bearer, basic, key = ("Authorization", f"Bearer {token}"), ("Authorization", "Basic dTpw"), ("X-Api-Key", token)

    for headers in ([basic], [("Authorization", "Bearer")], [bearer, bearer], [bearer, basic], [key, key]):
        answer = await gate.client.get("/v1/authorize", headers=headers)
        assert answer.status_code == 401, headers


def unsigned(house: Gatehouse, *, algorithm: str) -> str:
    """Write a token that nobody has signed."""
    header = {"alg": algorithm, "typ": "at+jwt", "kid": "k1"}
    parts = [header, house.claims().model_dump(mode="json", exclude_none=True)]
    return ".".join(encoded(json.dumps(part).encode()) for part in parts) + "."


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def signed_with_the_public_key(house: Gatehouse) -> str:
    """Sign with what everybody knows, as if that were a secret."""
    signed = unsigned(house, algorithm="HS256").rstrip(".")
    digest = hmac.new(house.key.as_pem(private=False), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{encoded(digest)}"


def with_other_claims(house: Gatehouse) -> str:
    """Put the signature of one token below the claims of another."""
    mine, yours = house.token().split("."), house.token(tenant_id="t2").split(".")
    return ".".join([mine[0], yours[1], mine[2]])


HOSTILE: Mapping[str, Callable[[Gatehouse], str]] = {
    "garbage": lambda _: "x",
    "dots": lambda _: "..",
    "bytes": lambda _: "\xff\xfe.\xff.\xff",
    "oversized": lambda _: "x" * 9000,
    "oversized token": lambda house: house.token(scope="x " * 400) + "x" * 9000,
    "alg none": lambda house: unsigned(house, algorithm="none"),
    "alg None": lambda house: unsigned(house, algorithm="None"),
    "alg without a signature": lambda house: unsigned(house, algorithm="ES256"),
    "the public key as a secret": signed_with_the_public_key,
    "other claims": with_other_claims,
    "another key of the same name": lambda house: house.token(signing_key("k1")),
    "a key that nobody knows": lambda house: house.token(signing_key("k9")),
    "expired": lambda house: house.token(iat=0, nbf=0, exp=600),
    "from tomorrow": lambda house: house.token(nbf=4_000_000_000, iat=4_000_000_000, exp=4_000_000_600),
    "good for ever": lambda house: house.token(exp=4_000_000_000),
    "for another audience": lambda house: house.token(aud="elsewhere"),
    "of another issuer": lambda house: house.token(iss="https://evil.example.com"),
    "a member of nothing": lambda house: house.token(tenant_id=None),
    "no api key": lambda _: "tenure_" + "a" * 16 + "_" + "b" * 57,
    "an api key that there is not": lambda _: api_keys.new_key(api_keys.new_id()).text,
}


async def test_what_proves_nothing_is_refused(house: Gatehouse, gate: Replica) -> None:
    for name, made in HOSTILE.items():
        credential = made(house)
        header = (b"authorization", b"Bearer " + credential.encode("latin-1"))

        answer = await gate.client.get("/v1/authorize", headers=[header])

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), name
        assert answer.headers["www-authenticate"] == 'Bearer realm="tenure", error="invalid_token"'
        assert "x-tenant-id" not in answer.headers
        assert len(credential) < 3 or credential not in answer.text, name


async def test_a_secret_of_a_key_is_good_until_it_expires_and_another_never_is(house: Gatehouse, gate: Replica) -> None:
    key = await house.issue(good_for=timedelta(seconds=10))
    other = api_keys.new_key(key.id)

    assert await gate.outcome(key.text) == (200, "")
    assert await gate.outcome(other.text) == (401, "unauthenticated")
    await clock_of(house).advance(10)
    assert await gate.outcome(key.text) == (401, "unauthenticated")


async def test_a_token_that_was_seen_is_good_until_it_expires_and_no_longer_than_clocks_are_apart(
    house: Gatehouse, gate: Replica
) -> None:
    token = house.token()
    assert await gate.outcome(token) == (200, "")

    await clock_of(house).advance(659)
    assert await gate.outcome(token) == (200, "")
    await clock_of(house).advance(1)
    assert await gate.outcome(token) == (401, "unauthenticated")


# Who may not


async def test_operators_have_no_tenant(house: Gatehouse, gate: Replica) -> None:
    key = await house.issue(tenant_id=OPERATORS, role=Role.SYSTEM_ADMIN)

    assert await gate.outcome(ADMIN_KEY) == (403, "no_tenant")
    assert await gate.outcome(key.text) == (403, "no_tenant")
    assert await gate.outcome(house.token(role=Role.SYSTEM_ADMIN, tenant_id=None)) == (403, "no_tenant")
    assert await gate.outcome(house.token(role=Role.CUSTOMER_SUPPORT, tenant_id=None)) == (403, "no_tenant")


NEEDS = {
    "role=TenantUser": 200,
    "role=TenantAdmin": 403,
    "role=TenantAdmin&role=TenantUser": 200,
    "role=": 403,
    "role=Nobody": 403,
    "scope=orders:read": 200,
    "scope=orders:write": 403,
    "scope=orders%3Aread&scope=stock:write": 200,
    "scope=orders:read%20stock:read": 403,
    "scope=orders:read&role=TenantAdmin": 403,
    "scope=read": 403,
    "scope=": 200,
    "anything=else": 200,
}


async def test_a_gateway_may_ask_for_roles_and_scopes(house: Gatehouse, gate: Replica) -> None:
    token = house.token(scope="orders:read stock:write")

    for query, status in NEEDS.items():
        assert (await gate.ask(token, path=f"/v1/authorize?{query}")).status_code == status, query


async def test_who_may_read_everything_may_read_each_thing(house: Gatehouse, gate: Replica) -> None:
    token = house.token(scope="read")

    assert await gate.outcome(token, path="/v1/authorize?scope=orders:read") == (200, "")
    assert await gate.outcome(token, path="/v1/authorize?scope=orders:write") == (403, "insufficient_scope")
    assert await gate.outcome(token, path="/v1/authorize?role=TenantAdmin") == (403, "forbidden")


async def test_a_client_whose_query_it_is_cannot_ask_for_less(house: Gatehouse, gate: Replica) -> None:
    token = house.token()

    for path in ("/v1/authorize/orders?role=TenantUser", "/v1/authorize?role=TenantUser"):
        assert await gate.outcome(token, path=path, X_Required_Role="TenantAdmin") == (403, "forbidden")
    below = "/v1/authorize/orders?role=TenantAdmin"
    assert await gate.outcome(token, path=below) == (200, ""), "nor keep itself out"
    both = [("Authorization", f"Bearer {token}"), ("X-Required-Role", "TenantUser"), ("X-Required-Role", "TenantAdmin")]
    assert (await gate.client.get("/v1/authorize/orders", headers=both)).status_code == 403
    assert await gate.outcome(token, path=below, X_Required_Role="TenantAdmin, TenantUser") == (200, "")
    assert await gate.outcome(token, path=below, X_Required_Scope="orders:read, x:refund") == (
        403,
        "insufficient_scope",
    )


async def test_who_is_refused_is_not_counted(house: Gatehouse, gate: Replica) -> None:
    await house.plan(1, 1, version=2)
    token = house.token()

    assert await gate.outcome(token, path="/v1/authorize?role=TenantAdmin") == (403, "forbidden")
    assert await gate.outcome(token) == (200, "")


# Revocation


async def test_a_revoked_session_ends_within_a_second(house: Gatehouse, gate: Replica) -> None:
    token = house.token()
    assert await gate.outcome(token) == (200, "")
    await house.revoke_session()

    await clock_of(house).advance(BOUND_SECONDS)
    seen = await gate.outcome(token)
    await clock_of(house).advance(0.001)

    assert seen == (200, ""), "until then nothing is read"
    assert await gate.outcome(token) == (401, "unauthenticated")
    assert await gate.outcome(house.token(sid="s2")) == (200, "")


async def test_a_suspended_tenants_users_and_keys_are_kept_out_within_a_second(house: Gatehouse, gate: Replica) -> None:
    credentials = [house.token(), (await house.issue()).text]
    for credential in credentials:
        assert await gate.outcome(credential) == (200, "")

    await house.change_access(epoch=1, is_blocked=True)
    await clock_of(house).advance(BOUND_SECONDS + 0.001)
    for credential in credentials:
        assert await gate.outcome(credential) == (403, "tenant_blocked")

    await house.change_access(epoch=2, is_blocked=False)
    await clock_of(house).advance(BOUND_SECONDS + 0.001)
    assert await gate.outcome(credentials[0]) == (401, "unauthenticated"), "its epoch is over"
    assert await gate.outcome(credentials[1]) == (200, "")
    assert await gate.outcome(house.token(epoch=2)) == (200, "")


async def test_a_revoked_key_ends_within_a_second(house: Gatehouse, gate: Replica) -> None:
    key = await house.issue()
    assert await gate.outcome(key.text) == (200, "")

    await house.revoke_key(key)
    await clock_of(house).advance(BOUND_SECONDS + 0.001)

    assert await gate.outcome(key.text) == (401, "unauthenticated")


async def test_a_key_that_was_asked_for_too_early_is_good_a_second_later(house: Gatehouse, gate: Replica) -> None:
    key = await house.issue()
    await house.pool.execute("UPDATE access_api_key SET revision = 0, forget_at = '2100-01-01'")
    assert await gate.outcome(key.text) == (401, "unauthenticated")
    await house.pool.execute("UPDATE access_api_key SET forget_at = NULL")

    await clock_of(house).advance(BOUND_SECONDS + 0.001)

    assert await gate.outcome(key.text) == (200, "")


# What it costs the database


class Statements:
    """Notes what a pool's connections are asked of who may."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, query: asyncpg.connection.LoggedQuery) -> None:
        if "access_" in query.query:
            self.seen.append(query.query)

    def reads(self, table: str) -> int:
        return sum(table in each for each in self.seen)


@pytest.fixture
async def statements(pool: Pool) -> Statements:
    """What is sent over the pool's connections from now on."""
    counted = Statements()
    held = [await pool.acquire() for _ in range(pool.get_max_size())]
    for connection in held:
        connection.add_query_logger(counted)
    for connection in held:
        await pool.release(connection)
    return counted


async def test_what_is_in_use_is_read_once_a_second_at_most_however_often_it_is_asked_for(
    house: Gatehouse, gate: Replica, statements: Statements
) -> None:
    credentials = [house.token(sid=f"s{number}") for number in range(20)]
    await asyncio.gather(*(gate.ask(each) for each in credentials))
    first = len(statements.seen)

    for each in credentials:
        await gate.ask(each)
    assert len(statements.seen) == first

    refreshing = asyncio.create_task(gate.standings.run())
    await asyncio.sleep(0)
    for _ in range(4):
        await clock_of(house).advance(0.5)
        await refreshed(gate, statements, first := first + 1)
        await asyncio.gather(*(gate.ask(each) for each in credentials))
    refreshing.cancel()

    assert len(statements.seen) == first, "one statement for all, twice a second, and none for a request"


async def refreshed(gate: Replica, statements: Statements, count: int) -> None:
    for _ in range(1000):
        if len(statements.seen) >= count and not gate.standings._turn.locked():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{len(statements.seen)} statements, not {count}")


async def test_what_is_not_in_use_is_not_read(house: Gatehouse, gate: Replica, statements: Statements) -> None:
    await gate.ask(house.token())
    await clock_of(house).advance(5)
    before = len(statements.seen)

    refreshing = asyncio.create_task(gate.standings.run())
    await asyncio.sleep(0)
    await clock_of(house).advance(5)
    await asyncio.sleep(0.05)
    refreshing.cancel()

    assert len(statements.seen) == before


async def test_a_flood_of_tokens_with_unknown_keys_reads_the_keys_once_a_second(
    house: Gatehouse, gate: Replica, statements: Statements
) -> None:
    floods = [house.token(signing_key("k9"), jti=str(number)) for number in range(30)]

    for second in range(3):
        await asyncio.gather(*(gate.ask(each) for each in floods))
        assert statements.reads("access_signing_key") == second + 1
        await clock_of(house).advance(1)

    assert len(statements.seen) == 3, "and nothing else"


async def test_a_key_that_is_published_later_is_known_a_second_later(house: Gatehouse, gate: Replica) -> None:
    key = signing_key("k2")
    assert await gate.outcome(house.token(key)) == (401, "unauthenticated")

    await house.publish(key)
    await clock_of(house).advance(1)

    assert await gate.outcome(house.token(key)) == (200, "")


async def test_many_who_come_at_once_after_a_start_wait_for_the_same_keys(
    house: Gatehouse, gate: Replica, statements: Statements
) -> None:
    answers = await asyncio.gather(*(gate.ask(house.token(sid=f"s{number}")) for number in range(40)))

    assert {answer.status_code for answer in answers} == {200}
    assert statements.reads("access_signing_key") == 1
    assert statements.reads("access_revoked_session") <= 3


# While the database is away


class Away:
    """Lets no statement through while it is away."""

    def __init__(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_away = False
        acquire = pool.acquire

        def acquire_or_not(_: Pool, **given: Any) -> Any:
            if self.is_away:
                raise ConnectionRefusedError
            return acquire(**given)

        monkeypatch.setattr(type(pool), "acquire", acquire_or_not)


async def test_what_is_known_is_good_for_five_seconds_more_and_nothing_is_after_that(
    house: Gatehouse, gate: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(house.pool, monkeypatch)
    token, key, clock = house.token(), await house.issue(), clock_of(house)
    assert await gate.outcome(token) == (200, "")
    assert await gate.outcome(key.text) == (200, "")

    away.is_away = True
    for _ in range(6):
        await clock.advance(1)
        assert await gate.outcome(token) == (200, "")
        assert await gate.outcome(key.text) == (200, "")
    await clock.advance(0.001)
    answer = await gate.ask(token)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["code"] == "unavailable"
    assert await gate.outcome(key.text) == (503, "unavailable")

    away.is_away = False
    await clock.advance(1)
    assert await gate.outcome(token) == (200, "")


async def test_who_was_not_seen_before_is_kept_out(
    house: Gatehouse, gate: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gate.ask(house.token())
    await clock_of(house).advance(1)
    Away(house.pool, monkeypatch).is_away = True

    assert await gate.outcome(house.token(sid="s2")) == (503, "unavailable")
    for _ in range(2):
        assert await gate.outcome(house.token(signing_key("k9"))) == (503, "unavailable"), "it may be a key of today"
    assert await gate.outcome("garbage") == (401, "unauthenticated")


async def test_a_frozen_database_holds_nobody_up_for_longer_than_its_bound(house: Gatehouse, gate: Replica) -> None:
    await gate.ask(house.token())
    await clock_of(house).advance(2)

    async with house.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK access_revoked_session IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(5):
            assert await gate.outcome(house.token()) == (200, "")
            assert await gate.outcome(house.token(sid="s2")) == (503, "unavailable")


# What is measured


async def test_every_outcome_is_counted(house: Gatehouse, gate: Replica) -> None:
    await house.plan(1, None, version=2)
    for credential in (house.token(), house.token(), "x", ADMIN_KEY):
        await gate.ask(credential)

    def count(outcome: str) -> float | None:
        return gate.registry.get_sample_value("tenure_identity_authorized_total", {"outcome": outcome})

    assert [count(each) for each in ("allowed", "too_many_requests", "unauthenticated", "no_tenant")] == [1, 1, 1, 1]
