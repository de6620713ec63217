"""What the service needs of whatever makes environments, and the words in which it asks.

A driver is asked for small steps. Each call does one step of a job and says what there is to do next; what it says is
stored before the next step begins. So every step may be repeated: by a worker that did not live to store what it had
done, or by another one that took over. The record of an environment is there before the first step and until after the
last, whatever crashes between.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from services.provisioning.drivers.tenancy import parts_of

Sink: TypeAlias = Callable[[bytes], Coroutine[Any, Any, None]]
"""Takes a stream piece by piece."""

AT_ONCE = timedelta(0)


class NoEnvironmentError(Exception):
    """The tenant has no environment that credentials could be issued for, or that could be exported."""


class ThrottledError(Exception):
    """Nobody may work in the tenant's environment at the moment."""


class DriverUnavailableError(Exception):
    """What a driver works on does not answer, or not as it should; it may later. The text is for people."""


class MovingError(Exception):
    """The tenant's environment is being moved: nobody may work in it for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What an environment is to be like, and what its driver has made of it so far.

    A tenant has one of its own, and any of its products may have another beside it. They are as strictly apart as those
    of two tenants: whatever a driver names, guards or counts goes by `tenant_id`, and only what people are to read goes
    by `owner` and `product`.

    Attributes:
        tenant_id: what sets it apart from all others: the tenant's id, followed by a colon and the product in an
            environment of a product's own (see `tenancy_of`). What runs there takes all of it for its tenant's id.
        product: the product whose own environment it is; None for the tenant's own.
        isolation: ``pool``, ``bridge`` or ``silo``.
        connections: how many each login may hold, or None for the driver's default.
        is_throttled: whether credentials end and none are issued.
        products: the version of each product that runs there, by name.
        parameters: what its tier and products say for the driver, JSON.
        resources: what the driver has made, in the driver's own words, JSON; empty before it has begun.
    """

    environment_id: UUID
    tenant_id: str
    isolation: str
    region: str
    product: str | None = None
    connections: int | None = None
    is_throttled: bool = False
    products: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `ValueError` if its tenant's id and its product disagree."""
        if parts_of(self.tenant_id)[1] != self.product:
            raise ValueError(f"{self.tenant_id!r} is no environment of product {self.product!r}")

    @property
    def owner(self) -> str:
        """The id of the tenant whose it is, without the product."""
        return parts_of(self.tenant_id)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One step of a job.

    Attributes:
        environment: as it is now; for `Driver.throttle` and `Driver.deploy` with what it is to be like.
        target: for `Driver.move`, what it is to be like; its resources are empty unless it is where it is already.
        stage: what the step before has named to be next; empty at first.
        notes: what the steps before have noted, JSON; steps that were tried in vain included.
    """

    environment: Environment
    target: Environment | None = None
    stage: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Outcome: there is nothing left to do.

    Attributes:
        resources: all that there is now; nothing after `Driver.deprovision`.
        result: what whoever asked is told, JSON; after `Driver.deprovision` the number of deleted rows by table.
    """

    resources: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """Outcome: a step is done, and another is to follow.

    Attributes:
        stage: which; it may be the same again, for something that is waited for.
        resources: all that there is now.
        notes: for the steps to come.
        after: how long to wait before it.
        said: what has been reached, in a few words for people; they see it in the history of the workflow.
        has_switched: from now on the environment is the target, with these resources (`Driver.move` only).
    """

    stage: str
    resources: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)
    after: timedelta = AT_ONCE
    said: str | None = None
    has_switched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Outcome: the step did not succeed, and may when it is tried again.

    Attributes:
        detail: a sentence for people, without secrets.
        after: how long to wait at least.
    """

    detail: str
    after: timedelta = AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Outcome: this cannot be done. What the job has made so far is taken back, and whoever asked is told.

    Attributes:
        code: stable, machine-readable.
        detail: a sentence for people, without secrets.
    """

    code: str
    detail: str


Outcome: TypeAlias = Done | Next | Retry | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How much a driver can be given.

    Attributes:
        batch: the most tasks of one call.
        at_once: the most calls at a time.
        step: the longest that a call may take; it is cancelled then and counts as tried in vain.
    """

    batch: int = 1
    at_once: int = 4
    step: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a driver finds of an environment where it makes them, whatever our records say.

    Attributes:
        exists: whether anything of it is there.
        is_throttled: whether nobody may work in it.
        isolation: what it is, as far as can be seen; None where nothing is there.
        products: the version of each product that runs there, where the driver deploys them.
        detail: more for people, JSON without secrets.
    """

    exists: bool
    is_throttled: bool = False
    isolation: str | None = None
    products: Mapping[str, str] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


class Driver(Protocol):
    """Makes, changes and removes environments.

    All but `inspect` take tasks and return one `Outcome` for each, in order. They may be repeated at every stage. What
    they raise counts as `Retry` for each task; of several tasks each is then tried alone. No two environments of a call
    have the same `Environment.tenant_id`. None of them knows of jobs, workflows or messages.
    """

    @property
    def name(self) -> str:
        """What tiers and products call it."""
        ...

    @property
    def isolations(self) -> Sequence[str]:
        """What it can make."""
        ...

    def capacity(self, place: str) -> Capacity:
        """Return how much it can be given at a time.

        Args:
            place: of environments of which isolation; or ``move``, for what is carried from one to another.
        """
        ...

    async def provision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Make environments that can be used. Throttling is not part of it."""
        ...

    async def deprovision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Remove environments, whatever there is of them, whole or half made, or not at all."""
        ...

    async def move(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Let environments be at their targets with all their data, and leave nothing anywhere else.

        A target that is where the environment is already means that a move which was begun is given up: what it has
        made elsewhere, as the notes have it, is removed, and the environment is as usable as it is to be.
        """
        ...

    async def throttle(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Let environments be as open and have as many connections as they are to, at once and for those inside too."""
        ...

    async def deploy(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Let exactly the products run that are named, at their versions."""
        ...

    async def inspect(self, environments: Sequence[Environment]) -> Sequence[Inspection]:
        """Look at environments without changing anything, and return what is there, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Login:
    """A short-lived login that sees the rows of one tenant, in one of its environments.

    Attributes:
        password: exists here and with whoever asked for it; nothing stores it, and no representation shows it.
        expires_at: it opens no session from then on, and the sessions it has opened see nothing.
    """

    driver: str
    host: str
    port: int
    database: str
    username: str
    password: str = field(repr=False)
    expires_at: datetime

    @property
    def url(self) -> str:
        """All a client needs to connect, password included."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{self.username}:{self.password}@{host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsCredentials:
    """Short-lived credentials on Amazon's infrastructure that reach what one tenant keeps in one of its environments.

    Attributes:
        secret_access_key: exists here and with whoever asked for it; nothing stores it, and no representation shows it.
        session_token: likewise.
        expires_at: they are of no use from then on.
    """

    driver: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


@runtime_checkable
class Lender(Protocol):
    """A driver that issues short-lived credentials, each of one environment alone."""

    async def issue(self, environment: Environment) -> Login | AwsCredentials:
        """Make new credentials.

        Raises:
            NoEnvironmentError: there is no such environment.
            ThrottledError: nobody may work in it.
            MovingError: nobody may work in it for a moment.
            DriverUnavailableError: nobody can tell at the moment.
        """
        ...

    def sweep(self) -> Coroutine[Any, Any, int]:
        """Remove expired credentials, ending what sessions they still have, and return how many there were.

        Raises:
            DriverUnavailableError: it cannot be done at the moment.
        """
        ...


@runtime_checkable
class Exporter(Protocol):
    """A driver that can give everything a tenant keeps in its environment."""

    async def export(self, environment: Environment, write: Sink) -> dict[str, int]:
        """Write all rows of a tenant as lines of JSON, as they are at one moment and always in the same order.

        Args:
            write: gets piece after piece, cut anywhere.

        Returns:
            How many rows each table has, the empty ones included.

        Raises:
            NoEnvironmentError: there is no such environment.
        """
        ...
