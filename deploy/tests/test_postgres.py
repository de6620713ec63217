import asyncio
import os
import pwd
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local.accounts import Account
from deploy.local.ports import PortTakenError
from deploy.local.postgres import PostgresServer
from deploy.local.processes import FolderInUseError, ServerFailedError, descendants, is_alive
from deploy.tests.conftest import Runner

PROGRAM = """
import asyncio, sys
from pathlib import Path
from deploy.local.ports import PortTakenError
from deploy.local.postgres import PostgresServer

async def main():
    server = PostgresServer(Path(sys.argv[1]), durable=False)
    await server.start()
    print(server.pid, server.admin_url, flush=True)
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(folder / "postgres", durable=False)  # a killed process leaves its writes to the kernel
    await server.start()
    yield server
    server.kill()


async def run(server: PostgresServer, statement: str, *, seconds: float = 10.0) -> object:
    connection = await asyncpg.connect(server.admin_url, timeout=seconds)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def owner_of(pid: int) -> int:
    return Path("/proc", str(pid)).stat().st_uid


async def test_it_answers_on_the_loopback_address_with_its_password_alone(server: PostgresServer) -> None:
    assert await run(server, "SELECT 1") == 1
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.admin_url.replace("tenure_admin:", "tenure_admin:wrong"))
    assert await run(server, "SHOW listen_addresses") == "127.0.0.1"


async def test_commits_wait_for_the_disk_unless_told_otherwise(server: PostgresServer) -> None:
    assert await run(server, "SHOW fsync") == "off"
    await server.stop()
    server = PostgresServer(server.folder)
    await server.start()
    assert await run(server, "SHOW fsync") == "on"
    assert await run(server, "SHOW synchronous_commit") == "on"
    assert await run(server, "SHOW full_page_writes") == "on"
    await server.stop()


async def test_data_survives_stop_and_start_on_the_same_port(server: PostgresServer) -> None:
    port = server.port
    await run(server, "CREATE TABLE kept AS SELECT 7 AS value")
    await server.stop()
    with pytest.raises(OSError, match="Connect call failed"):
        await run(server, "SELECT 1")
    await server.start()
    assert server.port == port
    assert await run(server, "SELECT value FROM kept") == 7


async def test_a_kill_leaves_no_process_and_loses_no_commit(server: PostgresServer) -> None:
    await run(server, "CREATE TABLE kept AS SELECT 7 AS value")
    connection = await asyncpg.connect(server.admin_url)
    family = [server.pid, *descendants(server.pid)]
    assert len(family) > 4
    server.kill()
    assert not any(is_alive(pid) for pid in family)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    await server.start()
    assert await run(server, "SELECT value FROM kept") == 7


async def test_a_frozen_server_is_silent_until_it_is_thawed(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.admin_url)
    server.freeze()
    asking = asyncio.create_task(connection.fetchval("SELECT 7"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asking), 0.5)
    server.thaw()
    assert await asking == 7
    await connection.close()


async def test_a_frozen_server_can_be_stopped(server: PostgresServer) -> None:
    server.freeze()
    await asyncio.wait_for(server.stop(), 15)
    with pytest.raises(ServerFailedError):
        _ = server.pid


async def test_a_second_runner_on_the_same_folder_is_refused_by_name(server: PostgresServer) -> None:
    with pytest.raises(FolderInUseError, match=f"in use by process {os.getpid()}"):
        await PostgresServer(server.folder).start()
    assert await run(server, "SELECT 1") == 1


async def test_what_a_killed_runner_left_is_ended_and_recovered(folder: Path, other_process: Runner) -> None:
    with other_process(PROGRAM, str(folder / "postgres")) as runner:
        assert runner.stdout is not None
        orphan, _ = (await asyncio.to_thread(runner.stdout.readline)).split()
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert is_alive(int(orphan))
    server = PostgresServer(folder / "postgres")
    await server.start()
    assert not is_alive(int(orphan))
    assert await run(server, "SELECT 1") == 1
    await server.stop()


async def test_a_pid_file_that_names_an_unrelated_process_does_not_hinder(server: PostgresServer) -> None:
    server.kill()
    pid_file = server.folder / "data" / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(pid_file.read_text().split()[0], str(os.getppid()), 1))
    await server.start()
    assert await run(server, "SELECT 1") == 1


async def test_a_taken_port_is_refused_with_its_owner(server: PostgresServer) -> None:
    await server.stop()
    with (
        socket.create_server(("127.0.0.1", server.port)),
        pytest.raises(PortTakenError, match=f"Port {server.port} is in use by process {os.getpid()}"),
    ):
        await server.start()


async def test_a_failed_start_shows_the_log_and_leaves_nothing(server: PostgresServer) -> None:
    await server.stop()
    (server.folder / "data" / "postgresql.conf").write_text("nonsense = 1\n")
    with pytest.raises(ServerFailedError, match="unrecognized configuration parameter"):
        await server.start()
    with pytest.raises(ServerFailedError):
        _ = server.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test here is this one when we are not root")
async def test_an_ordinary_user_runs_it_as_himself(folder: Path, other_process: Runner) -> None:
    entry = pwd.getpwnam("nobody")
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    account = Account(name="nobody", user=entry.pw_uid, group=entry.pw_gid)
    with other_process(PROGRAM, str(folder / "postgres"), account=account) as runner:
        assert runner.stdout is not None
        pid, url = (await asyncio.to_thread(runner.stdout.readline)).split()
        assert owner_of(int(pid)) == entry.pw_uid
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        runner.communicate()  # the end of its input is the end of the program, which ends the server
    assert not is_alive(int(pid))
