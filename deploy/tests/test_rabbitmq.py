import asyncio
import base64
import hashlib
import json
import os
import pwd
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import aiormq
import pytest

from deploy.local import processes, rabbitmq
from deploy.local.accounts import Account
from deploy.local.processes import ServerFailedError, descendants, is_alive, name_of
from deploy.local.rabbitmq import BrokerServer, MissingBrokerError, find_broker
from deploy.tests.conftest import Runner

pytestmark = pytest.mark.broker

PROGRAM = """
import asyncio, sys
from pathlib import Path
from deploy.local.rabbitmq import BrokerServer

async def main():
    server = BrokerServer(Path(sys.argv[1]))
    await server.start()
    print(server.pid, server.admin_url, flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""

ARGUMENTS = {"x-queue-type": "quorum"}


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[BrokerServer]:
    definitions = folder / "definitions.json"
    definitions.write_text(json.dumps({**definitions_with("work"), **logins()}))
    server = BrokerServer(folder / "broker", definitions=definitions)
    await server.start()
    yield server
    server.kill()


def logins() -> dict[str, object]:
    return {
        "vhosts": [{"name": "/"}],
        "users": [{"name": "tester", "tags": "", "password_hash": password_hash("se/cret")}],
        "permissions": [{"user": "tester", "vhost": "/", "configure": "", "write": ".*", "read": ".*"}],
    }


def definitions_with(queue: str) -> dict[str, object]:
    """Return a topology of one quorum queue behind an exchange, as RabbitMQ exports it."""
    return {
        "queues": [{"name": queue, "vhost": "/", "durable": True, "auto_delete": False, "arguments": ARGUMENTS}],
        "exchanges": [
            {
                "name": "events",
                "vhost": "/",
                "type": "topic",
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
        ],
        "bindings": [
            {
                "source": "events",
                "vhost": "/",
                "destination": queue,
                "destination_type": "queue",
                "routing_key": queue,
                "arguments": {},
            }
        ],
    }


def password_hash(password: str) -> str:
    """Return what a definitions file holds for a password (rabbitmq.com/docs/passwords)."""
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


async def publish(url: str, key: str, body: bytes) -> None:
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        exchange = await channel.get_exchange("events", ensure=False)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await exchange.publish(message, key, timeout=10)


async def take(url: str, queue: str) -> bytes:
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        message = await (await channel.get_queue(queue, ensure=False)).get(timeout=10)
        await message.ack()
        return message.body


async def test_it_lives_through_stop_kill_freeze_and_import(server: BrokerServer) -> None:
    """One story, because each start of a node takes some seconds."""
    url = server.url("tester", "se/cret")
    await publish(url, "work", b"before the kill")

    assert "amq.topic" in await server.control("list_exchanges", "name")
    await asyncio.sleep(1)  # a new queue's name is on the disk half a second later, see `BrokerServer.kill`
    family = [server.pid, *descendants(server.pid)]
    server.kill()
    assert not any(is_alive(pid) for pid in family)
    with pytest.raises(aiormq.exceptions.AMQPConnectionError):
        await publish(url, "work", b"to nobody")

    await server.start()
    assert await take(url, "work") == b"before the kill"

    more = server.folder.parent / "more.json"
    more.write_text(json.dumps(definitions_with("more")))
    await server.import_definitions(more)
    await publish(url, "more", b"imported")

    server.freeze()
    taking = asyncio.create_task(take(url, "more"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(taking), 0.5)
    server.thaw()
    assert await taking == b"imported"

    await publish(url, "work", b"before the stop")
    server.freeze()
    await server.stop()
    await server.start()
    assert await take(url, "work") == b"before the stop"

    with pytest.raises(ServerFailedError, match="does not exist"):
        await server.control("delete_user", "nobody")


async def test_what_a_killed_runner_left_is_ended(folder: Path, other_process: Runner) -> None:
    with other_process(PROGRAM, str(folder / "broker")) as runner:
        assert runner.stdout is not None
        orphan = int((await asyncio.to_thread(runner.stdout.readline)).split()[0])
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert name_of(orphan) == "beam.smp"
    server = BrokerServer(folder / "broker")
    await server.start()
    assert not is_alive(orphan)
    connection = await aio_pika.connect(server.admin_url)
    await connection.close()
    server.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test here is this one when we are not root")
async def test_an_ordinary_user_runs_it_as_himself(folder: Path, other_process: Runner) -> None:
    entry = pwd.getpwnam("nobody")
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    account = Account(name="nobody", user=entry.pw_uid, group=entry.pw_gid)
    with other_process(PROGRAM, str(folder / "broker"), account=account) as runner:
        assert runner.stdout is not None
        url = (await asyncio.to_thread(runner.stdout.readline)).split()[1]
        connection = await aio_pika.connect(url)
        await connection.close()
        runner.communicate()  # the end of its input is the end of the program, which ends the node


async def test_damaged_definitions_are_refused_before_anything_runs(folder: Path) -> None:
    definitions = folder / "definitions.json"
    definitions.write_text("{ this is not json")
    server = BrokerServer(folder / "broker", definitions=definitions)
    with pytest.raises(ServerFailedError, match="no definitions file"):
        await server.start()


async def test_a_failed_start_shows_the_log_and_leaves_nothing(folder: Path) -> None:
    program = folder / "rabbitmq-server"
    program.write_text("#!/bin/sh\necho no disk, no fun\nexit 1\n")
    program.chmod(0o755)
    server = BrokerServer(folder / "broker", program=program)
    with pytest.raises(ServerFailedError, match="no disk, no fun"):
        await server.start()
    assert processes.working_in(server.folder, ("beam.smp", "epmd")) == []
    with pytest.raises(ServerFailedError, match="does not run"):
        _ = server.pid


def test_without_rabbitmq_the_message_says_what_to_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq, "_DEBIAN_PROGRAM", folder / "nothing")
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(MissingBrokerError) as missing:
        find_broker()
    assert "apt-get install --no-install-recommends rabbitmq-server" in str(missing.value)
    assert "TENURE_AMQP_URL" in str(missing.value)


async def test_a_first_start_that_was_broken_off_is_begun_anew(server: BrokerServer) -> None:
    server.kill()  # before the node has written down which queues it has
    await server.start()
    url = server.url("tester", "se/cret")
    async with asyncio.timeout(10):
        await publish(url, "work", b"kept")
        assert await take(url, "work") == b"kept"
