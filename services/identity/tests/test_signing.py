"""Signing keys: one signs, the next is known long before it does, and nobody is refused while they change."""

import asyncio
from datetime import timedelta

import pytest
from cryptography.fernet import Fernet
from joserfc.jwk import KeySet

from services.identity.changes import Changes
from services.identity.signing import SigningKeys, Terms, vault
from services.identity.tests.house import ENCRYPTION_KEY, House, open_house
from shared.clock import ManualClock
from shared.contracts.identity import SigningKeyPublished
from shared.ids import TimeOrderedIds
from shared.testing import eventually

ANNA = "anna@example.org"
DAY = timedelta(days=1).total_seconds()


def keys_of(house: House, *secrets: str) -> SigningKeys:
    return SigningKeys(
        house.pool,
        Changes(house.service.kernel),
        clock=house.clock,
        ids=TimeOrderedIds(),
        vault=vault(secrets or (ENCRYPTION_KEY,)),
        terms=Terms(lifetime=timedelta(days=30), notice=timedelta(hours=24)),
    )


def published(house: House) -> list[str]:
    return [fact.key_id for fact in house.told("billing") if isinstance(fact, SigningKeyPublished)]


async def public_ids(house: House) -> set[str | None]:
    answer = await house.client.get("/.well-known/jwks.json")
    return {key.kid for key in KeySet.import_key_set(answer.json()).keys}


async def test_the_first_key_signs_at_once_and_is_told_to_everybody(house: House) -> None:
    keys = keys_of(house)

    active = await keys.active()

    assert published(house) == [active.kid]
    assert await public_ids(house) == {active.kid}


async def test_the_next_key_is_published_a_day_before_it_signs(house: House) -> None:
    keys = keys_of(house)
    first = (await keys.active()).kid
    await house.clock.advance(29 * DAY - 1)
    await keys.keep()
    assert await public_ids(house) == {first}

    await house.clock.advance(1)
    await keys.keep()

    (second,) = await public_ids(house) - {first}
    assert published(house) == [first, second]
    assert (await keys.active()).kid == first
    await house.clock.advance(DAY)
    assert (await keys.active()).kid == second


async def test_a_key_is_known_until_the_last_token_that_it_signed_is_dead(house: House) -> None:
    keys = keys_of(house)
    first = (await keys.active()).kid
    await house.clock.advance(30 * DAY)
    await keys.keep()
    assert first in await public_ids(house)

    await house.clock.advance(3600 + 60)
    await keys.keep()

    assert first not in await public_ids(house)


async def test_no_token_that_is_good_is_refused_while_keys_rotate(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})
    signing = keys_of(house)
    seen, tokens = set(), (await house.sign_in(ANNA))
    for _ in range(45):
        await house.clock.advance(DAY)
        await signing.keep()
        tokens = (await house.refresh(tokens["refresh_token"])).json()
        seen.add((await signing.active()).kid)
        await house.clock.advance(599)
        assert (await house.get("/v1/sessions", tokens["access_token"])).status_code == 200
    assert len(seen) == 2


async def test_a_key_that_may_have_leaked_is_replaced_in_half_a_minute_and_its_tokens_live_on(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})
    tokens = await house.sign_in(ANNA)
    (first,) = await public_ids(house)

    answer = await house.client.post("/v1/signing-keys/rotate", headers=house.administrator)

    assert [key["state"] for key in answer.json()["items"]] == ["next", "active"]
    second = answer.json()["items"][0]["keyId"]
    assert (await keys_of(house).active()).kid == first
    await house.clock.advance(30)
    fresh = (await house.refresh(tokens["refresh_token"])).json()
    assert (await keys_of(house).active()).kid == second != first
    for each in (tokens, fresh):
        assert (await house.get("/v1/sessions", each["access_token"])).status_code == 200


async def test_a_rotation_that_is_asked_for_twice_leaves_one_key_that_signs(house: House) -> None:
    signing = keys_of(house)
    await signing.active()
    for _ in range(3):
        await signing.rotate()
        await house.clock.advance(1)
    await house.clock.advance(60)

    (answer,) = [await house.client.get("/v1/signing-keys", headers=house.administrator)]

    assert [key["state"] for key in answer.json()["items"]].count("active") == 1


async def test_two_replicas_make_one_key(house: House) -> None:
    one, two = keys_of(house), keys_of(house)

    await one.keep()
    await two.keep()

    assert (await one.active()).kid == (await two.active()).kid
    assert len(await public_ids(house)) == 1


async def test_what_encrypts_private_keys_can_be_rotated(house: House) -> None:
    before = (await keys_of(house).active()).kid
    newer = Fernet.generate_key().decode()

    assert (await keys_of(house, newer, ENCRYPTION_KEY).active()).kid == before


async def test_keys_that_nobody_can_decrypt_are_replaced(house: House) -> None:
    before = (await keys_of(house).active()).kid

    after = (await keys_of(house, Fernet.generate_key().decode()).active()).kid

    assert after != before
    assert {before, after} <= await public_ids(house)


async def test_every_key_is_told_again_soon_after_the_start_and_hourly(house: House) -> None:
    first = (await keys_of(house).active()).kid
    running = asyncio.create_task(keys_of(house).run())
    told = []
    for _ in range(62):
        await eventually(lambda: bool(house.clock._sleepers))
        told.append(len(published(house)))
        await house.clock.advance(60)
    running.cancel()

    assert set(published(house)) == {first}
    assert told == [1] + [2] * 60 + [3]


@pytest.mark.parametrize("broken", ["", "short", "x" * 44])
async def test_a_secret_that_is_none_is_refused_at_the_start(broken: str, house: House) -> None:
    with pytest.raises(ValueError, match="URL-safe base64"):
        async with open_house(house.url, ManualClock(), TENURE_IDENTITY_ENCRYPTION_KEYS=broken):
            pass
