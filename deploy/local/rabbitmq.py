"""A private RabbitMQ node: own name, ports, cookie and data folder, on the loopback address only."""

import asyncio
import atexit
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from deploy.local import processes
from deploy.local.packages import InstallationError, can_install, install
from deploy.local.ports import free_port, require_free
from deploy.local.processes import FolderLock, ServerFailedError, last_lines

ADMINISTRATOR = "tenure_admin"
"""The administrator of a node that was begun without definitions."""

_START_SECONDS = 90.0
_STOP_SECONDS = 20.0
_CONTROL_SECONDS = 60.0
_HANDSHAKE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_SETTLE_SECONDS = 1.0
_NODE = "tenure@localhost"
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = 1  # AMQP 0-9-1, 2.3.5: what `connection.start` comes in
_PROGRAMS = ("beam.smp", "epmd", "erl_child_setup", "inet_gethost")
_DEBIAN_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_CORE = ("rabbit-*", "rabbit_common-*", "rabbitmq_prelaunch-*")


class MissingBrokerError(Exception):
    """There is no RabbitMQ on this machine, and we cannot install one."""


class BrokerServer:
    """A RabbitMQ node that belongs to its data folder and is run by this object.

    It works as root and as an ordinary user, and shares nothing with a RabbitMQ that the machine may run itself: the
    node has its own ports, its own ``epmd`` (ended with it), cookie, configuration and no plugins. The handle belongs
    to no event loop.

    Args:
        folder: created when missing; holds configuration, data and log.
        definitions: a definitions file (users, virtual hosts, permissions, topology) that is loaded at every start,
            before the first connection is accepted. Without one there is a single administrator, see `admin_url`.
        port: the AMQP port on 127.0.0.1, a free one by default. It stays the same over restarts of this object.
        program: the ``rabbitmq-server`` to run, by default what `find_broker` finds.
    """

    def __init__(
        self, folder: Path, *, definitions: Path | None = None, port: int | None = None, program: Path | None = None
    ) -> None:
        self._program = program or find_broker()
        self._definitions = definitions.resolve() if definitions else None
        self._distribution_port = free_port()
        self._names_port = free_port()
        self._node: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None
        self.folder = folder.resolve()
        self.port = port or free_port()
        self._log = self.folder / "broker.log"
        self._complete = self.folder / "complete"
        self._keeping: threading.Timer | None = None
        self._lock = FolderLock(self.folder)

    @property
    def admin_url(self) -> str:
        """The administrator's URL. Only a node that was begun without definitions has this login."""
        return self.url(ADMINISTRATOR, self._password())

    @property
    def pid(self) -> int:
        """The process id of the Erlang machine.

        Raises:
            ServerFailedError: it does not run.
        """
        if self._node is None or self._node.poll() is not None:
            raise ServerFailedError("RabbitMQ does not run.")
        return self._node.pid

    def url(self, user: str, password: str) -> str:
        """Return the AMQP URL for a login, to the virtual host ``/``."""
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{self.port}/"

    async def start(self) -> None:
        """Run the node and return when it answers an AMQP handshake.

        Raises:
            ServerFailedError: it ended, or did not answer in time; with the end of its log.
            FolderInUseError: another process runs a node on the same folder.
            PortTakenError: somebody else listens on its port.
        """
        if self._node is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.acquire()
        try:
            await processes.in_thread(self._launch)
            await self._until_ready()
            self._keep_data_soon()
        except BaseException:
            self.kill()
            raise

    async def stop(self) -> None:
        """End the node in order: connections are closed and everything is written."""
        if self._node is not None:
            self.thaw()
            self._node.terminate()
            if await asyncio.to_thread(processes.wait_until, self._has_ended, seconds=_STOP_SECONDS):
                self._complete.touch()
        self.kill()

    def kill(self) -> None:
        """End the node, its helpers and its ``epmd`` with SIGKILL, as a power cut would; `start` recovers it.

        RabbitMQ 3.10 writes a new quorum queue's name to the disk half a second after it was declared (ra's
        ``ra_directory``, ``auto_save`` 500 ms). One that is killed sooner comes back without a leader, for good; data
        of such a first start is therefore thrown away by the next.
        """
        if self._keeping is not None:
            self._keeping.cancel()
        for process in (self._node, self._names):
            if process is not None:
                processes.kill(process.pid)
                process.wait()
        self._node = self._names = None
        self._lock.release()
        atexit.unregister(self.kill)

    def freeze(self) -> None:
        """Stop the node where it is: connections stay open and nobody answers."""
        processes.freeze(self.pid)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        if self._node is not None:
            processes.thaw(self._node.pid)

    async def import_definitions(self, path: Path) -> None:
        """Add what a definitions file holds to the running node; what is there already stays.

        Args:
            path: an absolute path.

        Raises:
            ServerFailedError: the node refused it.
        """
        await self.control("import_definitions", str(path))

    async def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` against this node and return what it prints. It takes a second or two.

        Raises:
            ServerFailedError: it failed, with what it said, or took longer than a minute.
        """
        process = await asyncio.create_subprocess_exec(
            str(self._program.with_name("rabbitmqctl")),
            *("--quiet", "--node", _NODE, *arguments),
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), _CONTROL_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise ServerFailedError(f"rabbitmqctl {arguments[0]} took more than {_CONTROL_SECONDS:.0f} s.") from None
        text = output.decode(errors="replace")
        if process.returncode != 0:
            raise ServerFailedError(f"rabbitmqctl {arguments[0]} failed:\n{text.strip()}")
        return text

    def _launch(self) -> None:
        self._check_definitions()
        _end_leftovers(self.folder)
        if not self._complete.exists():
            shutil.rmtree(self.folder / "data", ignore_errors=True)
        require_free(self.port)
        self._write_configuration()
        atexit.register(self.kill)
        with self._log.open("ab") as log:
            self._names = self._spawn(["epmd", "-port", str(self._names_port), "-address", "127.0.0.1"], log.fileno())
            self._node = self._spawn([str(self._program)], log.fileno())

    def _keep_data_soon(self) -> None:
        """Note that the data are worth keeping, as soon as the node has written down the names of its queues."""
        self._keeping = threading.Timer(_SETTLE_SECONDS, self._complete.touch)
        self._keeping.daemon = True
        self._keeping.start()

    def _spawn(self, command: list[str], log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the terminal's Ctrl-C is for the runner, which stops servers last
        )

    def _check_definitions(self) -> None:
        """Refuse a damaged file: RabbitMQ 3.10 would load nothing from it, say nothing, and start."""
        if self._definitions is None:
            return
        try:
            json.loads(self._definitions.read_bytes())
        except (OSError, ValueError) as error:
            raise ServerFailedError(f"{self._definitions} is no definitions file: {error}") from error

    def _write_configuration(self) -> None:
        _write_private(self.folder / ".erlang.cookie", secrets.token_hex(20), keep=True, mode=0o400)
        _write_private(self.folder / "admin-password", secrets.token_hex(20), keep=True)
        _write_private(self.folder / "enabled_plugins", "[].")
        _write_private(self.folder / "rabbitmq.conf", "".join(f"{line}\n" for line in self._settings()))
        self._link_core()

    def _settings(self) -> Iterator[str]:
        """Yield the lines of ``rabbitmq.conf``."""
        yield f"listeners.tcp.1 = 127.0.0.1:{self.port}"
        yield "heartbeat = 10"  # a frozen peer is noticed after 20 s, not 120
        yield "disk_free_limit.absolute = 50MB"
        yield "raft.wal_max_size_bytes = 67108864"  # 64 MiB; the default lets every node grow to half a gigabyte
        if self._definitions:
            yield f"load_definitions = {self._definitions}"
        else:
            yield f"default_user = {ADMINISTRATOR}"
            yield f"default_pass = {self._password()}"

    def _password(self) -> str:
        return (self.folder / "admin-password").read_text(encoding="ascii").strip()

    def _link_core(self) -> None:
        """Show the node only its own core instead of 60 plugins that it reads and then leaves off: half the boot time.

        Measured with 3.10.8 on two cores: 4.2 s with all plugins in sight, 2.9 s with the core alone.
        """
        links = self.folder / "plugins"
        shutil.rmtree(links, ignore_errors=True)
        links.mkdir()
        for pattern in _CORE:
            for source in (self._program.resolve().parent.parent / "plugins").glob(pattern):
                (links / source.name).symlink_to(source)

    def _environment(self) -> dict[str, str]:
        """Return the whole environment of the node: nothing of the machine's own RabbitMQ reaches it."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(self.folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PLUGINS_DIR": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script becomes the node instead of waiting for it
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(self._erlang_arguments()),
        }

    def _erlang_arguments(self) -> Iterator[str]:
        """Yield what lets Erlang take its node name itself.

        Left to RabbitMQ, a second Erlang machine is started first, to start an ``epmd`` that outlives the node.
        """
        yield f"-sname {_NODE} -start_epmd false"
        yield "-kernel inet_dist_use_interface {127,0,0,1}"
        yield f"-kernel inet_dist_listen_min {self._distribution_port}"
        yield f"-kernel inet_dist_listen_max {self._distribution_port}"

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not await speaks_amqp(self.port):
            if self._has_ended():
                raise ServerFailedError(f"RabbitMQ ended while starting. Its last words:\n{last_lines(self._log)}")
            if time.monotonic() > deadline:
                raise ServerFailedError(
                    f"RabbitMQ did not answer on port {self.port} within {_START_SECONDS:.0f} s."
                    f" Its last words:\n{last_lines(self._log)}"
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _has_ended(self) -> bool:
        return self._node is None or self._node.poll() is not None


def erase(folder: Path) -> None:
    """Remove a node's data folder, and the node that a killed runner may have left on it; it must not be in use."""
    _end_leftovers(folder.resolve())
    shutil.rmtree(folder, ignore_errors=True)


def _end_leftovers(folder: Path) -> None:
    for pid in processes.working_in(folder, _PROGRAMS):
        processes.kill(pid)


def find_broker(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the ``rabbitmq-server`` to run, installing Debian's package when there is none and we are root.

    It is never asked for its version: ``rabbitmq-server --version`` starts a node.

    Args:
        say: told before something is installed, because that takes long.

    Raises:
        MissingBrokerError: there is none; the message says what to run.
    """
    if program := _installed_broker():
        return program
    if can_install():
        say("RabbitMQ    not on this machine; installing Debian's package, which may take a minute")
        _install_broker()
        if program := _installed_broker():
            return program
    raise MissingBrokerError(
        "RabbitMQ is not installed on this machine. One of these will do:\n"
        "  sudo apt-get install --no-install-recommends rabbitmq-server\n"
        "  docker run -d -p 127.0.0.1:5672:5672 rabbitmq:4   and   "
        "export TENURE_AMQP_URL=amqp://guest:guest@127.0.0.1:5672/\n"
        "  export TENURE_AMQP_URL=amqp://user:password@host:5672/   to use a broker that runs already"
    )


def _installed_broker() -> Path | None:
    if _DEBIAN_PROGRAM.exists():
        return _DEBIAN_PROGRAM
    # Debian's command is a wrapper that insists on its own user and data folder; any other is the real start script.
    found = shutil.which("rabbitmq-server")
    if found and "wrapper" not in Path(found).resolve().name and Path(found).with_name("rabbitmqctl").exists():
        return Path(found)
    return None


def _install_broker() -> None:
    try:
        install("rabbitmq-server")
    except InstallationError as error:
        raise MissingBrokerError(str(error)) from None


async def speaks_amqp(port: int) -> bool:
    """Tell whether a server answers the first step of AMQP's handshake."""
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(_PROTOCOL_HEADER)
                answer = await reader.read(1)
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return answer == bytes([_METHOD_FRAME])


def _write_private(path: Path, text: str, *, keep: bool = False, mode: int = 0o600) -> None:
    """Write a file that only we can read; ``keep`` leaves one that exists already as it is."""
    if keep and path.exists():
        return
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
