import gzip
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_hex
from uuid import UUID

import asyncpg
import httpx2
import pytest

from services.provisioning.drivers import AwsCredentials, Capacity, DriverUnavailableError, Environment, Inspection
from services.provisioning.drivers.postgres.place import Partition
from services.provisioning.exports import CHUNK_BYTES
from services.provisioning.tests.support import ask, partitions
from services.provisioning.tests.world import LIFETIME, PostgresWorld, undo_of
from shared.clock import SystemClock
from shared.contracts.provisioning import ExportData, ReleaseEnvironment, ThrottleEnvironment
from shared.testing.three_services import asked

KEY = "a-key-of-the-administrator"


async def test_an_environment_is_shown_with_what_runs_in_it(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    await world.provision("a", products=[{"name": "tasks", "version": "1.0"}, {"name": "notes", "version": "2.0"}])
    await world.provision("b")

    (shown,) = (await client.get("/v1/environments", params={"tenantId": "a"})).json()["items"]

    assert shown == {
        "environmentId": str(await world.pool.fetchval("SELECT environment_id FROM environment WHERE tenant_id = 'a'")),
        "tenantId": "a",
        "product": None,
        "driver": "postgres",
        "isolation": "pool",
        "region": "local",
        "status": "ready",
        "connections": None,
        "throttled": False,
        "throttledAt": None,
        "throttleReason": None,
        "products": [{"name": "notes", "version": "2.0"}, {"name": "tasks", "version": "1.0"}],
        "createdAt": "2026-01-01T00:00:00Z",
    }


async def test_all_environments_are_listed_in_pages(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    for tenant_id in ("t2", "t1", "t3"):
        await world.provision(tenant_id)

    first = (await client.get("/v1/environments", params={"limit": 2})).json()
    rest = (await client.get("/v1/environments", params={"cursor": first["nextCursor"]})).json()

    assert [item["tenantId"] for item in (*first["items"], *rest["items"])] == ["t2", "t1", "t3"]
    assert rest["nextCursor"] is None


@pytest.mark.parametrize("isolation", ["pool", "bridge", "silo"])
async def test_credentials_open_the_tenants_environment_and_are_not_to_be_kept(
    client: httpx2.AsyncClient, world: PostgresWorld, isolation: str
) -> None:
    await world.provision("a", isolation=isolation)
    await world.provision("b")
    await world.application.tenants("b")

    answer = await client.post("/v1/credentials", json={"tenantId": "a"})

    given = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert given["driver"] == "postgres"
    assert datetime.fromisoformat(given["expiresAt"]) - SystemClock().now() < timedelta(minutes=15)
    for session in (
        await asyncpg.connect(given["url"]),
        await asyncpg.connect(
            host=given["host"],
            port=given["port"],
            database=given["database"],
            user=given["username"],
            password=given["password"],
        ),
    ):
        await session.execute("INSERT INTO note (body) VALUES ('hello')")
        assert {row["body"] for row in await session.fetch("SELECT body FROM note")} == {"hello"}
        await session.close()


async def test_a_tenant_without_an_environment_gets_no_credentials(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/credentials", json={"tenantId": "a"})

    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown_environment"


async def test_what_no_record_is_known_of_gets_no_credentials(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    await world.application.driver.provision(partitions("a"))

    assert (await client.post("/v1/credentials", json={"tenantId": "a"})).status_code == 404


async def test_an_environment_that_is_removed_at_that_moment_gets_no_credentials(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    await world.provision("a")
    await world.application.driver.deprovision(["a"])

    assert (await client.post("/v1/credentials", json={"tenantId": "a"})).status_code == 404


async def test_an_environment_that_is_being_made_or_removed_gets_no_credentials(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    event = asked(ask("a"))
    await world.take(event)
    answer = (await client.post("/v1/credentials", json={"tenantId": "a"})).json()
    assert (answer["status"], answer["code"], answer["retryable"]) == (409, "environment_not_ready", True)

    await world.work()
    await world.take(undo_of(event))
    answer = (await client.post("/v1/credentials", json={"tenantId": "a"})).json()
    assert (answer["status"], answer["code"], answer["retryable"]) == (409, "environment_not_ready", False)


async def test_a_throttled_environment_is_shown_as_such(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    await world.provision("a", connections=3)
    await world.do(ThrottleEnvironment(tenant_id="a", reason="unpaid"))

    (shown,) = (await client.get("/v1/environments")).json()["items"]

    assert shown["status"] == "ready"
    assert {key: shown[key] for key in ("connections", "throttled", "throttledAt", "throttleReason")} == {
        "connections": 3,
        "throttled": True,
        "throttledAt": "2026-01-01T00:00:00Z",
        "throttleReason": "unpaid",
    }


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        ("It is unpaid.", "The environment of tenant a is throttled: It is unpaid."),
        (None, "The environment of tenant a is throttled."),
    ],
)
async def test_a_throttled_tenant_gets_no_credentials_and_is_told_why(
    client: httpx2.AsyncClient, world: PostgresWorld, reason: str | None, detail: str
) -> None:
    await world.provision("a")
    await world.do(ThrottleEnvironment(tenant_id="a", reason=reason))

    answer = await client.post("/v1/credentials", json={"tenantId": "a"})

    assert (answer.status_code, answer.json()["code"]) == (409, "environment_throttled")
    assert answer.json()["detail"] == detail
    await world.do(ReleaseEnvironment(tenant_id="a"))
    assert (await client.post("/v1/credentials", json={"tenantId": "a"})).status_code == 201


async def test_a_tenant_that_is_moved_at_that_moment_gets_no_credentials_and_may_ask_again(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    await world.provision("a")
    await world.application.driver.configure([Partition("a", is_throttled=True)])

    answer = await client.post("/v1/credentials", json={"tenantId": "a"})

    assert (answer.status_code, answer.json()["code"]) == (409, "environment_moving")
    assert answer.json()["retryable"] is True


async def test_an_inspection_tells_what_is_there_and_not_what_our_records_say(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    await world.provision("a", products=[{"name": "notes", "version": "2.0"}])
    environment_id = await world.pool.fetchval("SELECT environment_id FROM environment")
    path = f"/v1/environments/{environment_id}/inspection"

    found = (await client.get(path)).json()
    assert {name: found[name] for name in ("tenantId", "driver", "exists", "throttled", "isolation", "products")} == {
        "tenantId": "a",
        "driver": "postgres",
        "exists": True,
        "throttled": False,
        "isolation": "pool",
        "products": [{"name": "notes", "version": "2.0"}],
    }

    await world.application.driver.deprovision(["a"])
    assert (await client.get(path)).json()["exists"] is False
    await world.pool.execute("UPDATE environment SET driver = 'gone'")
    assert (await client.get(path)).json()["code"] == "unknown_driver"
    assert (await client.get(f"/v1/environments/{UUID(int=1)}/inspection")).status_code == 404


async def test_drivers_are_listed_with_what_they_can_make(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/drivers")).json() == {
        "items": [
            {
                "name": "postgres",
                "isolations": ["pool", "bridge", "silo"],
                "issuesCredentials": True,
                "exports": True,
            }
        ],
        "nextCursor": None,
    }


async def test_a_job_is_shown_with_how_far_it_is(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    event = asked(ask("a"))
    await world.take(event, asked(ask("b")))

    (shown,) = (await client.get("/v1/jobs", params={"tenantId": "a"})).json()["items"]

    assert shown == {
        "jobId": shown["jobId"],
        "tenantId": "a",
        "workflowId": str(event.workflow_id),
        "step": "billing",
        "asked": "provision",
        "product": None,
        "operation": "provision",
        "lane": "postgres/pool",
        "state": "running",
        "stage": "",
        "attempts": 0,
        "said": None,
        "dueAt": "2026-01-01T00:00:00Z",
    }
    assert len((await client.get("/v1/jobs")).json()["items"]) == 2


async def test_an_export_is_listed_and_fetched_as_the_file_that_it_is(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    await world.provision("a", "b")
    (a,) = await world.application.sessions("a")
    await a.executemany("INSERT INTO app.note (body) VALUES ($1)", [(token_hex(50_000),) for _ in range(30)])
    await world.do(ExportData(tenant_id="a"), ExportData(tenant_id="b"))

    (listed,) = (await client.get("/v1/exports", params={"tenantId": "a"})).json()["items"]
    fetched = await client.get(f"/v1/exports/{listed['exportId']}")

    assert listed == {
        "exportId": listed["exportId"],
        "tenantId": "a",
        "createdAt": "2026-01-01T00:00:00Z",
        "expiresAt": "2026-01-31T00:00:00Z",
        "rows": {"app.note": 31},
        "bytes": len(fetched.content),
        "sha256": sha256(fetched.content).hexdigest(),
    }
    assert fetched.status_code == 200
    assert len(fetched.content) > CHUNK_BYTES
    assert len(gzip.decompress(fetched.content).splitlines()) == 31
    assert {name: fetched.headers[name] for name in ("Content-Type", "Content-Disposition", "ETag", "Repr-Digest")} == {
        "Content-Type": "application/gzip",
        "Content-Disposition": 'attachment; filename="a-20260101T000000Z.ndjson.gz"',
        "ETag": f'"{listed["sha256"]}"',
        "Repr-Digest": f"sha-256=:{b64encode(sha256(fetched.content).digest()).decode()}:",
    }
    assert fetched.headers["Content-Length"] == str(listed["bytes"])
    assert fetched.headers["Cache-Control"] == "no-store"


async def test_exports_are_listed_in_pages(client: httpx2.AsyncClient, world: PostgresWorld) -> None:
    await world.provision("a", "b")
    await world.do(ExportData(tenant_id="b"), ExportData(tenant_id="a"), ExportData(tenant_id="b"))

    first = (await client.get("/v1/exports", params={"limit": 2})).json()
    rest = (await client.get("/v1/exports", params={"cursor": first["nextCursor"]})).json()

    assert [item["tenantId"] for item in (*first["items"], *rest["items"])] == ["b", "a", "b"]
    assert rest["nextCursor"] is None


async def test_an_export_that_has_expired_is_unknown_although_it_is_not_swept_yet(
    client: httpx2.AsyncClient, world: PostgresWorld
) -> None:
    await world.provision("a")
    await world.do(ExportData(tenant_id="a"))
    (listed,) = (await client.get("/v1/exports")).json()["items"]

    await world.clock.advance(LIFETIME.total_seconds())

    assert (await client.get("/v1/exports")).json()["items"] == []
    answer = await client.get(f"/v1/exports/{listed['exportId']}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_export")


async def test_an_export_that_never_was_is_unknown(client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"/v1/exports/{UUID(int=1)}")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_export")
    assert (await client.get("/v1/exports/made-up")).status_code == 422


@pytest.mark.parametrize("body", [{}, {"tenantId": "a b"}, {"tenantId": None}, {"tenantId": "a", "role": "owner"}])
async def test_a_malformed_request_for_credentials_is_refused(client: httpx2.AsyncClient, body: object) -> None:
    answer = await client.post("/v1/credentials", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    ("query", "name"),
    [({"tenantId": "no tenant"}, "tenantId"), ({"limit": "0"}, "limit"), ({"cursor": "made-up"}, "cursor")],
)
@pytest.mark.parametrize("path", ["/v1/environments", "/v1/deployments", "/v1/exports", "/v1/jobs"])
async def test_a_malformed_query_is_refused_by_name(
    client: httpx2.AsyncClient, path: str, query: dict[str, str], name: str
) -> None:
    answer = await client.get(path, params=query)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query/{name}"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/environments"),
        ("POST", "/v1/credentials"),
        ("GET", "/v1/exports"),
        ("GET", f"/v1/exports/{UUID(int=1)}"),
        ("GET", "/v1/drivers"),
        ("GET", "/v1/jobs"),
        ("GET", f"/v1/environments/{UUID(int=1)}/inspection"),
    ],
)
async def test_nothing_is_given_without_the_administrators_key(
    client: httpx2.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path, headers={"Authorization": "Bearer another"}, json={"tenantId": "a"})

    assert answer.status_code == 401


class Clouds:
    """A driver whose credentials are no logins; or that does not answer."""

    name = "clouds"
    isolations = ("pool",)

    def __init__(self, *, is_away: bool) -> None:
        self._is_away = is_away

    def capacity(self, _: str) -> Capacity:
        return Capacity()

    async def issue(self, _: Environment) -> AwsCredentials:
        if self._is_away:
            raise DriverUnavailableError("Nobody answers.")
        return AwsCredentials(
            driver="clouds",
            region="eu-central-1",
            access_key_id="ASIA1",
            secret_access_key="hidden",
            session_token="hidden too",
            expires_at=datetime(2026, 1, 1, 0, 15, tzinfo=UTC),
        )

    async def inspect(self, _: object) -> list[Inspection]:
        raise DriverUnavailableError("Nobody answers.")

    async def sweep(self) -> int:
        return 0


@pytest.fixture
async def in_the_clouds(world: PostgresWorld) -> PostgresWorld:
    await world.provision("a")
    await world.pool.execute("UPDATE environment SET driver = 'clouds'")
    return world


async def test_credentials_of_another_kind_are_given_in_their_own_form(
    client: httpx2.AsyncClient, in_the_clouds: PostgresWorld
) -> None:
    in_the_clouds.drivers.add(Clouds(is_away=False))  # type: ignore[arg-type]  # only what is asked of it here

    answer = await client.post("/v1/credentials", json={"tenantId": "a"})

    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.json() == {
        "driver": "clouds",
        "region": "eu-central-1",
        "accessKeyId": "ASIA1",
        "secretAccessKey": "hidden",
        "sessionToken": "hidden too",
        "expiresAt": "2026-01-01T00:15:00Z",
    }


async def test_a_driver_that_does_not_answer_is_no_bug_of_ours(
    client: httpx2.AsyncClient, in_the_clouds: PostgresWorld
) -> None:
    in_the_clouds.drivers.add(Clouds(is_away=True))  # type: ignore[arg-type]  # only what is asked of it here
    environment_id = await in_the_clouds.pool.fetchval("SELECT environment_id FROM environment")

    for answer in (
        await client.post("/v1/credentials", json={"tenantId": "a"}),
        await client.get(f"/v1/environments/{environment_id}/inspection"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "driver_unavailable")
        assert answer.json()["detail"] == "The driver 'clouds' cannot be asked now. Nobody answers."


async def test_a_driver_that_issues_nothing_is_told_as_such(
    client: httpx2.AsyncClient, in_the_clouds: PostgresWorld
) -> None:
    answer = await client.post("/v1/credentials", json={"tenantId": "a"})

    assert (answer.status_code, answer.json()["code"]) == (409, "no_credentials")
