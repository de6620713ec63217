"""Each ask that changes an environment, with the one that takes it back, through the kernel's barrier."""

from collections.abc import Callable
from functools import partial

import asyncpg
import pytest

from services.provisioning import handlers
from services.provisioning.drivers import NoEnvironmentError, ThrottledError
from services.provisioning.tests.support import ask, bodies
from services.provisioning.tests.world import PostgresWorld, undo_of
from shared.contracts import Ask
from shared.contracts.base import Fact, Refusal
from shared.contracts.provisioning import (
    ApiKeysUsed,
    DecisionRecorded,
    DeployProducts,
    DeprovisionEnvironment,
    EnvironmentMoved,
    EnvironmentMovedBack,
    EnvironmentProvisioned,
    EnvironmentReleased,
    EnvironmentRemoved,
    EnvironmentRethrottled,
    EnvironmentThrottled,
    ExportData,
    MailReported,
    MailSendingPaused,
    MailSendingResumed,
    MoveEnvironment,
    ReleaseEnvironment,
    RemoveEnvironment,
    RemoveProducts,
    ThrottleEnvironment,
)
from shared.testing.three_services import asked

CUT = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError)
NOTES = {"name": "notes", "version": "1.0"}


def move(tenant_id: str, connections: int | None, isolation: str = "pool") -> MoveEnvironment:
    return MoveEnvironment(tenant_id=tenant_id, isolation=isolation, connections=connections)


def deploy(tenant_id: str, **products: str) -> DeployProducts:
    wanted = [{"name": name, "version": version} for name, version in products.items()]
    return DeployProducts.model_validate({"tenant_id": tenant_id, "products": wanted})


def throttle(tenant_id: str, reason: str | None = "unpaid") -> ThrottleEnvironment:
    return ThrottleEnvironment(tenant_id=tenant_id, reason=reason)


def release(tenant_id: str) -> ReleaseEnvironment:
    return ReleaseEnvironment(tenant_id=tenant_id)


def export(tenant_id: str) -> ExportData:
    return ExportData(tenant_id=tenant_id)


def remove(tenant_id: str) -> RemoveEnvironment:
    return RemoveEnvironment(tenant_id=tenant_id)


CHANGES = (
    partial(move, connections=3),
    partial(deploy, tasks="2.0"),
    partial(throttle, reason="another"),
    release,
    export,
)
"""What makes each ask that can be taken back, for a tenant."""

Change = Callable[[str], Ask]


@pytest.fixture(params=CHANGES, ids=("move", "deploy", "throttle", "release", "export"))
def change(request: pytest.FixtureRequest) -> Change:
    making: Change = request.param
    return making


@pytest.fixture
async def found(world: PostgresWorld) -> PostgresWorld:
    """Three environments with something in them, the second one throttled."""
    await world.provision("a", "b", "c", connections=5, products=[NOTES])
    await world.application.sessions("a", "b", "c")
    await world.do(throttle("b", "was late"))
    return world


async def test_undoing_brings_back_exactly_what_was_found(found: PostgresWorld, change: Change) -> None:
    before = await found.snapshot()

    events = await found.do(change("b"), change("a"))
    answers = await found.undo(*events)

    assert await found.snapshot() == before
    assert sorted(answer.tenant_id for answer in answers) == ["a", "b"]
    for answer, event in zip(answers, events, strict=True):
        assert isinstance(answer, Fact)
        assert type(answer).answers is type(undo_of(event).message)


async def test_an_undo_that_comes_first_keeps_the_ask_from_having_any_effect(
    found: PostgresWorld, change: Change
) -> None:
    before = await found.snapshot()
    events = [asked(change("a")), asked(change("b"))]

    await found.undo(*events)
    assert await found.handle(*events) == []

    assert await found.snapshot() == before


async def test_an_undo_that_comes_twice_spoils_nothing_that_was_done_meanwhile(
    found: PostgresWorld, change: Change
) -> None:
    events = await found.do(change("a"), change("b"))
    await found.undo(*events)
    for tenant_id in ("a", "b"):
        await found.do(move(tenant_id, 7), deploy(tenant_id, crm="1.0"), export(tenant_id))
    await found.do(throttle("a", "later"), release("b"))
    before = await found.snapshot()

    await found.undo(*events)

    assert await found.snapshot() == before


@pytest.mark.parametrize(
    ("nothing", "meanwhile"),
    [
        (partial(move, connections=5), partial(move, connections=6)),
        (partial(deploy, notes="1.0"), deploy),
        (throttle, release),
        (release, throttle),
    ],
    ids=("move", "deploy", "throttle", "release"),
)
async def test_what_changed_nothing_takes_nothing_back_of_what_was_changed_meanwhile(
    found: PostgresWorld, nothing: Change, meanwhile: Change
) -> None:
    tenant_id = "b" if nothing is throttle else "a"
    events = await found.do(nothing(tenant_id))
    await found.do(meanwhile(tenant_id))
    before = await found.snapshot()

    await found.undo(*events)

    assert await found.snapshot() == before


async def test_what_was_rolled_back_here_and_not_at_the_driver_is_brought_back_there_too(
    found: PostgresWorld, change: Change
) -> None:
    before = await found.snapshot()
    events = [asked(change("a")), asked(change("b"))]

    await found.crash(*events)
    await found.undo(*events)

    assert await found.snapshot() == before


async def test_what_was_rolled_back_is_done_when_it_is_asked_for_again(found: PostgresWorld, change: Change) -> None:
    events = [asked(change("a")), asked(change("b"))]
    await found.crash(*events)

    answers = await found.handle(*events)

    assert not [answer for answer in answers if isinstance(answer, Refusal)]
    assert await are_in_agreement(found)


async def test_an_undo_that_was_rolled_back_is_made_when_it_is_asked_for_again(
    found: PostgresWorld, change: Change
) -> None:
    before = await found.snapshot()
    events = await found.do(change("a"), change("b"))

    await found.crash(*map(undo_of, events))
    await found.undo(*events)

    assert await found.snapshot() == before


async def are_in_agreement(world: PostgresWorld) -> bool:
    """Tell whether the driver's side is what the service's own tables say."""
    own = await world.pool.fetch(
        "SELECT tenant_id, connections, throttled_at IS NOT NULL, false FROM environment ORDER BY tenant_id"
    )
    return (await world.snapshot())["partition"] == [tuple(row) for row in own]


async def test_undoing_after_the_environment_is_gone_does_nothing(found: PostgresWorld, change: Change) -> None:
    events = await found.do(change("a"), change("b"))
    await found.do(remove("a"), remove("b"))
    exported = (await found.snapshot())["export"]

    await found.undo(*events)

    after = await found.snapshot()
    assert [row[1] for row in after["environment"]] == ["c"]
    assert [row[0] for row in after["deployment"]] == [row[0] for row in after["partition"]] == ["c"]
    assert after["export"] == exported  # no workflow turns back after a removal, so what was found is forgotten with it


async def test_what_is_not_there_is_refused_and_stops_no_other_ask_of_the_batch(
    found: PostgresWorld, change: Change
) -> None:
    answers = await found.handle(*(asked(change(tenant_id)) for tenant_id in ("b", "nobody", "a")))

    codes = {answer.tenant_id: getattr(answer, "code", None) for answer in answers}
    assert codes == {"b": None, "nobody": "unknown_environment", "a": None}
    assert await are_in_agreement(found)
    assert {row[0] for row in (await found.snapshot())["partition"]} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (partial(move, connections=3), partial(move, connections=4)),
        (partial(deploy, crm="1.0"), partial(deploy, notes="2.0", crm="2.0")),
        (partial(throttle, reason="first"), partial(throttle, reason="second")),
        (release, release),
        (partial(move, connections=5), partial(deploy, notes="1.0")),
    ],
    ids=("move", "deploy", "throttle", "release", "nothing"),
)
async def test_two_asks_of_one_batch_for_one_tenant_are_like_one_after_the_other(
    found: PostgresWorld, first: Change, second: Change
) -> None:
    before = await found.snapshot()

    events = await found.do(first("a"), first("b"), second("a"), second("b"))
    together = await found.snapshot()

    await found.undo(*reversed(events))
    assert await found.snapshot() == before
    await found.do(first("a"), first("b"))
    await found.do(second("a"), second("b"))
    assert await found.snapshot() == together


async def test_an_environment_gets_the_connections_that_it_is_provisioned_with(world: PostgresWorld) -> None:
    await world.provision("a", connections=2)
    await world.provision("b")
    await world.login("a")
    assert await world.limits() == [2]

    await world.login("b")
    assert sorted(await world.limits()) == [2, 10]


async def test_what_a_crashed_provisioning_has_left_is_finished(world: PostgresWorld) -> None:
    await world.crash(asked(ask("a", connections=2)))

    (answer,) = await world.work()

    assert isinstance(answer, EnvironmentProvisioned)
    assert await are_in_agreement(world)


async def test_moving_changes_the_connections_of_existing_logins_at_once_and_of_later_ones(
    world: PostgresWorld,
) -> None:
    await world.provision("a", connections=1)
    login = await world.login("a")
    first = await world.application.connect(login)
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await world.application.connect(login)

    events = await world.do(move("a", 2))

    await world.application.connect(login)
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await world.application.connect(login)
    await world.login("a")
    assert await world.limits() == [2, 2]
    assert await bodies(first) == []
    await world.undo(*events)
    assert await world.limits() == [1, 1]


async def test_moving_to_the_drivers_default_is_possible(world: PostgresWorld) -> None:
    await world.provision("a", connections=1)
    await world.login("a")

    await world.do(move("a", None))

    assert await world.limits() == [10]


async def test_moving_leaves_the_logins_of_others_alone(world: PostgresWorld) -> None:
    await world.provision("a", "b")
    await world.login("b")

    await world.do(move("a", 3))

    assert await world.limits() == [10]


async def test_an_isolation_that_cannot_be_made_is_refused_and_nothing_changes(world: PostgresWorld) -> None:
    await world.provision("a", connections=1)
    before = await world.snapshot()

    assert await world.refusal(move("a", 2, isolation="castle")) == "unsupported_isolation"
    assert await world.handle(asked(move("a", 1))) == [EnvironmentMoved(tenant_id="a", isolation="pool")]

    assert await world.snapshot() == before


async def test_throttling_ends_sessions_and_logins_at_once_and_keeps_the_rows(world: PostgresWorld) -> None:
    await world.provision("a", "b")
    a, b = await world.application.sessions("a", "b")
    unused = await world.login("a")

    event = asked(throttle("a"))
    assert await world.handle(event) == [EnvironmentThrottled(tenant_id="a")]

    with pytest.raises(CUT):
        await a.fetch("SELECT 1")
    with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
        await asyncpg.connect(unused.url)
    with pytest.raises(ThrottledError):
        await world.login("a")
    assert await bodies(b) == ["of b"]
    assert len(await world.application.logins()) == 1
    assert ("a", "app.note") in await world.application.residue()


async def test_a_session_with_open_locks_is_ended_all_the_same(world: PostgresWorld) -> None:
    await world.provision("a")
    (a,) = await world.application.sessions("a")
    await a.execute("BEGIN; LOCK TABLE app.note; UPDATE app.note SET body = 'held'")

    await world.do(throttle("a"))

    with pytest.raises(CUT):
        await a.fetch("SELECT 1")


async def test_releasing_lets_the_tenant_work_again_with_its_rows(world: PostgresWorld) -> None:
    await world.provision("a", connections=4)
    await world.application.sessions("a")
    await world.do(throttle("a"))

    event = asked(release("a"))
    assert await world.handle(event) == [EnvironmentReleased(tenant_id="a")]

    session = await world.application.connect(await world.login("a"))
    assert await bodies(session) == ["of a"]
    assert await world.limits() == [4]
    assert await world.undo(event) == [EnvironmentRethrottled(tenant_id="a")]
    with pytest.raises(CUT):
        await session.fetch("SELECT 1")


async def test_a_throttled_environment_keeps_its_first_reason_and_moment(world: PostgresWorld) -> None:
    await world.provision("a")
    await world.do(throttle("a", "unpaid"))
    since = world.clock.now()
    await world.clock.advance(60)

    await world.do(throttle("a", "off-boarding"))

    row = await world.pool.fetchrow("SELECT throttled_at, throttle_reason FROM environment")
    assert tuple(row or ()) == (since, "unpaid")


async def test_moving_a_throttled_environment_does_not_release_it(world: PostgresWorld) -> None:
    await world.provision("a")
    await world.do(throttle("a"))

    await world.do(move("a", 3))

    with pytest.raises(ThrottledError):
        await world.login("a")


async def test_exactly_the_products_asked_for_run(world: PostgresWorld) -> None:
    await world.provision("a", "b", products=[NOTES, {"name": "tasks", "version": "1.0"}])

    await world.do(deploy("a", notes="2.0", crm="1.0"))
    await world.do(deploy("b"))

    assert (await world.snapshot())["deployment"] == [("a", "crm", "1.0"), ("a", "notes", "2.0")]


async def test_moving_back_is_answered_for_whoever_never_was(world: PostgresWorld) -> None:
    assert await world.undo(asked(move("a", 1))) == [EnvironmentMovedBack(tenant_id="a")]
    assert not any((await world.snapshot()).values())


async def test_a_rolled_back_throttling_of_an_environment_that_is_gone_is_undone_without_complaint(
    world: PostgresWorld,
) -> None:
    await world.provision("a")
    event = asked(throttle("a"))
    await world.crash(event)
    await world.handle(asked(DeprovisionEnvironment(tenant_id="a")))

    await world.undo(event)

    assert not any((await world.snapshot()).values())


async def test_removing_counts_what_it_deletes_and_leaves_everything_of_others(world: PostgresWorld) -> None:
    await world.provision("a", "b", products=[NOTES])
    a, b = await world.application.sessions("a", "b")
    await a.execute("INSERT INTO app.note (body) SELECT 'more' FROM generate_series(1, 4)")

    answers = await world.handle(asked(remove("a")), asked(remove("nobody")), asked(remove("a")))

    nothing = {"environments": 0, "deployments": 0}
    assert answers == [
        EnvironmentRemoved(tenant_id="nobody", deleted=nothing),
        EnvironmentRemoved(tenant_id="a", deleted={"environments": 1, "deployments": 1, "app.note": 5}),
        EnvironmentRemoved(tenant_id="a", deleted=nothing),
    ]
    assert {tenant_id for tenant_id, _ in await world.application.residue()} == {"b"}
    assert await bodies(b) == ["of b"]
    assert [row["tenant_id"] for row in await world.pool.fetch("SELECT tenant_id FROM live_record")] == ["b", "b"]
    with pytest.raises(CUT):
        await a.fetch("SELECT 1")
    with pytest.raises(NoEnvironmentError):
        await world.login("a")


async def test_a_removal_that_was_rolled_back_is_told_with_the_same_counts_when_it_is_repeated(
    world: PostgresWorld,
) -> None:
    """Or the certificate of an off-boarding would depend on when a process died."""
    await world.provision("a", products=[NOTES])
    await world.application.sessions("a")
    event = asked(remove("a"))
    await world.crash(event)
    await world.crash(event)
    assert await world.application.residue() == []

    answers = await world.work()

    assert answers == [EnvironmentRemoved(tenant_id="a", deleted={"environments": 1, "deployments": 1, "app.note": 1})]
    assert await world.handle(event) == answers
    assert (await world.handle(asked(remove("a"))))[0] == EnvironmentRemoved(
        tenant_id="a", deleted={"environments": 0, "deployments": 0}
    )


async def test_a_throttled_environment_is_removed_like_any_other(world: PostgresWorld) -> None:
    await world.provision("a")
    await world.application.sessions("a")
    await world.do(throttle("a"))

    (answer,) = await world.handle(asked(remove("a")))

    assert answer == EnvironmentRemoved(tenant_id="a", deleted={"environments": 1, "deployments": 0, "app.note": 1})
    assert await world.application.residue() == []


async def test_everything_that_can_be_said_is_listed_and_said(world: PostgresWorld) -> None:
    provisionings = [asked(ask("a")), asked(ask("b", isolation="castle"))]
    changes = [asked(change("a")) for change in (*CHANGES, partial(move, connections=3, isolation="silo"))]
    refused = [asked(change("nobody")) for change in CHANGES]

    said = await world.handle(*provisionings, *changes, *refused)
    said += await world.undo(*changes)
    said += await world.handle(asked(RemoveProducts(tenant_id="a", products=())), asked(remove("a")))
    said += await world.undo(*provisionings)

    said += [event.message for event in world.said]

    # The use of API keys is said by the kernel, a decision where it is taken, at the API, and of mails in `test_mail`.
    elsewhere = {ApiKeysUsed, DecisionRecorded, MailReported, MailSendingPaused, MailSendingResumed}
    assert {type(message) for message in said} == set(handlers.PUBLISHES) - elsewhere
