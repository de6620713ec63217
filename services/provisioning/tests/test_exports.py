"""What is in an export, what is not, and what becomes of it."""

import asyncio
import gzip
import hashlib
import secrets
from datetime import timedelta
from typing import Any

import orjson
import pytest

from services.provisioning.drivers import Environment, NoEnvironmentError, Sink
from services.provisioning.drivers.postgres import ExpiredLoginError
from services.provisioning.drivers.postgres import partitions as partitions_
from services.provisioning.exports import CHUNK_BYTES, MissingChunkError, Stream, read_export, sweep_exports
from services.provisioning.tests.driver_contract import environment
from services.provisioning.tests.support import Application, partitions
from services.provisioning.tests.world import LIFETIME, PostgresWorld
from shared.contracts.provisioning import DataExported, ExportData, ThrottleEnvironment
from shared.ids import TimeOrderedIds
from shared.testing import eventually
from shared.testing.three_services import asked


def export(tenant_id: str) -> ExportData:
    return ExportData(tenant_id=tenant_id)


async def exported(world: PostgresWorld, tenant_id: str) -> DataExported:
    """Export a tenant's data."""
    (answer,) = await world.handle(asked(export(tenant_id)))
    assert isinstance(answer, DataExported), answer
    return answer


async def stream_of(world: PostgresWorld, fact: DataExported) -> bytes:
    chunks = await world.pool.fetch(
        "SELECT content FROM export_chunk WHERE export_id::text = $1 ORDER BY number", fact.export_id
    )
    return b"".join(row["content"] for row in chunks)


def lines_of(stream: bytes) -> list[Any]:
    text = gzip.decompress(stream)
    assert text == b"" or text.endswith(b"\n")
    return [orjson.loads(line) for line in text.split(b"\n")[:-1]]


async def lines_from(application: Application, tenant_id: str) -> tuple[list[Any], dict[str, int]]:
    """Export straight from the driver."""
    pieces: list[bytes] = []

    async def keep(piece: bytes) -> None:
        pieces.append(piece)

    rows = await application.postgres.export(environment(tenant_id, "pool"), keep)
    return [orjson.loads(line) for line in b"".join(pieces).split(b"\n")[:-1]], rows


async def make_table(application: Application, name: str, columns: str) -> None:
    """Add a table to the application as its migrations would."""
    await application.pool.execute(
        f"""
        CREATE TABLE app.{name} (
            tenant_id text NOT NULL DEFAULT tenancy.current_tenant() REFERENCES tenancy.tenant ON DELETE CASCADE,
            {columns}
        );
        ALTER TABLE app.{name} ENABLE ROW LEVEL SECURITY;
        ALTER TABLE app.{name} FORCE ROW LEVEL SECURITY;
        DO $$ BEGIN
            EXECUTE format('GRANT SELECT, INSERT ON app.{name} TO %I', tenancy.tenant_role());
            EXECUTE format(
                'CREATE POLICY own_rows ON app.{name} TO %I
                 USING (tenant_id = (SELECT tenancy.current_tenant()))', tenancy.tenant_role()
            );
        END $$;
        """
    )


async def test_an_export_is_all_rows_of_the_tenant_and_no_others_in_the_order_of_their_keys(
    world: PostgresWorld,
) -> None:
    await world.provision("a", "b")
    a, _ = await world.application.sessions("a", "b")
    await a.execute("INSERT INTO app.note (body) SELECT 'note ' || n FROM generate_series(1, 99) AS n")

    fact = await exported(world, "a")

    lines = lines_of(await stream_of(world, fact))
    own = await a.fetch("SELECT note_id, body FROM app.note ORDER BY note_id")
    assert [(line["row"]["note_id"], line["row"]["body"]) for line in lines] == [(str(row[0]), row[1]) for row in own]
    assert {(line["table"], line["row"]["tenant_id"]) for line in lines} == {("app.note", "a")}
    assert set(lines[0]["row"]) == {"tenant_id", "note_id", "body", "created_at"}
    assert lines[0]["row"]["created_at"].endswith("+00:00")
    assert fact.rows == {"app.note": 100}


async def test_what_is_said_of_an_export_is_what_it_is(world: PostgresWorld) -> None:
    await world.provision("a")
    await world.application.sessions("a")

    fact = await exported(world, "a")

    stream = await stream_of(world, fact)
    row = await world.pool.fetchrow("SELECT * FROM export")
    assert dict(row or {}) == {
        "export_id": row["export_id"] if row else None,
        "tenant_id": "a",
        "created_at": world.clock.now(),
        "expires_at": world.clock.now() + LIFETIME,
        "rows": {"app.note": 1},
        "bytes": len(stream),
        "sha256": hashlib.sha256(stream).hexdigest(),
    }
    assert (fact.export_id, fact.sha256) == (str(row["export_id"]), row["sha256"]) if row else False


async def test_the_same_rows_give_the_same_bytes_at_any_time(world: PostgresWorld) -> None:
    await world.provision("a")
    (a,) = await world.application.sessions("a")
    await a.execute("INSERT INTO app.note (body) SELECT repeat(md5(n::text), 20) FROM generate_series(1, 5000) AS n")
    first = await exported(world, "a")
    await world.clock.advance(3600)
    await world.application.pool.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone TO %L', current_database(), 'Asia/Kolkata'); END $$"
    )

    second = await exported(world, "a")

    assert first.sha256 == second.sha256
    assert first.export_id != second.export_id


async def test_a_tenant_without_rows_has_an_empty_export(world: PostgresWorld) -> None:
    await world.provision("a")

    fact = await exported(world, "a")

    assert fact.rows == {"app.note": 0}
    assert lines_of(await stream_of(world, fact)) == []


async def test_whatever_a_text_holds_comes_out_as_it_was(world: PostgresWorld) -> None:
    texts = ["\\", "\\n", "a\nb\r\nc\td", '"quoted"', "\x01\x02\x7f", "\\.", "", "ü😀\u2028", "\\u0041", "{}", "\b\f\v"]
    await world.provision("a")
    (a,) = await world.application.sessions("a")
    await a.execute("DELETE FROM app.note")
    await a.executemany("INSERT INTO app.note (body) VALUES ($1)", [(text,) for text in texts])

    fact = await exported(world, "a")

    lines = lines_of(await stream_of(world, fact))
    assert sorted(line["row"]["body"] for line in lines) == sorted(texts)


async def test_tables_that_are_added_later_are_in_it_whatever_their_shape(application: Application) -> None:
    await make_table(application, "a_document", "number integer, content json, PRIMARY KEY (tenant_id, number)")
    await make_table(application, '"Z keyless"', '"table" integer')
    await make_table(application, "empty", "number integer, PRIMARY KEY (tenant_id, number)")
    await application.pool.execute("CREATE TABLE app.shared_by_all (number integer)")
    a, _ = await application.tenants("a", "b")
    pretty = '{\n  "b": "\\u0041",\r\n  "a": 1.50\n}'
    await a.execute(
        f"INSERT INTO a_document (number, content) SELECT n, '{pretty}' FROM generate_series(12, 9, -1) AS n"
    )
    await a.execute('INSERT INTO "Z keyless" ("table") VALUES (3), (2), (1)')

    lines, rows = await lines_from(application, "a")

    assert rows == {'app."Z keyless"': 3, "app.a_document": 4, "app.empty": 0, "app.note": 1}
    assert [line["row"]["table"] for line in lines if line["table"] == 'app."Z keyless"'] == [1, 2, 3]
    documents = [line["row"] for line in lines if line["table"] == "app.a_document"]
    assert [row["number"] for row in documents] == [9, 10, 11, 12]
    assert all(list(row["content"].items()) == [("b", "A"), ("a", 1.5)] for row in documents)


async def test_a_table_that_the_tenant_may_not_read_is_not_left_out_in_silence(application: Application) -> None:
    await make_table(application, "secret", "number integer, PRIMARY KEY (tenant_id, number)")
    await application.pool.execute(
        "DO $$ BEGIN EXECUTE format('REVOKE ALL ON app.secret FROM %I', tenancy.tenant_role()); END $$"
    )
    await application.tenants("a")

    with pytest.raises(Exception, match="permission denied for table secret"):
        await lines_from(application, "a")


async def test_a_large_export_is_kept_in_chunks_of_at_most_one_mebibyte(world: PostgresWorld) -> None:
    await world.provision("a")
    (a,) = await world.application.sessions("a")
    await a.executemany("INSERT INTO app.note (body) VALUES ($1)", [(secrets.token_hex(50_000),) for _ in range(60)])

    fact = await exported(world, "a")

    sizes = await world.pool.fetch("SELECT number, octet_length(content) FROM export_chunk ORDER BY number")
    assert [row[0] for row in sizes] == list(range(len(sizes)))
    assert len(sizes) > 2
    assert {row[1] for row in sizes[:-1]} == {CHUNK_BYTES}
    assert len(lines_of(await stream_of(world, fact))) == fact.rows["app.note"] == 61


async def test_rows_leave_piece_by_piece(application: Application) -> None:
    (a,) = await application.tenants("a")
    await a.execute("INSERT INTO app.note (body) SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    sizes = []

    async def measure(piece: bytes) -> None:
        sizes.append(len(piece))

    await application.postgres.export(environment("a", "pool"), measure)

    assert sum(sizes) > 20_000_000
    assert max(sizes) < CHUNK_BYTES


async def test_one_piece_that_is_longer_than_a_chunk_is_cut(world: PostgresWorld) -> None:
    ids = TimeOrderedIds()
    content = secrets.token_bytes(3 * CHUNK_BYTES)
    async with world.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        stream = Stream(connection, ids.new())
        await stream.write(content)
        await stream.finish()
        kept = [row["content"] for row in await connection.fetch("SELECT content FROM export_chunk ORDER BY number")]
        await transaction.rollback()

    assert gzip.decompress(b"".join(kept)) == content
    assert max(map(len, kept)) == CHUNK_BYTES
    assert (stream.bytes, stream.sha256) == (len(b"".join(kept)), hashlib.sha256(b"".join(kept)).hexdigest())


async def test_an_export_leaves_no_login_behind_and_ends_no_session_of_the_tenants(world: PostgresWorld) -> None:
    await world.provision("a")
    (a,) = await world.application.sessions("a")
    logins = await world.application.logins()

    await exported(world, "a")

    assert await world.application.logins() == logins
    assert await a.fetchval("SELECT count(*) FROM app.note") == 1


async def test_a_throttled_tenant_is_exported_and_stays_throttled(world: PostgresWorld) -> None:
    await world.provision("a")
    await world.application.sessions("a")
    await world.do(ThrottleEnvironment(tenant_id="a"))

    assert (await exported(world, "a")).rows == {"app.note": 1}

    assert await world.application.logins() == set()


async def test_a_tenant_whose_partition_is_gone_or_closed_is_not_exported(world: PostgresWorld) -> None:
    await world.provision("a", "b")
    await world.application.pool.execute("SELECT tenancy.close_tenants('{a}')")
    await world.application.driver.deprovision(["b"])

    assert await world.refusal(export("a")) == "unknown_environment"
    assert await world.refusal(export("b")) == "unknown_environment"
    assert await world.application.logins() == set()
    with pytest.raises(NoEnvironmentError):
        await lines_from(world.application, "nobody")


async def test_an_export_that_its_login_did_not_outlive_is_no_export(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last tables would be empty without anybody having noticed."""
    monkeypatch.setattr(partitions_, "SESSION_LIFETIME", timedelta(seconds=1))
    await make_table(application, "z_last", "number integer, PRIMARY KEY (tenant_id, number)")
    (a,) = await application.tenants("a")
    await a.execute("INSERT INTO z_last (number) VALUES (1)")

    async def wait_for_expiry(_: bytes) -> None:
        await eventually(lambda: is_expired(application, a), describe="the login expires")

    with pytest.raises(ExpiredLoginError):
        await application.postgres.export(environment("a", "pool"), wait_for_expiry)
    assert len(await application.logins()) == 1


async def is_expired(application: Application, besides: Any) -> bool:
    expired: bool = await application.pool.fetchval(
        "SELECT expires_at < clock_timestamp() FROM tenancy.login WHERE login <> $1",
        await besides.fetchval("SELECT session_user"),
    )
    return expired


async def test_an_export_that_a_dying_worker_has_made_is_made_once(world: PostgresWorld) -> None:
    await world.provision("a")
    await world.crash(asked(export("a")))
    assert await world.pool.fetchval("SELECT count(*) FROM export") == 1

    (answer,) = await world.work()

    assert isinstance(answer, DataExported)
    assert [str(row[0]) for row in await world.pool.fetch("SELECT export_id FROM export")] == [answer.export_id]


async def test_an_outage_during_an_export_leaves_no_trace_and_it_is_made_later(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.provision("a")
    (a,) = await world.application.sessions("a")
    await a.executemany("INSERT INTO app.note (body) VALUES ($1)", [(secrets.token_hex(50_000),) for _ in range(60)])
    working = world.application.postgres.export

    async def break_off(wanted: Environment, write: Sink) -> dict[str, int]:
        await working(wanted, write)
        raise TimeoutError

    monkeypatch.setattr(world.driver, "export", break_off)
    assert await world.handle(asked(export("a"))) == []
    assert (await world.snapshot())["export"] == (await world.snapshot())["export_chunk"] == []

    monkeypatch.undo()
    (answer,) = await world.wait(1)
    assert isinstance(answer, DataExported)


async def test_two_exports_of_a_batch_for_one_tenant_are_two_and_discarded_one_by_one(world: PostgresWorld) -> None:
    await world.provision("a")
    first, second = await world.do(export("a"), export("a"))

    await world.undo(first)

    (left,) = await world.pool.fetch("SELECT export_id FROM export")
    assert await world.pool.fetchval("SELECT count(*) FROM export_chunk WHERE export_id = $1", left[0]) == 1
    assert await world.handle(first) == []
    (answer,) = await world.handle(second)
    assert isinstance(answer, DataExported)
    assert answer.export_id == str(left["export_id"])


async def test_an_export_is_deleted_when_it_expires_and_not_before(world: PostgresWorld) -> None:
    await world.provision("a")
    await world.do(*(export("a") for _ in range(23)))
    await world.clock.advance(60)
    younger = await exported(world, "a")

    await world.clock.advance((LIFETIME - timedelta(seconds=61)).total_seconds())
    assert await sweep_exports(world.pool, world.clock) == 0
    await world.clock.advance(1)
    assert await sweep_exports(world.pool, world.clock) == 23

    assert [str(row[0]) for row in await world.pool.fetch("SELECT export_id FROM export")] == [younger.export_id]
    assert await world.pool.fetchval("SELECT count(*) FROM export_chunk") == 1


async def test_many_replicas_sweep_exports_at_once(world: PostgresWorld) -> None:
    await world.provision("a")
    await world.do(*(export("a") for _ in range(25)))
    await world.clock.advance(LIFETIME.total_seconds())

    swept = await asyncio.gather(*(sweep_exports(world.pool, world.clock) for _ in range(3)))

    assert sum(swept) == 25


async def test_an_export_that_is_deleted_while_it_is_read_does_not_just_end(world: PostgresWorld) -> None:
    await world.provision("a")
    (event,) = await world.do(export("a"))
    row = await world.pool.fetchrow("SELECT export_id, bytes FROM export")
    assert row is not None
    await world.undo(event)

    with pytest.raises(MissingChunkError):
        [chunk async for chunk in read_export(world.pool, row["export_id"], length=row["bytes"])]


async def test_an_export_outlives_its_environment(world: PostgresWorld) -> None:
    await world.provision("a")
    fact = await exported(world, "a")

    await world.application.driver.deprovision(["a"])
    await world.pool.execute("DELETE FROM environment")
    await world.pool.execute("DELETE FROM job")

    assert lines_of(await stream_of(world, fact)) == []
    assert await world.pool.fetchval("SELECT count(*) FROM live_record") == 0


async def test_an_export_waits_for_no_session_that_is_writing(application: Application) -> None:
    (a,) = await application.tenants("a")
    await a.execute("BEGIN; UPDATE app.note SET body = 'not yet'; INSERT INTO app.note (body) VALUES ('not yet')")

    async with asyncio.timeout(10):
        lines, rows = await lines_from(application, "a")

    assert [line["row"]["body"] for line in lines] == ["of a"]
    assert rows == {"app.note": 1}


async def test_the_login_of_an_export_is_one_of_the_tenants_for_one_connection_and_one_minute(
    application: Application,
) -> None:
    await application.driver.provision(partitions("a", "b"))

    created = await application.pool.fetchval("SELECT tenancy.create_reader('tenant_reader', 'a', 'secret')")

    role = await application.pool.fetchrow(
        """
        SELECT rolconnlimit, rolvaliduntil <= now() + interval '1 minute' AS is_short, rolsuper, rolbypassrls,
               rolcreaterole, rolinherit, (SELECT tenant_id FROM tenancy.login WHERE login = rolname) AS tenant_id
        FROM pg_roles WHERE rolname = 'tenant_reader'
        """
    )
    assert created
    assert dict(role or {}) == {
        "rolconnlimit": 1,
        "is_short": True,
        "rolsuper": False,
        "rolbypassrls": False,
        "rolcreaterole": False,
        "rolinherit": True,
        "tenant_id": "a",
    }
