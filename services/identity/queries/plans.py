"""SQL about what the tenants' tiers let them ask of applications."""

from collections.abc import Mapping, Sequence

from shared.contracts.tenant import UsagePlan
from shared.postgres import Connection

_COLUMNS = """
    jsonb_to_recordset($1) AS told (
        tenant_id text, version bigint, tier text, requests_per_second integer, requests_per_day bigint
    )
"""

_NEWER_STAYS = """
    ON CONFLICT (tenant_id) DO UPDATE
        SET version = excluded.version, tier = excluded.tier,
            requests_per_second = excluded.requests_per_second, requests_per_day = excluded.requests_per_day
        WHERE tenant_plan.version < excluded.version
"""


async def put_plans(connection: Connection, plans: Mapping[str, UsagePlan]) -> None:
    """Let these be the tenants' plans, unless a newer one is known."""
    await connection.execute(
        f"""
        INSERT INTO tenant_plan (tenant_id, version, tier, requests_per_second, requests_per_day)
        SELECT told.* FROM {_COLUMNS} ORDER BY tenant_id
        {_NEWER_STAYS}
        """,  # noqa: S608 - text of our own
        _rows(plans),
    )


async def put_plans_of_members(connection: Connection, plans: Mapping[str, UsagePlan]) -> None:
    """Do the same for those of the tenants, whose members are locked, that have members: others are gone."""
    await connection.execute(
        f"""
        INSERT INTO tenant_plan (tenant_id, version, tier, requests_per_second, requests_per_day)
        SELECT told.* FROM {_COLUMNS}
        WHERE EXISTS (SELECT FROM membership WHERE membership.tenant_id = told.tenant_id) ORDER BY tenant_id
        {_NEWER_STAYS}
        """,  # noqa: S608 - text of our own
        _rows(plans),
    )


def _rows(plans: Mapping[str, UsagePlan]) -> list[dict[str, object]]:
    return [{"tenant_id": tenant_id} | plan.model_dump() for tenant_id, plan in plans.items()]


async def delete_plans(connection: Connection, tenant_ids: Sequence[str]) -> None:
    """Forget the tenants' plans and what they have used."""
    await connection.execute(
        """
        WITH locked AS (
            SELECT tenant_id FROM tenant_plan WHERE tenant_id = ANY ($1::text[]) ORDER BY tenant_id FOR UPDATE
        )
        DELETE FROM tenant_plan USING locked WHERE tenant_plan.tenant_id = locked.tenant_id
        """,
        tenant_ids,
    )
