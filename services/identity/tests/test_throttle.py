"""Guessing passwords: from one place, from many, at one account and at all of them."""

import asyncio
from datetime import timedelta

import httpx2
import pytest

from services.identity import throttle
from services.identity.queries import throttle as queries
from services.identity.signin import Doorkeeper
from services.identity.tests.house import PASSWORD, Challenge, House
from services.identity.tests.realms import plain_realms
from services.identity.throttle import Attempt
from shared.http import Problem
from shared.postgres import transaction

ANNA = "anna@example.org"


async def attempt(house: House, email: str, password: str, *, address: str = "192.0.2.1") -> bool | int:
    """Return whether somebody got in, or after how many seconds to come back."""
    try:
        doorkeeper = Doorkeeper(house.pool, plain_realms(house.pool, clock=house.clock), clock=house.clock)
        known = await doorkeeper.recognise(email, password, address=address)
    except Problem as problem:
        return int(problem.headers["Retry-After"])
    return known is not None


async def test_who_mistypes_waits_a_little_longer_each_time(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})
    assert [await attempt(house, ANNA, "wrong") for _ in range(6)] == [False] * 6

    waits = []
    for _ in range(10):
        wait = await attempt(house, ANNA, "wrong")
        assert isinstance(wait, int)
        waits.append(wait)
        await house.clock.advance(wait)
        assert await attempt(house, ANNA, "wrong") is False

    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]


async def test_the_right_password_does_not_help_while_one_has_to_wait_and_does_afterwards(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})
    for _ in range(6):
        await attempt(house, ANNA, "wrong")

    assert await attempt(house, ANNA, PASSWORD) == 5
    await house.clock.advance(5)
    assert await attempt(house, ANNA, PASSWORD) is True
    assert [await attempt(house, ANNA, "wrong") for _ in range(6)] == [False] * 6


async def test_a_guesser_elsewhere_does_not_lock_the_owner_out(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})
    for _ in range(20):
        await attempt(house, ANNA, "wrong", address="203.0.113.9")

    assert await attempt(house, ANNA, PASSWORD, address="192.0.2.1") is True


async def test_a_guesser_from_many_places_is_slowed_down_at_the_account(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})

    outcomes = [await attempt(house, ANNA, "wrong", address=f"198.51.100.{n}") for n in range(80)]

    assert sum(outcome is False for outcome in outcomes) == throttle.FREE["account"] + 1


async def test_credential_stuffing_from_one_place_is_slowed_down_at_the_address(house: House) -> None:
    """A list of addresses and passwords stolen elsewhere, a thousand of them, each tried once; two of them fit."""
    for number in (700, 900):
        await house.user(f"user{number}@example.org", {"t1": "TenantUser"})

    outcomes = []
    for number in range(1000):
        outcomes.append(await attempt(house, f"user{number}@example.org", PASSWORD, address="203.0.113.9"))
        await house.clock.advance(1)

    assert not any(outcome is True for outcome in outcomes)
    let_through = sum(outcome is False for outcome in outcomes)
    assert let_through < throttle.FREE["address"] + 12
    # The users themselves get in meanwhile.
    assert await attempt(house, "user900@example.org", PASSWORD) is True


async def test_a_thousand_attempts_at_once_are_a_thousand(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})

    outcomes = await asyncio.gather(*(attempt(house, ANNA, "wrong") for _ in range(100)))

    assert sum(outcome is False for outcome in outcomes) == throttle.FREE["pair"] + 1


async def test_nobody_learns_whether_there_is_such_a_user(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})

    for email in (ANNA, "nobody@example.org"):
        assert [await attempt(house, email, "wrong", address=email) for _ in range(7)] == [False] * 6 + [5]


async def test_the_page_says_when_to_come_back(house: House) -> None:
    await house.user(ANNA, {"t1": "TenantAdmin"})
    form = await house.form(Challenge.new())
    answer = httpx2.Response(0)
    for _ in range(7):
        answer = await house.post("/oauth/authorize", {**form, "email": ANNA, "password": "wrong"})

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert "Try again in 5 seconds" in answer.text


async def test_attempts_are_forgotten_after_an_hour(house: House) -> None:
    subjects = Attempt("anna", "192.0.2.1")
    for _ in range(5):
        async with transaction(house.pool) as connection:
            await throttle.admit(connection, subjects, now=house.clock.now())
    await house.clock.advance(throttle.MEMORY.total_seconds() + 1)

    for _ in range(6):
        async with transaction(house.pool) as connection:
            await throttle.admit(connection, subjects, now=house.clock.now())
    with pytest.raises(Problem):
        async with transaction(house.pool) as connection:
            await throttle.admit(connection, subjects, now=house.clock.now())


async def test_what_is_long_over_is_deleted(house: House) -> None:
    async with transaction(house.pool) as connection:
        await throttle.admit(connection, Attempt("anna", "192.0.2.1"), now=house.clock.now())
        await queries.sweep(connection, before=house.clock.now())
        assert await connection.fetchval("SELECT count(*) FROM throttle") == 3
        await queries.sweep(connection, before=house.clock.now() + timedelta(seconds=1))
        assert await connection.fetchval("SELECT count(*) FROM throttle") == 0
