from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from deploy.local.throwaway import FreshDatabases
from services.tenant.certificates import Certificate
from services.tenant.lifecycle import ACTIVATE, State
from services.tenant.queries import catalog
from services.tenant.queries import tenants as queries
from services.tenant.tests.support import activate, archive, ask, open_for_business, register, statements
from shared.postgres import Connection, Pool, use_json

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NOTES_1 = {"name": "notes", "version": "1.0"}
TERMS: dict[str, Any] = {
    "state": "offboarding",
    "tier": "premium",
    "customer_name": "Acme",
    "name_key": "acme",
    "expiration": None,
    "products": [{"name": "notes", "version": "2.0"}],
    "product_meanings": {"notes": {}},
}


async def found(connection: Connection, **filters: Any) -> list[str]:
    everything: dict[str, Any] = {"after": "", "limit": 100, "text": None, "state": None, "tier": None}
    return [row["tenant_id"] for row in await queries.tenants(connection, **(everything | filters))]


@pytest.fixture
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    async with pool.acquire() as connection:
        yield connection


async def test_tenants_are_listed_in_the_order_of_their_identities(pool: Pool, connection: Connection) -> None:
    await register(pool, ask("t3"), ask("t1"), ask("t2"))

    assert await found(connection, limit=2) == ["t1", "t2"]
    assert await found(connection, after="t2") == ["t3"]


async def test_tenants_are_found_by_a_part_of_the_name_whatever_its_case_or_width(
    pool: Pool, connection: Connection
) -> None:
    await register(pool, ask("t1", "Café Central"), ask("t2", "100% Tea_Room"), ask("t3", "100 Tea Rooms"))

    assert await found(connection, text="CAFÉ") == ["t1"]
    assert await found(connection, text="\uff34ea") == ["t2", "t3"]
    assert await found(connection, text="% tea_") == ["t2"]


async def test_tenants_are_found_by_state_and_tier(pool: Pool, connection: Connection) -> None:
    await register(pool, ask("t1", tier="premium"), ask("t2", tier="premium"), ask("t3"))
    await activate(pool, "t2", "t3")

    assert await found(connection, state="active") == ["t2", "t3"]
    assert await found(connection, state="active", tier="premium") == ["t2"]


async def test_a_tenant_is_found_by_its_name_unless_it_is_archived(pool: Pool, connection: Connection) -> None:
    await open_for_business(pool, ask("t1", "Acme"))
    row = await queries.tenant_named(connection, "ACME")
    assert row is not None
    assert row["tenant_id"] == "t1"

    await archive(pool, "t1")
    assert await queries.tenant_named(connection, "Acme") is None


async def test_details_that_are_not_named_stay_as_they_are(pool: Pool, connection: Connection) -> None:
    await register(pool, ask("t1", phone="+1 555 0100", address="Main St 1", tags={"a": "1"}, attributes={"b": "2"}))

    await queries.change_details(connection, "t1", {"phone": None, "tags": {"c": "3"}}, now=NOW)

    row = await queries.tenant(connection, "t1")
    assert row is not None
    assert (row["email"], row["phone"], row["address"]) == ("ada@example.com", None, "Main St 1")
    assert (row["tags"], row["attributes"], row["version"]) == ({"c": "3"}, {"b": "2"}, 2)


async def test_everything_of_a_live_tenant_is_a_live_record_and_nothing_of_an_archived_one(
    pool: Pool, connection: Connection
) -> None:
    await open_for_business(pool, ask("t1", products=[NOTES_1]))
    rows = await connection.fetch("SELECT * FROM live_record ORDER BY place")
    assert [tuple(row) for row in rows] == [("t1", "tenant"), ("t1", "tenant_product")]

    await archive(pool, "t1")
    assert await connection.fetch("SELECT * FROM live_record") == []


async def test_a_product_that_an_archived_tenant_still_had_would_be_found_as_residue(
    pool: Pool, connection: Connection
) -> None:
    await open_for_business(pool, ask("t1"))
    await archive(pool, "t1")
    await connection.execute("INSERT INTO tenant_product VALUES ('t1', 'notes', '1.0')")

    assert [tuple(row) for row in await connection.fetch("SELECT * FROM live_record")] == [("t1", "tenant_product")]


async def test_an_archived_tenant_has_nothing_personal_and_any_other_an_address(
    pool: Pool, connection: Connection
) -> None:
    await open_for_business(pool, ask("t1"), ask("t2"))
    await archive(pool, "t1")

    for change in ("email = 'ada@example.com'", "phone = '1'", "address = 'Ring 1'", 'tags = \'{"a": "1"}\''):
        with pytest.raises(asyncpg.CheckViolationError, match="tenant_erased_when_archived"):
            await connection.execute(f"UPDATE tenant SET {change} WHERE tenant_id = 't1'")
    with pytest.raises(asyncpg.CheckViolationError, match="tenant_erased_when_archived"):
        await connection.execute("UPDATE tenant SET email = NULL WHERE tenant_id = 't2'")


async def test_a_change_of_any_part_of_the_catalog_makes_a_new_revision(connection: Connection) -> None:
    revisions = [(await catalog.published(connection))["revision"]]
    for change in (
        "UPDATE tier SET rank = rank + 10",
        "INSERT INTO product (name, description) VALUES ('chess', 'A game.')",
        "INSERT INTO product_version (product, version) VALUES ('chess', '1.0')",
        "DELETE FROM product_version WHERE product = 'chess'",
    ):
        await connection.execute(change)
        revisions.append((await catalog.published(connection))["revision"])

    assert revisions == [4, 5, 6, 7, 8]


async def test_there_is_one_default_tier_and_it_can_be_taken(connection: Connection) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("UPDATE tier SET is_default = true WHERE name = 'premium'")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE tier SET retired_at = now() WHERE name = 'free'")


async def test_versions_are_listed_in_the_order_of_publication(connection: Connection) -> None:
    await connection.execute("INSERT INTO product_version (product, version) VALUES ('notes', '10.0')")
    rows = await catalog.product_versions(connection, "notes", after=0, limit=10)
    assert [row["version"] for row in rows] == ["1.0", "2.0", "10.0"]

    (last,) = await catalog.product_versions(connection, "notes", after=rows[1]["number"], limit=10)
    assert last["version"] == "10.0"


async def test_products_are_listed_by_name_with_the_versions_that_can_be_taken(connection: Connection) -> None:
    await connection.execute("INSERT INTO product (name, description) VALUES ('chess', 'A game.')")
    await connection.execute("UPDATE product_version SET retired_at = now() WHERE version = '1.0'")
    rows = await catalog.products(connection, after="", limit=10)

    assert [(row["name"], row["versions"]) for row in rows] == [("chess", []), ("notes", ["2.0"])]
    assert [row["name"] for row in await catalog.products(connection, after="chess", limit=10)] == ["notes"]


HOT: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "register": lambda connection: queries.register(connection, [ask("new", tier="free", products=[NOTES_1])], now=NOW),
    "move": lambda connection: queries.move(connection, ["t1", "t2"], ACTIVATE, now=NOW),
    "deregister": lambda connection: queries.deregister(connection, ["t1", "t2"]),
    "tenant": lambda connection: queries.tenant(connection, "t1"),
    "tenant_named": lambda connection: queries.tenant_named(connection, "Customer t1"),
    "tenants": lambda connection: found(connection, after="t1", limit=50),
    "lock_tenant": lambda connection: queries.lock_tenant(connection, "t1"),
    "lock_tenants": lambda connection: queries.lock_tenants(connection, ["t1", "t2"]),
    "judge": lambda connection: queries.judge(connection, {"t1": TERMS}, states=[State.OFFBOARDING]),
    "terms": lambda connection: queries.terms(connection, ["t1", "t2"]),
    "write_terms": lambda connection: queries.write_terms(connection, {"t1": TERMS}, now=NOW),
    "records": lambda connection: queries.records(connection, ["t1", "t2"]),
    "archive": lambda connection: queries.archive(connection, [Certificate("t1", "w1", {}, "0" * 64)], now=NOW),
    "certificate": lambda connection: queries.certificate(connection, "t1"),
    "change_details": lambda connection: queries.change_details(connection, "t1", {"phone": "1"}, now=NOW),
}


@pytest.fixture
async def many_tenants(fresh_database: FreshDatabases) -> AsyncIterator[Connection]:
    """A connection to a full table whose statistics are fresh, which takes the owner's rights."""
    urls = await fresh_database.urls("tenant")
    connection = await asyncpg.connect(urls.owner)
    await use_json(connection)
    await connection.execute(
        """
        INSERT INTO tenant (tenant_id, customer_name, name_key, tier, state, email, created_at, updated_at)
        SELECT 't' || number, 'Customer t' || number, 'customer t' || number, 'free', 'offboarding', 'a@b.co', now(),
               now()
        FROM generate_series(1, 50000) AS number;
        INSERT INTO tenant_product SELECT tenant_id, 'notes', '1.0' FROM tenant;
        ANALYZE;
        """
    )
    yield connection
    await connection.close()


async def plan_of(connection: Connection, statement: Callable[[Connection], Awaitable[Any]]) -> str:
    """Run the one statement of a query and take it back; return how it is run."""
    async with statements(connection) as sent:
        attempt = connection.transaction()
        await attempt.start()
        await statement(connection)
        await attempt.rollback()
    _begin, query, _rollback = sent
    return "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + query.query, *query.args))


async def test_no_statement_reads_the_whole_table(many_tenants: Connection) -> None:
    plans = {name: await plan_of(many_tenants, statement) for name, statement in HOT.items()}

    assert {name: plan for name, plan in plans.items() if "Seq Scan on tenant" in plan} == {}
