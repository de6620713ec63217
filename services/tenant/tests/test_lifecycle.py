import asyncpg
import pytest

from services.tenant.lifecycle import OFFBOARD, REACTIVATE, SUSPEND, TRANSITIONS, State, Transition, allowed
from shared.postgres import Pool

PAIRS = [(source, target) for source in State for target in State if source is not target]


def email_in(state: str) -> str | None:
    return None if state == State.ARCHIVED else "ada@example.com"


async def add_tenant(pool: Pool, state: str) -> None:
    await pool.execute(
        """
        INSERT INTO tenant (tenant_id, customer_name, name_key, tier, state, email, created_at, updated_at)
        VALUES ('t1', 'Acme', 'acme', 'free', $1, $2, now(), now())
        """,
        state,
        email_in(state),
    )


async def set_state(pool: Pool, state: str) -> None:
    await pool.execute("UPDATE tenant SET state = $1, email = $2", state, email_in(state))


async def test_the_schema_lets_through_exactly_the_transitions_of_the_lifecycle(pool: Pool) -> None:
    for source, target in PAIRS:
        await pool.execute("DELETE FROM tenant")
        await add_tenant(pool, source)
        if allowed(source, target):
            await set_state(pool, target)
            assert await pool.fetchval("SELECT state FROM tenant") == target
        else:
            with pytest.raises(asyncpg.CheckViolationError, match=f"no way leads from {source} to {target}"):
                await set_state(pool, target)


async def test_the_schema_knows_no_state_that_the_lifecycle_does_not(pool: Pool) -> None:
    for state in State:
        await add_tenant(pool, state)
        await pool.execute("DELETE FROM tenant")
    with pytest.raises(asyncpg.CheckViolationError):
        await add_tenant(pool, "dormant")


@pytest.mark.parametrize("state", State)
def test_every_state_but_the_first_can_be_reached(state: State) -> None:
    assert state is State.REGISTERED or any(allowed(source, state) for source in State)


def test_an_archived_tenant_stays_archived() -> None:
    assert not any(allowed(State.ARCHIVED, target) for target in State)


@pytest.mark.parametrize("transition", [SUSPEND, REACTIVATE, OFFBOARD])
def test_a_change_of_state_that_can_be_taken_back_has_a_way_back_to_wherever_it_came_from(
    transition: Transition,
) -> None:
    assert all(allowed(transition.target, source) for source in transition.sources)


def test_only_an_offboarding_may_find_the_tenant_where_it_leads() -> None:
    assert [transition for transition in TRANSITIONS if transition.may_be_there] == [OFFBOARD]
