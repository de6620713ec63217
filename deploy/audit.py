"""The residue audit: does what seven databases hold of each tenant agree with how its onboarding ended?

Every database has a view ``live_record (tenant_id, place)`` of what it holds of tenants. A tenant whose workflow
completed has something in every one of them, one whose workflow was undone has nothing in any.

    make audit      of the installation that the environment or TENURE_DATA_DIR names; fails if they do not agree
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from deploy.databases import APPLICATION
from deploy.operator import MissingLoginsError, database_urls
from shared.contracts import SERVICES

_CONNECT_SECONDS = 10.0
_VIEWS = dict.fromkeys(SERVICES, "live_record") | {APPLICATION: "tenancy.live_record"}
_ENDED = """
    SELECT DISTINCT ON (tenant_id) tenant_id, status FROM workflow ORDER BY tenant_id, created_at DESC, id DESC
"""
_UNFINISHED = {"running", "compensating", "needs_attention", "abandoned"}


@dataclass(frozen=True, order=True)
class Finding:
    """A database that does not agree with how a tenant's onboarding ended."""

    database: str
    tenant_id: str
    problem: str

    def __str__(self) -> str:
        """Return it as one line for an operator."""
        return f"{self.database}: tenant {self.tenant_id or '(nobody)'}: {self.problem}"


@dataclass(frozen=True)
class Audit:
    """What an audit saw.

    Attributes:
        alive: how many tenants are there with everything that belongs to them.
        gone: how many were undone and left nothing.
        unfinished: how many still have a workflow to finish; nothing is said about those.
    """

    alive: int
    gone: int
    unfinished: int
    findings: tuple[Finding, ...]


async def audit(urls: Mapping[str, str]) -> Audit:
    """Compare all databases with the outcome of every onboarding; work that is under way meanwhile does no harm.

    Args:
        urls: of each service's database and the application's, by name, as a login that may read the view.
    """
    first = await _look(urls)
    if not first.findings:
        return first
    second = await _look(urls)
    return Audit(
        second.alive,
        second.gone,
        second.unfinished,
        tuple(finding for finding in second.findings if finding in first.findings),
    )


async def _look(urls: Mapping[str, str]) -> Audit:
    names = list(_VIEWS)
    held = dict(zip(names, await asyncio.gather(*(_places(urls[name], _VIEWS[name]) for name in names)), strict=True))
    ended = {row["tenant_id"]: row["status"] for row in await _fetch(urls["onboarding"], _ENDED)}
    alive = {tenant_id for tenant_id, status in ended.items() if status == "completed"}
    unfinished = {tenant_id for tenant_id, status in ended.items() if status in _UNFINISHED}
    findings = [
        Finding(name, tenant_id, f"left over: {', '.join(places)}")
        for name, tenants in held.items()
        for tenant_id, places in tenants.items()
        if tenant_id not in alive | unfinished
    ]
    findings += [
        Finding(name, tenant_id, "completed, but nothing of it is here")
        for name, tenants in held.items()
        for tenant_id in alive - tenants.keys()
    ]
    gone = len(ended) - len(alive) - len(unfinished)
    return Audit(len(alive), gone, len(unfinished), tuple(sorted(findings)))


async def _places(url: str, view: str) -> dict[str, list[str]]:
    rows = await _fetch(
        url,
        f"SELECT tenant_id, array_agg(DISTINCT place ORDER BY place) AS places FROM {view} GROUP BY 1",  # noqa: S608
    )
    return {row["tenant_id"]: row["places"] for row in rows}


async def _fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


def main() -> int:
    """Audit, say what was found, and return the exit code: 1 for findings, 2 for a database that cannot be read."""
    try:
        found = asyncio.run(audit(database_urls()))
    except (MissingLoginsError, OSError, asyncpg.PostgresError) as error:
        print(f"The audit could not look: {error}")
        return 2
    for finding in found.findings:
        print(finding)
    print(
        f"{found.alive} tenants complete, {found.gone} undone without residue, "
        f"{found.unfinished} unfinished, {len(found.findings)} findings."
    )
    return 1 if found.findings else 0


if __name__ == "__main__":
    sys.exit(main())
