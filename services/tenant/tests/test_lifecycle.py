import asyncpg
import pytest

from services.tenant.lifecycle import State, allowed
from shared.postgres import Pool

PAIRS = [(source, target) for source in State for target in State if source is not target]


async def add_tenant(pool: Pool, state: str) -> None:
    await pool.execute(
        """
        INSERT INTO tenant (tenant_id, customer_name, name_key, tier, state, email, created_at, updated_at)
        VALUES ('t1', 'Acme', 'acme', 'free', $1, 'ada@example.com', now(), now())
        """,
        state,
    )


async def set_state(pool: Pool, state: str) -> None:
    await pool.execute("UPDATE tenant SET state = $1", state)


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
