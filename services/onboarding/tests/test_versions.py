"""Deployments that change steps: a running workflow finishes on the definition that it started with."""

from collections.abc import AsyncIterator
from dataclasses import fields
from uuid import UUID

import pytest

from services.onboarding.definition import Context, Definition, step
from services.onboarding.engine import Engine
from services.onboarding.lifecycles import CURRENT, DEFINITIONS, EARLIER
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.operators import Operators
from services.onboarding.saga import Cancel
from services.onboarding.storage import plan_rows
from services.onboarding.tests.catalogue import answers
from services.onboarding.tests.support import IDS, Desk, hear, open_desk, open_replica, publish_catalog, stored, told
from services.onboarding.versions import Versions
from services.onboarding.workflow import PlannedStep, Status
from shared.access import ADMINISTRATOR
from shared.clock import SystemClock
from shared.contracts import billing, identity, tenant
from shared.contracts.base import Message
from shared.http import Problem
from shared.messaging.subscriptions import NewerCodeNeededError
from shared.postgres import Pool
from shared.service import NotReadyError
from shared.testing.memory_bus import MemoryBroker

OLD_FIELDS = {"name", "service", "after", "ask", "undo", "timeout", "attempts", "backoff"}
"""What the first release knows of a planned step."""


def _suspend(context: Context) -> Message:
    return tenant.SuspendTenant(tenant_id=context.tenant_id, reason="by version 2")


def _pause(context: Context) -> Message:
    return billing.PauseBilling(tenant_id=context.tenant_id, reason="by version 2")


def _block(context: Context) -> Message:
    return identity.BlockSignIn(tenant_id=context.tenant_id, reason="by version 2")


SECOND = Definition(
    kind="suspend",
    version=2,
    steps=(
        step("pause-billing", ask=_pause, undo=billing.UnpauseBilling),
        step("suspend-tenant", ask=_suspend, undo=tenant.LiftSuspension, after=("pause-billing",)),
        step("lock-doors", ask=_block, undo=identity.UnblockSignIn, after=("suspend-tenant",)),
    ),
)
"""A suspension of a later release: the steps have another order, one has another name and one is gone."""

BOTH = {**DEFINITIONS, ("suspend", 2): SECOND}
ONLY_NEW = {key: each for key, each in BOTH.items() if key != ("suspend", 1)}


@pytest.fixture
async def tenant_id(desk: Desk) -> str:
    return await desk.tenant("Acme")


@pytest.fixture
async def suspension(desk: Desk, tenant_id: str) -> UUID:
    """A suspension that was started by the release before, and has come half the way."""
    workflow_id = await desk.begin(SUSPEND, tenant_id, suspendedFor="operator", reason="They do not pay.")
    await desk.go_on(workflow_id, until=["block-sign-in", "throttle-environment", "pause-billing"])
    return workflow_id


@pytest.fixture
async def later(database_url: str, broker: MemoryBroker) -> AsyncIterator[Desk]:
    """A replica of the later release, which has both versions."""
    async with open_desk(database_url, broker, definitions=BOTH) as desk:
        yield desk


async def test_a_running_workflow_finishes_on_the_version_that_it_started_with(
    suspension: UUID, later: Desk, pool: Pool
) -> None:
    before = await stored(pool, suspension)
    await later.go_on(suspension)

    after = await stored(pool, suspension)
    assert (after.workflow.status, after.version) == (Status.COMPLETED, 1)
    assert after.workflow.plan == before.workflow.plan == SUSPEND.plan
    assert set(after.workflow.steps) == set(SUSPEND.steps)


async def test_it_is_undone_by_that_version_too(suspension: UUID, later: Desk, pool: Pool) -> None:
    await pool.execute("DELETE FROM outbox")

    await later.go_on(suspension, refuse="throttle-environment")

    assert (await stored(pool, suspension)).workflow.status is Status.COMPENSATED
    rows = await pool.fetch(
        "SELECT routing_key FROM outbox WHERE exchange = 'tenure.onboarding' AND routing_key NOT LIKE 'onboarding.%'"
    )
    assert sorted(row["routing_key"] for row in rows) == [
        "billing.unpause_billing.v1",
        "identity.unblock_sign_in.v1",
        "tenant.lift_suspension.v1",
    ]


async def test_what_starts_after_the_deployment_runs_the_new_version(suspension: UUID, later: Desk, pool: Pool) -> None:
    other = await later.tenant("Bolt")
    workflow_id = await later.begin(SECOND, other, suspendedFor="operator")
    asked = await hear(pool, told(workflow_id, "pause-billing", answers(other)["pause-billing"]), engine=later.engine)

    assert [event.message for event in asked] == [tenant.SuspendTenant(tenant_id=other, reason="by version 2")]
    new, old = await stored(pool, workflow_id), await stored(pool, suspension)
    assert ((new.version, tuple(new.workflow.steps)), old.version) == ((2, tuple(SECOND.steps)), 1)


async def test_a_message_is_made_by_the_version_of_its_workflow(
    suspension: UUID, later: Desk, pool: Pool, tenant_id: str
) -> None:
    """Both versions have a step of this name, which asks something else in each."""
    await pool.execute("UPDATE step SET status = 'pending', may_have_effect = false WHERE name = 'pause-billing'")

    asked = await hear(
        pool, told(suspension, "block-sign-in", answers(tenant_id)["block-sign-in"]), engine=later.engine
    )

    assert [event.message for event in asked] == [billing.PauseBilling(tenant_id=tenant_id, reason="They do not pay.")]


# What this release has changed

BEFORE = {
    key: each for key, each in DEFINITIONS.items() if key[0] not in {one.name for one in EARLIER} or each in EARLIER
}
"""The definitions of the release before."""

OLD = Engine(clock=SystemClock(), ids=IDS, definitions=BEFORE)
"""A replica of the release before."""

ACCOUNT = {"customerName": "Acme", "expiration": "2099-12-31", "adminEmails": ["ada@example.com"]}


@pytest.mark.parametrize("earlier", EARLIER, ids=lambda each: f"{each.name}-{each.version}")
@pytest.mark.parametrize("is_refused", [False, True], ids=["done", "undone"])
async def test_what_the_release_before_has_started_ends_as_it_was_planned(
    desk: Desk, pool: Pool, tenant_id: str, earlier: Definition, *, is_refused: bool
) -> None:
    last = earlier.plan[-1].name
    workflow_id = await desk.begin(earlier, tenant_id, **ACCOUNT, products=[])

    await desk.go_on(workflow_id, refuse=last if is_refused else None)

    ended = await stored(pool, workflow_id)
    assert ended.workflow.status is (Status.COMPENSATED if is_refused else Status.COMPLETED)
    assert (ended.version, ended.workflow.plan) == (earlier.version, earlier.plan)


def test_every_earlier_version_is_followed_by_a_later_one() -> None:
    current = {definition.name: definition.version for definition in CURRENT}

    assert {each.name: each.version + 1 for each in EARLIER} == {each.name: current[each.name] for each in EARLIER}


async def test_what_code_of_the_release_before_cannot_go_on_with_is_left_to_newer_code(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    """While several replicas are replaced one after the other, the old ones hear of the workflows of the new ones."""
    workflow_id = await desk.begin(CHANGE_PRODUCTS, tenant_id, products=[])
    answer = told(workflow_id, "change-products", answers(tenant_id)["change-products"])
    before = await stored(pool, workflow_id)

    with pytest.raises(NewerCodeNeededError, match=r"runs change-products version 2$"):
        await hear(pool, answer, engine=OLD)

    assert await stored(pool, workflow_id) == before
    await hear(pool, answer, engine=desk.engine)
    await desk.go_on(workflow_id)
    assert (await stored(pool, workflow_id)).workflow.status is Status.COMPLETED


async def test_old_code_tells_an_operator_to_come_back_for_what_a_newer_release_has_begun(
    desk: Desk, pool: Pool, tenant_id: str
) -> None:
    workflow_id = await desk.begin(CHANGE_PRODUCTS, tenant_id, products=[])
    before = await stored(pool, workflow_id)

    with pytest.raises(Problem) as refused:
        await Operators(desk.kernel, OLD, desk.watch).act(workflow_id, Cancel("somebody", "It is slow."), ADMINISTRATOR)

    assert (refused.value.status, refused.value.code) == (503, "newer_code_needed")
    assert refused.value.headers["Retry-After"] == "60"
    assert await stored(pool, workflow_id) == before


# Readiness


async def test_code_without_the_version_of_a_running_workflow_is_not_ready_and_names_what_is_missing(
    suspension: UUID, later: Desk, pool: Pool
) -> None:
    without = Versions(later.pool, Engine(clock=SystemClock(), ids=IDS, definitions=ONLY_NEW))

    with pytest.raises(NotReadyError) as refused:
        await without.check()

    for name in SUSPEND.steps:
        assert f"suspend version 1, {name}" in str(refused.value)
    assert "onboard" not in str(refused.value)
    await later.go_on(suspension)
    await without.check()
    assert (await stored(pool, suspension)).workflow.status is Status.COMPLETED


@pytest.mark.usefixtures("suspension")
async def test_a_version_that_has_lost_a_step_is_not_the_same_version(later: Desk) -> None:
    lacking = Definition(kind="suspend", version=1, steps=tuple(SUSPEND.steps.values())[:-1])
    definitions = {**DEFINITIONS, ("suspend", 1): lacking}

    with pytest.raises(NotReadyError, match=r"does not have: suspend version 1, pause-billing$"):
        await Versions(later.pool, Engine(clock=SystemClock(), ids=IDS, definitions=definitions)).check()


@pytest.mark.usefixtures("suspension")
async def test_code_with_both_versions_is_ready(later: Desk) -> None:
    await later.begin(SECOND, await later.tenant("Bolt"), suspendedFor="operator")

    await Versions(later.pool, later.engine).check()


async def test_what_joins_is_known_by_its_name_not_by_its_kind(desk: Desk, tenant_id: str, pool: Pool) -> None:
    joined = (await desk.submit("Acme", adminEmails=["bea@example.com"])).workflow
    lacking = {key: each for key, each in DEFINITIONS.items() if each.name != "join"}

    assert (joined["kind"], joined["tenantId"]) == ("onboard", tenant_id)
    with pytest.raises(NotReadyError, match=r"does not have: join version 1, add-administrators$"):
        await Versions(pool, Engine(clock=SystemClock(), ids=IDS, definitions=lacking)).check()


async def test_a_workflow_of_the_release_before_goes_by_its_kind(desk: Desk, pool: Pool) -> None:
    workflow_id = await desk.start("Acme")
    await pool.execute("UPDATE workflow SET definition = NULL, deadline_at = NULL")

    await Versions(desk.pool, desk.engine).check()
    await desk.go_on(workflow_id)

    assert (await stored(pool, workflow_id)).workflow.status is Status.COMPLETED


async def test_it_looks_until_everything_is_known_and_then_no_more(suspension: UUID, later: Desk, pool: Pool) -> None:
    versions = Versions(later.pool, Engine(clock=SystemClock(), ids=IDS, definitions=ONLY_NEW))
    with pytest.raises(NotReadyError):
        await versions.check()
    await pool.execute("UPDATE workflow SET status = 'completed' WHERE id = $1", suspension)
    await versions.check()
    later.pool.terminate()

    await versions.check()


async def test_a_replica_whose_code_lacks_a_step_does_not_say_that_it_is_ready(
    suspension: UUID, database_url: str, broker: MemoryBroker, pool: Pool
) -> None:
    await publish_catalog(pool)
    await pool.execute("UPDATE workflow SET version = 3 WHERE id = $1", suspension)

    async with open_replica(database_url, broker) as replica:
        answer = await replica.client.get("/readyz")

    assert answer.status_code == 503
    assert "checks/definitions" in [error["pointer"] for error in answer.json()["errors"]]


# Plans as they are stored


@pytest.mark.parametrize("definition", CURRENT, ids=lambda each: each.name)
def test_a_plan_is_stored_without_what_it_does_not_use(definition: Definition) -> None:
    rows = plan_rows(definition.plan)

    assert [row["name"] for row in rows if set(row) != OLD_FIELDS] == [
        each.name for each in definition.plan if each.pivot
    ]


def test_code_of_the_first_release_can_read_the_plan_of_an_onboarding() -> None:
    assert {field.name for field in fields(PlannedStep)} >= OLD_FIELDS
    assert all(set(row) == OLD_FIELDS for row in plan_rows(ONBOARD.plan))


async def test_a_plan_is_read_as_it_was_stored(desk: Desk, pool: Pool, tenant_id: str) -> None:
    request = {"graceDays": 3, "export": False}

    workflow_id = await desk.begin(OFFBOARD, tenant_id, **request)

    assert (await stored(pool, workflow_id)).workflow.plan == OFFBOARD.plan_for(request)
