"""The residue audit: does what seven databases hold of each tenant agree with how its workflows ended?

Every database has a view ``live_record (tenant_id, place)`` of what it holds of tenants. A tenant that was onboarded
and not off-boarded has something in every one of them; any other has nothing in any. Every service's database has a
view ``audited_fact (tenant_id, fact, value)`` of what it states about them, so that two that speak of the same thing
can be compared: above all, nobody is charged who is not active. What is of one product of a tenant, its licence or its
environment, is called ``<place>:<product>`` or ``<fact>:<product>``.

    make audit      of the installation that the environment or TENURE_DATA_DIR names; fails if they do not agree
"""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import asyncpg
import orjson

from deploy.databases import APPLICATION
from deploy.operator import MissingLoginsError, database_urls
from shared.contracts import SERVICES

_CONNECT_SECONDS = 10.0
_PAUSE_SECONDS = 2.0
_VIEWS = dict.fromkeys(SERVICES, "live_record") | {APPLICATION: "tenancy.live_record"}
_KERNEL = """
    UNION ALL SELECT subject, 'before-image' FROM operation WHERE before IS NOT NULL
    UNION ALL SELECT tenant_id, 'access_tenant' FROM access_tenant WHERE forget_at IS NULL
    UNION ALL SELECT tenant_id, 'access_api_key' FROM access_api_key WHERE tenant_id IS NOT NULL AND forget_at IS NULL
"""  # in the kernel's tables, which every service has
_SINGLE = ["account", "customer", "environment", "subscription", "tenancy.tenant", "tenant", "tracked_tenant"]
"""Places where a tenant has one thing at most, and each of its products another one."""
_STATING = ("tenant", "identity", "billing", "metrics", "provisioning")

Facts = Mapping[str, str | None]


@dataclass(frozen=True, order=True)
class Finding:
    """A database that does not agree with how a tenant's workflows ended, or with another one."""

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
        gone: how many were undone or off-boarded and left nothing.
        unfinished: how many still have a workflow to finish, or one that was abandoned; nothing is said about those.
    """

    alive: int
    gone: int
    unfinished: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Held:
    """What a database holds of a tenant.

    Attributes:
        places: where it has something.
        doubles: where it has more than the one that there may be.
    """

    places: list[str]
    doubles: list[str]


_NOTHING = _Held([], [])


async def audit(urls: Mapping[str, str]) -> Audit:
    """Compare all databases with the outcome of every workflow; work that is under way meanwhile does no harm.

    Args:
        urls: of each service's database and the application's, by name, as a login that may read the views.
    """
    first = await _look(urls)
    if not first.findings:
        return first
    await asyncio.sleep(_PAUSE_SECONDS)  # what follows from an end may take a moment to arrive
    second = await _look(urls)
    return Audit(
        second.alive,
        second.gone,
        second.unfinished,
        tuple(finding for finding in second.findings if finding in first.findings),
    )


async def _look(urls: Mapping[str, str]) -> Audit:
    held = dict(zip(_VIEWS, await asyncio.gather(*(_held(urls[name], _VIEWS[name]) for name in _VIEWS)), strict=True))
    stated = dict(zip(_STATING, await asyncio.gather(*(_stated(urls[name]) for name in _STATING)), strict=True))
    rows = await _fetch(urls["onboarding"], "SELECT tenant_id, outcome FROM tenant_outcome")
    outcomes = {row["tenant_id"]: row["outcome"] for row in rows}
    alive = {tenant_id for tenant_id, outcome in outcomes.items() if outcome == "alive"}
    unfinished = {tenant_id for tenant_id, outcome in outcomes.items() if outcome == "unfinished"}
    findings = [
        finding
        for name, tenants in held.items()
        for finding in (*_left_over(name, tenants, alive | unfinished), *_incomplete(name, tenants, alive))
    ]
    for name, tenants in held.items():
        findings += _dropped(
            name, {tenant_id: tenants.get(tenant_id, _NOTHING) for tenant_id in alive}, stated["tenant"]
        )
    for tenant_id in alive:
        findings += _contradictions(tenant_id, {name: facts.get(tenant_id, {}) for name, facts in stated.items()})
    return Audit(len(alive), len(outcomes) - len(alive) - len(unfinished), len(unfinished), tuple(sorted(findings)))


def _left_over(name: str, tenants: Mapping[str, _Held], entitled: set[str]) -> Iterable[Finding]:
    for tenant_id, held in tenants.items():
        if tenant_id not in entitled:
            yield Finding(name, tenant_id, f"left over: {', '.join(held.places)}")


def _incomplete(name: str, tenants: Mapping[str, _Held], alive: set[str]) -> Iterable[Finding]:
    for tenant_id in alive:
        held = tenants.get(tenant_id, _NOTHING)
        if not held.places:
            yield Finding(name, tenant_id, "completed, but nothing of it is here")
        if held.doubles:
            yield Finding(name, tenant_id, f"more than one: {', '.join(held.doubles)}")


def _dropped(name: str, tenants: Mapping[str, _Held], records: Mapping[str, Facts]) -> Iterable[Finding]:
    for tenant_id, held in tenants.items():
        if left := of_dropped_products(held.places, records.get(tenant_id, {})):
            yield Finding(name, tenant_id, f"left over of products that it has no more: {', '.join(left)}")


def of_dropped_products(places: Iterable[str], record: Facts) -> list[str]:
    """Return those places that are of an environment that no product of the tenant has, as the tenant service says."""
    return [each for each in places if ":" in each and f"environment:{each.partition(':')[2]}" not in record]


def _contradictions(tenant_id: str, stated: Mapping[str, Facts]) -> Iterable[Finding]:
    """Compare what services say with what the tenant service says."""
    record = stated["tenant"]
    for name, facts in expected_facts(record).items():
        of_products = {fact for fact in stated[name] if ":" in fact}
        for fact in sorted(facts.keys() | of_products):
            value = facts.get(fact)
            if stated[name] and stated[name].get(fact) != value:
                problem = f"{fact} is {stated[name].get(fact)}, but for a tenant that is {record.get('state')} {value}"
                yield Finding(name, tenant_id, problem)


def expected_facts(record: Facts) -> Mapping[str, Facts]:
    """Return what each service must state of a tenant of which the tenant service states this; of products, no more."""
    is_active, is_suspended = record.get("state") == "active", record.get("state") == "suspended"
    licences = {fact: plan for fact, plan in record.items() if fact.startswith("licence:")}
    environments = {fact: isolation for fact, isolation in record.items() if fact.startswith("environment:")}
    return {
        "billing": {"charged": _text(is_active), "plan": record.get("plan"), **licences},
        "identity": {"blocked": _text(is_suspended)},
        "metrics": {"quotas": record.get("quotas")},
        "provisioning": {
            "throttled": _text(is_suspended),
            "isolation": record.get("isolation"),
            **environments,
            **{f"throttled:{fact.partition(':')[2]}": _text(is_suspended) for fact in environments},
        },
    }


def _text(value: bool) -> str:  # noqa: FBT001 - as SQL writes it
    return "true" if value else "false"


async def _held(url: str, view: str) -> dict[str, _Held]:
    more = "" if view != "live_record" else _KERNEL
    rows = await _fetch(
        url,
        f"""
        SELECT tenant_id, array_agg(place ORDER BY place) AS places,
               array_remove(
                   array_agg(CASE WHEN held > 1 AND split_part(place, ':', 1) = ANY ($1) THEN place END), NULL
               ) AS doubles
        FROM (
            SELECT tenant_id, place, count(*) AS held
            FROM (SELECT tenant_id, place FROM {view} {more}) AS kept GROUP BY 1, 2
        ) AS counted
        GROUP BY 1
        """,  # noqa: S608 - one of our own views
        _SINGLE,
    )
    return {row["tenant_id"]: _Held(row["places"], row["doubles"]) for row in rows}


async def _stated(url: str) -> dict[str, Facts]:
    rows = await _fetch(
        url, "SELECT tenant_id, jsonb_object_agg(fact, value)::text AS facts FROM audited_fact GROUP BY 1"
    )
    return {row["tenant_id"]: orjson.loads(row["facts"]) for row in rows}


async def _fetch(url: str, query: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS)
    try:
        return await connection.fetch(query, *values)
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
        f"{found.alive} tenants complete, {found.gone} gone without residue, "
        f"{found.unfinished} unfinished, {len(found.findings)} findings."
    )
    return 1 if found.findings else 0


if __name__ == "__main__":
    sys.exit(main())
