"""Which servers tests run against: the first of three ways that is there, or the one that was forced."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import aio_pika
import asyncpg
import pytest
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID

from deploy.local import throwaway_servers
from deploy.local.ports import free_port
from deploy.local.processes import ServerFailedError
from deploy.local.throwaway_choice import FORCE, POSTGRES, RABBITMQ, Engine, MissingServerError, Way, choose
from deploy.local.throwaway_containers import MissingImageError, has_image, require_image
from deploy.local.throwaway_servers import GivenBroker, ThrowawayServers

ROOT = Path(__file__).resolve().parents[2]
URL = "postgresql://admin:secret@127.0.0.1/postgres"
GIVEN = {POSTGRES.variable: URL}


def no_image(image: str) -> None:
    raise MissingImageError(f"Docker cannot get {image}: no route to host")


NO_ENGINE = Engine(lambda: False, no_image)
NO_IMAGE = Engine(lambda: True, no_image)
WORKS = Engine(lambda: True, lambda _: None)

needs_engine = pytest.mark.skipif(
    not (Engine().answers() and all(has_image(kind.image) for kind in (POSTGRES, RABBITMQ))),
    reason="no Docker engine that has both images",
)


@pytest.mark.parametrize(
    ("environment", "engine", "way"),
    [
        (GIVEN, WORKS, Way.GIVEN),
        (GIVEN | {FORCE: "given"}, NO_ENGINE, Way.GIVEN),
        (GIVEN | {FORCE: "containers"}, WORKS, Way.CONTAINERS),
        (GIVEN | {FORCE: "embedded"}, WORKS, Way.EMBEDDED),
        ({POSTGRES.variable: "", FORCE: ""}, WORKS, Way.CONTAINERS),
        ({}, WORKS, Way.CONTAINERS),
        ({}, NO_IMAGE, Way.EMBEDDED),
        ({}, NO_ENGINE, Way.EMBEDDED),
    ],
)
def test_the_first_way_that_is_there_is_gone_unless_another_is_forced(
    environment: Mapping[str, str], engine: Engine, way: Way
) -> None:
    assert choose(POSTGRES, environment, engine).way is way


@pytest.mark.parametrize(
    ("environment", "engine", "words"),
    [
        ({FORCE: "given"}, WORKS, "TENURE_TEST_POSTGRES_URL is not set"),
        ({FORCE: "containers"}, NO_ENGINE, "no Docker engine answers"),
        ({FORCE: "containers"}, NO_IMAGE, "Docker cannot get postgres:17: no route to host"),
        ({FORCE: "container"}, WORKS, "'container'; it is one of given, containers, embedded"),
    ],
)
def test_a_forced_way_that_cannot_be_gone_is_refused_with_the_reason(
    environment: Mapping[str, str], engine: Engine, words: str
) -> None:
    with pytest.raises(MissingServerError, match=words):
        choose(POSTGRES, environment, engine)


def test_each_kind_of_server_is_chosen_by_itself() -> None:
    servers = ThrowawayServers(GIVEN, NO_ENGINE)

    assert [servers.choice(kind).way for kind in (POSTGRES, RABBITMQ)] == [Way.GIVEN, Way.EMBEDDED]


class Stillborn:
    def __init__(self, *_: object, **__: object) -> None:
        pass

    def start(self) -> None:
        raise ServerFailedError("no space left on device")

    def kill(self) -> None:
        pass


class Lives(Stillborn):
    def __init__(self, folder: Path, **_: object) -> None:
        self.folder = folder
        self.admin_url = "embedded"

    async def start(self) -> None:  # type: ignore[override] # embedded ones start in a loop
        pass


def test_a_container_that_does_not_start_is_replaced_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throwaway_servers, "ThrowawayPostgres", Stillborn)
    monkeypatch.setattr(throwaway_servers, "PostgresServer", Lives)
    servers = ThrowawayServers({}, WORKS)

    with servers.postgres(durable=False) as server:
        assert server.admin_url == "embedded"

    assert servers.told() == ["Postgres: embedded, up in 0.0 s (no space left on device)"]


def test_a_container_that_was_forced_and_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throwaway_servers, "ThrowawayPostgres", Stillborn)

    with (
        pytest.raises(ServerFailedError, match="no space left"),
        ThrowawayServers({FORCE: "containers"}, WORKS).postgres(durable=False),
    ):
        pass


def test_a_run_whose_servers_cannot_be_had_ends_before_its_first_test(tmp_path: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "shared/tests/test_messaging_inbox.py"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != POSTGRES.variable} | {FORCE: "given"},
    )

    assert outcome.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{FORCE} is given, and {POSTGRES.variable} is not set." in outcome.stderr


def test_the_logins_of_a_given_broker_are_at_its_address() -> None:
    broker = GivenBroker("amqp://admin:secret@[::1]:5673/vhost")

    assert broker.url("a b", "p@ss/word") == "amqp://a%20b:p%40ss%2Fword@[::1]:5673/vhost"


class Management(BaseHTTPRequestHandler):
    """RabbitMQ's management plugin, of which the answer is chosen by the path that it is under."""

    taken: tuple[str, bytes]

    def do_POST(self) -> None:
        type(self).taken = (self.path, self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(401 if self.path.startswith("/refused") else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def management() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Management)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://guest:guest@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_logins_are_added_to_a_given_broker_by_its_management_plugin(management: str, tmp_path: Path) -> None:
    path = tmp_path / "definitions.json"
    path.write_text("{}")

    await GivenBroker("amqp://127.0.0.1/", f"{management}/").import_definitions(path)

    assert Management.taken == ("/api/definitions", b"{}")


async def test_a_given_broker_that_takes_no_logins_is_no_reason_to_skip(management: str, tmp_path: Path) -> None:
    path = tmp_path / "definitions.json"
    path.write_text("{}")

    with pytest.raises(MissingServerError, match="TENURE_TEST_MANAGEMENT_URL is not set"):
        await GivenBroker("amqp://127.0.0.1/").import_definitions(path)
    for url in (f"{management}/refused", f"http://127.0.0.1:{free_port()}"):
        with pytest.raises(ServerFailedError, match="took no definitions"):
            await GivenBroker("amqp://127.0.0.1/", url).import_definitions(path)


def test_an_image_that_no_registry_has_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'no such image' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingImageError, match="Docker cannot get a:1: no such image"):
        require_image("a:1")


@needs_engine
def test_containers_serve_and_leave_nothing_behind(tmp_path: Path) -> None:
    servers = ThrowawayServers({FORCE: "containers"})
    path = tmp_path / "definitions.json"
    permission = {"user": "new", "vhost": "/", "configure": "", "write": "", "read": ".*"}
    user = {"name": "new", "password": "secret", "tags": ""}
    path.write_text(json.dumps({"users": [user], "permissions": [permission]}))

    async def use(postgres_url: str, broker_url: str) -> str:
        postgres = await asyncpg.connect(postgres_url)
        setting = await postgres.fetchval("SHOW fsync")
        await postgres.close()
        async with await aio_pika.connect(broker_url) as connection:
            await connection.channel()
        return str(setting)

    before = _containers()
    with servers.postgres(durable=False) as postgres, servers.broker() as broker:
        asyncio.run(broker.import_definitions(path))
        assert asyncio.run(use(postgres.admin_url, broker.url("new", "secret"))) == "off"

    assert _containers() <= before
    assert [line.partition(",")[0] for line in servers.told()] == ["Postgres: containers", "RabbitMQ: containers"]


def _containers() -> set[str]:
    """Return the containers of this run."""
    label = f"label={LABEL_SESSION_ID}={SESSION_ID}"
    said = subprocess.run(["docker", "ps", "-aq", "--filter", label], check=True, capture_output=True, text=True)
    return set(said.stdout.split())
