"""Throw-away servers for tests in containers, by testcontainers; data and containers are gone after the run."""

import asyncio
import atexit
import secrets
import subprocess
from pathlib import Path
from urllib.parse import quote

from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from deploy.local.processes import ServerFailedError

_LOOK_SECONDS = 10.0
_PULL_SECONDS = 600.0
_START_SECONDS = 90
_POSTGRES_PORT = 5432
_AMQP_PORT = 5672
_ADMINISTRATOR = "tenure_admin"
_POSTGRES_SETTINGS = {"max_connections": "200", "password_encryption": "scram-sha-256", "timezone": "UTC", "jit": "off"}
_WITHOUT_DISK = {"fsync": "off", "full_page_writes": "off"}
_BROKER_SETTINGS = "heartbeat = 10\ndisk_free_limit.absolute = 50MB\nraft.wal_max_size_bytes = 67108864\n"
_BROKER_IS_UP = "Server startup complete"
_DEFINITIONS = "/tmp/definitions.json"  # noqa: S108 - inside the container, which is ours alone


class MissingImageError(Exception):
    """The engine has no such image and cannot get it; the message ends with what it said."""


def require_image(image: str) -> None:
    """Let the engine get an image unless it has it.

    Raises:
        MissingImageError: it cannot, or not within ten minutes.
    """
    if has_image(image):
        return
    try:
        outcome = _docker("pull", "--quiet", image, seconds=_PULL_SECONDS)
    except subprocess.TimeoutExpired:
        raise MissingImageError(f"Docker did not get {image} within {_PULL_SECONDS:.0f} s.") from None
    if outcome.returncode != 0:
        raise MissingImageError(f"Docker cannot get {image}: {outcome.stderr.strip()}")


def has_image(image: str) -> bool:
    """Tell whether the engine has an image."""
    try:
        return _docker("image", "inspect", image, seconds=_LOOK_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class ThrowawayPostgres:
    """A Postgres in a container, whose superuser we are.

    Args:
        image: one that behaves as the official image does; the engine has it.
        durable: whether a commit waits for the disk, as tests want that kill servers.
    """

    def __init__(self, image: str, *, durable: bool) -> None:
        settings = _POSTGRES_SETTINGS | ({} if durable else _WITHOUT_DISK)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._container = PostgresContainer(
            image,
            username=_ADMINISTRATOR,
            password=secrets.token_urlsafe(24),
            dbname="postgres",
            driver=None,
            command=["postgres", *options],
            env={"POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C.UTF-8"},  # sorted as the embedded one sorts
        )

    @property
    def admin_url(self) -> str:
        """The superuser's URL, to the database ``postgres``."""
        return str(self._container.get_connection_url())

    def start(self) -> None:
        """Run the container and return when the server answers.

        Raises:
            ServerFailedError: it did not.
        """
        _start(self._container)

    def kill(self) -> None:
        """Remove the container and its data."""
        _remove(self._container)


class ThrowawayBroker:
    """A RabbitMQ in a container, whose administrator we are.

    Args:
        image: one that behaves as the official image does; the engine has it.
    """

    def __init__(self, image: str) -> None:
        self._password = secrets.token_urlsafe(24)
        # Not testcontainers' own class for RabbitMQ: it brings a second AMQP client and warns of itself when imported.
        self._container = (
            DockerContainer(image)
            .with_exposed_ports(_AMQP_PORT)
            .with_envs(RABBITMQ_DEFAULT_USER=_ADMINISTRATOR, RABBITMQ_DEFAULT_PASS=self._password)
            .with_copy_into_container(_BROKER_SETTINGS.encode(), "/etc/rabbitmq/conf.d/90-tenure.conf")
            .waiting_for(LogMessageWaitStrategy(_BROKER_IS_UP).with_startup_timeout(_START_SECONDS))
        )

    @property
    def admin_url(self) -> str:
        """The administrator's URL."""
        return self.url(_ADMINISTRATOR, self._password)

    def url(self, user: str, password: str) -> str:
        """Return the AMQP URL for a login, to the virtual host ``/``."""
        host, port = self._container.get_container_host_ip(), self._container.get_exposed_port(_AMQP_PORT)
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/"

    def start(self) -> None:
        """Run the container and return when the node has started.

        Raises:
            ServerFailedError: it did not.
        """
        _start(self._container)

    def kill(self) -> None:
        """Remove the container and its data."""
        _remove(self._container)

    async def import_definitions(self, path: Path) -> None:
        """Add what a definitions file holds to the running node; what is there already stays.

        Raises:
            ServerFailedError: the node refused it.
        """
        await asyncio.to_thread(self._import, path)

    def _import(self, path: Path) -> None:
        self._container.copy_into_container(path.read_bytes(), _DEFINITIONS)
        outcome = self._container.exec(["rabbitmqctl", "--quiet", "import_definitions", _DEFINITIONS])
        if outcome.exit_code != 0:
            raise ServerFailedError(f"rabbitmqctl import_definitions failed:\n{outcome.output.decode()}")


def _start(container: DockerContainer) -> None:
    if not has_image(testcontainers_config.ryuk_image):  # removes what a killed run left; worth no download
        testcontainers_config.ryuk_disabled = True
    atexit.register(container.stop)
    try:
        container.start()
    except Exception as error:  # whatever the engine or the wait raised
        _remove(container)
        raise ServerFailedError(f"{container.image} did not start in a container: {error}") from error


def _remove(container: DockerContainer) -> None:
    container.stop()
    atexit.unregister(container.stop)


def _docker(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True, timeout=seconds)
