"""From what a client sends to who that is, or that it is nobody."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey

from shared.access import ADMINISTRATOR, Authenticator, KnownCredentials, Principal, Role, api_keys, replica
from shared.access.api_keys import ApiKey
from shared.access.authenticator import InvalidCredentialError
from shared.access.tokens import AccessClaims, epoch_seconds, sign
from shared.clock import ManualClock
from shared.contracts.base import INSTALLATION
from shared.contracts.identity import (
    ApiKeyChanged,
    ApiKeySecret,
    SessionsRevoked,
    SigningKeyPublished,
    TenantAccessChanged,
)
from shared.postgres import Pool, transaction

ADMIN_KEY = "a-key-of-the-administrator"
ISSUER = "https://tenure.example.com"
KEY = ECKey.generate_key("P-256", {"kid": "k1"}, private=True)
API_KEY = api_keys.new_key(api_keys.new_id())


class World:
    """A service's knowledge, and what it makes of credentials."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.clock = ManualClock()
        self.credentials = KnownCredentials(pool, clock=self.clock, issuer=ISSUER)
        self.authenticator = Authenticator(ADMIN_KEY, self.credentials)

    @property
    def later(self) -> datetime:
        return self.clock.now() + timedelta(days=1)

    async def hear(self, *facts: Any) -> None:
        for fact in facts:
            async with transaction(self.pool) as connection:
                await replica.SUBSCRIPTIONS[type(fact)].handler(connection, [fact])

    async def publish(self, key: ECKey = KEY) -> None:
        public = {name: str(value) for name, value in key.as_dict(private=False).items() if isinstance(value, str)}
        await self.hear(SigningKeyPublished(key_id=str(key.kid), public_key=public, expires_at=self.later))

    async def issue(self, key: ApiKey = API_KEY, *, tenant_id: str = "t1", **details: Any) -> None:
        given: dict[str, Any] = {
            "revision": 1,
            "role": "TenantAdmin",
            "scopes": ["read", "usage:write"],
            "secrets": [ApiKeySecret(digest=key.digest.hex())],
        }
        await self.hear(ApiKeyChanged(tenant_id=tenant_id, key_id=key.id, **{**given, **details}))

    def token(self, key: ECKey = KEY, **claims: Any) -> str:
        now = epoch_seconds(self.clock.now())
        given: dict[str, Any] = {
            "iss": ISSUER,
            "sub": "u1",
            "aud": "tenure",
            "exp": now + 900,
            "iat": now,
            "nbf": now,
            "jti": "j1",
            "sid": "s1",
            "client_id": "console",
            "role": "TenantUser",
            "scope": "read",
            "epoch": 0,
            "tenant_id": "t1",
        }
        return sign(AccessClaims.read({**given, **claims}), key)

    async def who(self, text: str) -> Principal:
        return await self.authenticator.principal(text)

    async def refusal(self, text: str) -> str:
        with pytest.raises(InvalidCredentialError) as refused:
            await self.authenticator.principal(text)
        assert len(text) < 5 or text not in str(refused.value)
        return str(refused.value)


@pytest.fixture
def world(pool: Pool) -> World:
    return World(pool)


UNKNOWN = "The API key is not known."
BLOCKED = "Nobody can sign in to the tenant at present."
REVOKED = "The access token was revoked."


def test_an_empty_administrators_key_would_let_everybody_in() -> None:
    with pytest.raises(ValueError, match="empty"):
        Authenticator("")


async def test_the_administrators_key_is_good_while_the_database_is_away() -> None:
    assert await Authenticator(ADMIN_KEY).principal(ADMIN_KEY) == ADMINISTRATOR
    with pytest.raises(InvalidCredentialError):
        await Authenticator(ADMIN_KEY).principal(API_KEY.text)


@pytest.mark.parametrize("text", ["", " ", ADMIN_KEY[:-1], ADMIN_KEY.upper(), ADMIN_KEY + " ", "\0", "é", API_KEY.text])
async def test_nothing_else_is(world: World, text: str) -> None:
    assert await world.refusal(text) == UNKNOWN


# API keys


async def test_an_api_key_is_who_it_was_issued_for(world: World) -> None:
    await world.issue()

    assert await world.who(API_KEY.text) == Principal(
        id=f"key:{API_KEY.id}",
        role=Role.TENANT_ADMIN,
        tenant_id="t1",
        scopes=frozenset({"read", "usage:write"}),
    )


async def test_an_operators_api_key_is_bound_to_no_tenant(world: World) -> None:
    await world.issue(tenant_id=INSTALLATION, role="CustomerSupport")

    who = await world.who(API_KEY.text)

    assert (who.role, who.tenant_id) == (Role.CUSTOMER_SUPPORT, None)


async def test_the_id_of_a_key_is_not_enough(world: World) -> None:
    await world.issue()

    assert await world.refusal(api_keys.new_key(API_KEY.id).text) == UNKNOWN


async def test_while_a_key_is_rotated_both_secrets_are_good(world: World) -> None:
    new = api_keys.new_key(API_KEY.id)
    ends_at = world.clock.now() + timedelta(hours=1)
    secrets = [ApiKeySecret(digest=API_KEY.digest.hex(), expires_at=ends_at), ApiKeySecret(digest=new.digest.hex())]
    await world.issue(secrets=secrets)

    assert await world.who(API_KEY.text) == await world.who(new.text)
    await world.clock.advance(3599)
    assert await world.who(API_KEY.text)
    await world.clock.advance(1)
    assert await world.refusal(API_KEY.text) == UNKNOWN
    assert await world.who(new.text)


async def test_a_key_that_is_revoked_is_known_no_more(world: World) -> None:
    await world.issue()
    await world.issue(revision=2, secrets=[], forget_at=world.later)

    assert await world.refusal(API_KEY.text) == UNKNOWN


async def test_a_key_of_a_tenant_that_is_kept_out_is_kept_out_until_it_is_let_in(world: World) -> None:
    await world.issue()
    await world.hear(TenantAccessChanged(tenant_id="t1", epoch=1, is_blocked=True))
    assert await world.refusal(API_KEY.text) == BLOCKED
    await world.hear(TenantAccessChanged(tenant_id="t1", epoch=2, is_blocked=False))
    assert await world.who(API_KEY.text)


async def test_whether_a_tenant_is_kept_out_is_told_to_those_alone_who_have_its_key(world: World) -> None:
    await world.issue()
    await world.hear(TenantAccessChanged(tenant_id="t1", epoch=1, is_blocked=True))

    assert await world.refusal(api_keys.new_key(API_KEY.id).text) == UNKNOWN


async def test_a_key_of_a_tenant_that_is_purged_is_known_no_more(world: World) -> None:
    await world.issue()
    await world.hear(TenantAccessChanged(tenant_id="t1", epoch=1, is_blocked=True, forget_at=world.later))

    assert await world.refusal(API_KEY.text) == UNKNOWN


@pytest.mark.parametrize(
    ("tenant_id", "role"),
    [("t1", "Overlord"), ("t1", "SystemAdmin"), (INSTALLATION, "TenantAdmin"), (INSTALLATION, "TenantUser")],
)
async def test_a_key_for_somebody_who_cannot_be_is_nobodys(world: World, tenant_id: str, role: str) -> None:
    """A newer identity may know roles that are not known here; what they may do is not for a guess."""
    await world.issue(tenant_id=tenant_id, role=role)

    assert await world.refusal(API_KEY.text) == UNKNOWN


# Access tokens


async def test_a_token_is_whom_it_was_given_for(world: World) -> None:
    await world.publish()

    assert await world.who(world.token()) == Principal(
        id="user:u1",
        role=Role.TENANT_USER,
        tenant_id="t1",
        scopes=frozenset({"read"}),
        user_id="u1",
        session_id="s1",
    )


async def test_a_token_that_cannot_be_trusted_is_nobodys(world: World) -> None:
    await world.publish()
    other = ECKey.generate_key("P-256", {"kid": "k1"}, private=True)

    for text in (
        world.token(other),
        world.token(iss="https://x.example"),
        world.token(role="SystemAdmin"),
        "a.b.c",
        "..",
    ):
        assert (await world.refusal(text)).startswith("The access token is not valid: ")


async def test_a_token_ends(world: World) -> None:
    await world.publish()
    token = world.token()
    await world.clock.advance(900 + 59)
    assert await world.who(token)
    await world.clock.advance(1)
    assert await world.refusal(token) == "The access token is not valid: wrong expiry."


async def test_a_token_of_a_session_that_is_revoked_is_void(world: World) -> None:
    await world.publish()
    await world.hear(SessionsRevoked(session_ids=("s1",), forget_at=world.later))

    assert await world.refusal(world.token()) == REVOKED
    assert await world.who(world.token(sid="s2"))


@pytest.mark.parametrize("role", ["TenantUser", "TenantAdmin", "CustomerSupport"])
async def test_tokens_of_an_earlier_epoch_of_their_tenant_are_void(world: World, role: str) -> None:
    await world.publish()
    await world.hear(TenantAccessChanged(tenant_id="t1", epoch=2, is_blocked=False))

    assert await world.refusal(world.token(role=role, epoch=1)) == REVOKED
    assert await world.who(world.token(role=role, epoch=2))
    assert await world.who(world.token(role=role, epoch=3))  # which has not been told here yet
    assert await world.who(world.token(role=role, epoch=0, tenant_id="t2"))


@pytest.mark.parametrize("forgotten", [False, True])
async def test_tokens_of_a_tenant_that_is_kept_out_are_of_no_use(world: World, forgotten: Any) -> None:
    await world.publish()
    forget_at = world.later if forgotten else None
    await world.hear(TenantAccessChanged(tenant_id="t1", epoch=1, is_blocked=True, forget_at=forget_at))

    assert await world.refusal(world.token(epoch=1)) == BLOCKED
    assert await world.who(world.token(tenant_id="t2"))


async def test_what_is_made_of_a_tenants_tokens_is_nothing_to_operators(world: World) -> None:
    await world.publish()
    await world.hear(TenantAccessChanged(tenant_id="t1", epoch=1, is_blocked=True))

    who = await world.who(world.token(role="CustomerSupport", tenant_id=None))

    assert (who.role, who.tenant_id) == (Role.CUSTOMER_SUPPORT, None)


async def test_a_token_that_was_given_for_an_api_key_is_as_good_as_the_key(world: World) -> None:
    await world.publish()
    token = world.token(sub=API_KEY.id, client_id=API_KEY.id)
    assert await world.refusal(token) == REVOKED
    await world.issue()
    assert (await world.who(token)).id == f"key:{API_KEY.id}"
    await world.issue(revision=2, secrets=[], forget_at=world.later)
    assert await world.refusal(token) == REVOKED


async def test_a_signing_key_is_known_as_soon_as_it_is_told(world: World) -> None:
    token = world.token()
    assert "key is not known" in await world.refusal(token)
    await world.publish()
    await world.clock.advance(1)
    assert await world.who(token)


async def test_a_signing_key_is_not_forgotten_because_others_come(world: World) -> None:
    other = ECKey.generate_key("P-256", {"kid": "k2"}, private=True)
    await world.publish()
    assert await world.who(world.token())
    await world.publish(other)
    await world.clock.advance(1)
    assert await world.who(world.token(other))
    assert await world.who(world.token())


async def test_a_signing_key_that_nothing_good_is_signed_with_any_more_is_not_used(world: World) -> None:
    await world.publish()
    await world.clock.advance(timedelta(days=1).total_seconds())

    assert "key is not known" in await world.refusal(world.token())


async def test_made_up_keys_do_not_make_a_service_ask_its_database_more_than_once_a_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[datetime] = []
    load = replica.signing_keys

    async def counted(connection: Any) -> Sequence[Any]:
        looks.append(world.clock.now())
        return await load(connection)

    monkeypatch.setattr(replica, "signing_keys", counted)
    unknown = [world.token(ECKey.generate_key("P-256", {"kid": f"x{number}"}, private=True)) for number in range(20)]

    for _ in range(3):
        await asyncio.gather(*(world.refusal(text) for text in unknown))
        await world.clock.advance(0.5)

    assert looks == [looks[0], looks[0] + timedelta(seconds=1)]
