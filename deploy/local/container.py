"""RabbitMQ in a container, for machines that have a Docker engine and no RabbitMQ, and nobody who may install one."""

import asyncio
import atexit
import hashlib
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from deploy.local.ports import free_port
from deploy.local.processes import FolderLock, ServerFailedError, in_thread
from deploy.local.rabbitmq import MissingBrokerError, speaks_amqp

IMAGE = "rabbitmq:4-management"
"""What is run; pulled when the engine does not have it."""

_CONFIGURATION_FILE = "tenure.conf"
_CONFIGURATION = """\
load_definitions = /etc/tenure/definitions.json
heartbeat = 10
disk_free_limit.absolute = 50MB
"""
_ENGINE_SECONDS = 5.0
_COMMAND_SECONDS = 60.0
_PULL_SECONDS = 600.0
_START_SECONDS = 120.0
_STOP_SECONDS = 20
_POLL_SECONDS = 0.2


def engine_answers() -> bool:
    """Tell whether there is a Docker engine that does what we ask."""
    if not shutil.which("docker"):
        return False
    try:
        return _docker("version", seconds=_ENGINE_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class ContainerBroker:
    """A RabbitMQ node in a container of its own; its data are kept in a volume that belongs to the data folder.

    Args:
        folder: created when missing; holds the configuration.
        definitions: the definitions file that is loaded at every start.
    """

    def __init__(self, folder: Path, *, definitions: Path) -> None:
        self.folder = folder.resolve()
        self.port = free_port()
        self._definitions = definitions
        self._name = _name(self.folder)
        self._lock = FolderLock(self.folder)

    def url(self, user: str, password: str) -> str:
        """Return the AMQP URL for a login, to the virtual host ``/``."""
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{self.port}/"

    async def start(self) -> None:
        """Run the container and return when the node answers an AMQP handshake.

        Raises:
            MissingBrokerError: the engine has no such image and cannot get it.
            ServerFailedError: the node ended, or did not answer in time; with the end of its log.
            FolderInUseError: another process runs a node on the same folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.acquire()
        try:
            await in_thread(self._launch)
            await self._until_ready()
        except BaseException:
            self.kill()
            raise

    async def stop(self) -> None:
        """End the node in order: connections are closed and everything is written."""
        await in_thread(lambda: _docker("stop", "--time", str(_STOP_SECONDS), self._name))
        self.kill()

    def kill(self) -> None:
        """End the container at once; the volume stays."""
        _docker("rm", "--force", self._name)
        atexit.unregister(self.kill)
        self._lock.release()

    def _launch(self) -> None:
        if _docker("image", "inspect", IMAGE).returncode != 0:
            _pull()
        _docker("rm", "--force", self._name)  # what a killed runner left
        # The node's user reads them from inside; on this machine the folder keeps everybody else out.
        configuration, definitions = self.folder / _CONFIGURATION_FILE, self.folder / "definitions.json"
        configuration.write_text(_CONFIGURATION, encoding="ascii")
        definitions.write_bytes(self._definitions.read_bytes())
        for path in (configuration, definitions):
            path.chmod(0o644)
        atexit.register(self.kill)
        outcome = _docker(
            *("run", "--detach", "--name", self._name, "--hostname", "tenure"),  # the node's data go by its host name
            *("--publish", f"127.0.0.1:{self.port}:5672"),
            *("--volume", f"{self._name}:/var/lib/rabbitmq"),
            *("--volume", f"{configuration}:/etc/rabbitmq/conf.d/90-tenure.conf:ro"),
            *("--volume", f"{definitions}:/etc/tenure/definitions.json:ro"),
            IMAGE,
        )
        if outcome.returncode != 0:
            raise ServerFailedError(f"Docker did not run {IMAGE}: {outcome.stderr.strip()}")

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not await speaks_amqp(self.port):
            state = await in_thread(lambda: _docker("inspect", "--format", "{{.State.Running}}", self._name))
            if state.stdout.strip() != "true" or time.monotonic() > deadline:
                words = await in_thread(lambda: _docker("logs", "--tail", "20", self._name))
                raise ServerFailedError(f"RabbitMQ did not start in its container. Its last words:\n{words.stdout}")
            await asyncio.sleep(_POLL_SECONDS)


def erase(folder: Path) -> None:
    """Remove a folder's container and its volume, where there are any."""
    if (folder / _CONFIGURATION_FILE).exists():
        _docker("rm", "--force", _name(folder.resolve()))
        _docker("volume", "rm", "--force", _name(folder.resolve()))


def _name(folder: Path) -> str:
    return f"tenure-rabbitmq-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def _pull() -> None:
    outcome = _docker("pull", "--quiet", IMAGE, seconds=_PULL_SECONDS)
    if outcome.returncode != 0:
        raise MissingBrokerError(f"There is no RabbitMQ here, and Docker cannot get {IMAGE}: {outcome.stderr.strip()}")


def _docker(*arguments: str, seconds: float = _COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True, timeout=seconds)
