"""The servers that tests run against, come by in the way that `deploy.local.throwaway_choice` chooses."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote, urlsplit

import httpx2

from deploy.local.postgres import PostgresServer
from deploy.local.processes import ServerFailedError
from deploy.local.rabbitmq import BrokerServer
from deploy.local.throwaway import Broker, Server
from deploy.local.throwaway_choice import POSTGRES, RABBITMQ, Choice, Engine, Kind, MissingServerError, Way, choose
from deploy.local.throwaway_containers import ThrowawayBroker, ThrowawayPostgres

MANAGEMENT = "TENURE_TEST_MANAGEMENT_URL"
"""The variable with the URL of a given broker's management plugin, an administrator's login in it."""

_MANAGEMENT_SECONDS = 30.0


class _Contained(Protocol):
    def start(self) -> None: ...
    def kill(self) -> None: ...


class _Embedded(Protocol):
    folder: Path

    async def start(self) -> None: ...
    def kill(self) -> None: ...


InContainer = TypeVar("InContainer", bound=_Contained)
InFolder = TypeVar("InFolder", bound=_Embedded)


@dataclass(frozen=True)
class GivenServer:
    """A server that somebody else runs and may use for more than tests.

    Attributes:
        admin_url: the URL of a login that may do everything.
    """

    admin_url: str


@dataclass(frozen=True)
class GivenBroker(GivenServer):
    """A RabbitMQ that somebody else runs.

    Attributes:
        management_url: of its management plugin, by which logins are added; AMQP has no word for them.
    """

    management_url: str | None = None

    def url(self, user: str, password: str) -> str:
        """Return the AMQP URL for a login, to the virtual host that was given."""
        given = urlsplit(self.admin_url)
        place = given.netloc.rpartition("@")[2]
        return given._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{place}").geturl()

    async def import_definitions(self, path: Path) -> None:
        """Add what a definitions file holds to the running node; what is there already stays.

        Raises:
            MissingServerError: the management plugin was not given.
            ServerFailedError: it refused, or did not answer.
        """
        if not self.management_url:
            raise MissingServerError(f"Logins cannot be added to the given RabbitMQ: {MANAGEMENT} is not set.")
        await asyncio.to_thread(_post_definitions, self.management_url, path)


class ThrowawayServers:
    """The servers of one run of tests, each chosen once; keeps what is to be told of them.

    Args:
        environment: the variables that choose.
        engine: what is known of Docker.
    """

    def __init__(self, environment: Mapping[str, str], engine: Engine | None = None) -> None:
        self._environment = environment
        self._engine = engine or Engine()
        self._choices: dict[Kind, Choice] = {}
        self._told: list[str] = []

    def choice(self, kind: Kind) -> Choice:
        """Return how a kind of server is come by; see `choose`."""
        if kind not in self._choices:
            self._choices[kind] = choose(kind, self._environment, self._engine)
        return self._choices[kind]

    def told(self) -> list[str]:
        """Return a line for each server that ran: which way, and how many seconds its start took."""
        return list(self._told)

    def postgres(self, *, durable: bool) -> AbstractContextManager[Server]:
        """Return a Postgres to enter, whose superuser we are then.

        Args:
            durable: whether a commit waits for the disk; where the server was given, its giver has decided that.
        """
        if self.choice(POSTGRES).way is Way.GIVEN:
            return nullcontext(GivenServer(self._given(POSTGRES)))
        return self._running(
            POSTGRES,
            lambda: ThrowawayPostgres(POSTGRES.image, durable=durable),
            lambda folder: PostgresServer(folder, durable=durable),
        )

    def broker(self) -> AbstractContextManager[Broker]:
        """Return a RabbitMQ to enter, whose administrator we are then.

        Entering it raises `MissingBrokerError` where an embedded one was chosen and none is installed.
        """
        if self.choice(RABBITMQ).way is Way.GIVEN:
            return nullcontext(GivenBroker(self._given(RABBITMQ), self._environment.get(MANAGEMENT)))
        return self._running(RABBITMQ, lambda: ThrowawayBroker(RABBITMQ.image), BrokerServer)

    def _given(self, kind: Kind) -> str:
        self._told.append(f"{kind.name}: {Way.GIVEN}, by {kind.variable}")
        return self._environment[kind.variable]

    @contextmanager
    def _running(
        self, kind: Kind, in_container: Callable[[], InContainer], in_folder: Callable[[Path], InFolder]
    ) -> Iterator[InContainer | InFolder]:
        contained = self._contained(kind, in_container)
        if contained:
            try:
                yield contained
            finally:
                contained.kill()
            return
        embedded = self._embedded(kind, in_folder)
        try:
            yield embedded
        finally:
            embedded.kill()
            shutil.rmtree(embedded.folder)

    def _contained(self, kind: Kind, make: Callable[[], InContainer]) -> InContainer | None:
        """Start a container, or return nothing where another way was chosen or is second best."""
        choice, began = self.choice(kind), time.monotonic()
        if choice.way is not Way.CONTAINERS:
            return None
        try:
            server = make()
            server.start()
        except ServerFailedError as error:
            if choice.forced:
                raise
            self._choices[kind] = Choice(Way.EMBEDDED, str(error))
            return None
        self._tell(kind, began)
        return server

    def _embedded(self, kind: Kind, make: Callable[[Path], InFolder]) -> InFolder:
        began = time.monotonic()
        server = make(Path(tempfile.mkdtemp(prefix=f"tenure-{kind.name.lower()}-")))
        run(server.start())
        self._tell(kind, began)
        return server

    def _tell(self, kind: Kind, began: float) -> None:
        choice = self.choice(kind)
        self._told.append(f"{kind.name}: {choice.way}, up in {time.monotonic() - began:.1f} s ({choice.why})")


def run(work: Coroutine[None, None, None]) -> None:
    """Run something asynchronous outside any test's event loop."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()


def _post_definitions(management_url: str, path: Path) -> None:
    url = f"{management_url.rstrip('/')}/api/definitions"
    headers = {"Content-Type": "application/json"}
    try:
        answer = httpx2.post(url, content=path.read_bytes(), headers=headers, timeout=_MANAGEMENT_SECONDS)
        answer.raise_for_status()
    except httpx2.HTTPError as error:
        raise ServerFailedError(f"The management plugin of the given RabbitMQ took no definitions: {error}") from None
