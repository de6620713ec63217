"""The driver that makes environments on Amazon's infrastructure: a share of a table and a bucket, or an account."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from services.provisioning.drivers.aws.calls import Calls, Credentials, NoAnswerError, RefusedCallError
from services.provisioning.drivers.aws.pool import Pool
from services.provisioning.drivers.aws.roles import Roles
from services.provisioning.drivers.aws.silo import Silos
from services.provisioning.drivers.aws.terms import AwsTerms
from services.provisioning.drivers.port import (
    AwsCredentials,
    Capacity,
    Done,
    Environment,
    Inspection,
    NoEnvironmentError,
    Outcome,
    Refused,
    Retry,
    Task,
)
from shared.clock import Clock

_CAPACITY = {
    "pool": Capacity(batch=1, at_once=8, step=timedelta(minutes=5)),
    "silo": Capacity(batch=1, at_once=20, step=timedelta(minutes=5)),
    "move": Capacity(batch=1, at_once=1),
}
_THROTTLED_FOR = timedelta(seconds=15)
_SWAMPED = "Amazon is asked too often."


class AwsDriver:
    """The `Driver` for Amazon's infrastructure, which is a `Lender` as well.

    Nothing is carried between pool and silo: a move is refused.
    """

    name = "aws"

    def __init__(self, terms: AwsTerms, *, clock: Clock) -> None:
        self._terms = terms
        self._roles = Roles(Calls(terms), terms, clock=clock)
        self._parts: dict[str, Pool | Silos] = {}
        self._pool = Pool(self._roles, terms, clock=clock) if terms.pool else None
        if self._pool is not None:
            self._parts["pool"] = self._pool
        self._silos = Silos(self._roles, terms) if terms.silo else None
        if self._silos is not None:
            self._parts["silo"] = self._silos

    @property
    def isolations(self) -> Sequence[str]:
        """What the operator has set up."""
        return tuple(self._parts)

    def capacity(self, place: str) -> Capacity:
        """Return how much it can be given of environments of one isolation, and of ``move``."""
        return _CAPACITY[place]

    async def provision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.provision`."""
        return [await self._step(task, lambda part: part.provision) for task in tasks]

    async def deprovision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.deprovision`."""
        return [await self._step(task, lambda part: part.deprovision) for task in tasks]

    async def throttle(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.throttle`."""
        return [await self._step(task, lambda part: part.throttle) for task in tasks]

    async def deploy(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Write down which products run at which versions, for what installs them."""
        return [await self._step(task, lambda part: part.deploy) for task in tasks]

    async def move(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Refuse; only what is there already can be."""
        return [self._move(task) for task in tasks]

    def _move(self, task: Task) -> Outcome:
        if task.target is not None and task.target.isolation == task.environment.isolation:
            return Done(resources=task.environment.resources)
        return Refused(code="unsupported_move", detail="This driver carries nothing between a pool and a silo.")

    async def inspect(self, environments: Sequence[Environment]) -> Sequence[Inspection]:
        """See `Driver.inspect`.

        Raises:
            RefusedCallError: Amazon does not let us look.
            NoAnswerError: Amazon does not answer.
        """
        return [await self._parts[each.isolation].inspect(each) for each in environments]

    async def issue(self, environment: Environment) -> AwsCredentials:
        """See `Lender.issue`; credentials of Amazon's security token service, for the shortest time there is.

        Raises:
            RefusedCallError: Amazon does not lend them.
            NoAnswerError: Amazon does not answer.
        """
        part = self._parts.get(environment.isolation)
        if part is None:
            raise NoEnvironmentError
        issued: Credentials = await part.issue(environment)
        return AwsCredentials(
            driver=self.name,
            region=environment.resources.get("region") or self._terms.region_of(environment.region),
            access_key_id=issued.access_key_id,
            secret_access_key=issued.secret_access_key,
            session_token=issued.session_token,
            expires_at=issued.expires_at,
        )

    async def let_send_mail(self, environment: Environment, *, is_allowed: bool) -> None:
        """Let mail be sent from a silo, or none; see `services.provisioning.mail.Switch`.

        Raises:
            NoEnvironmentError: there is no silo.
            RefusedCallError: Amazon does not let us.
            NoAnswerError: Amazon does not answer.
        """
        if self._silos is None or environment.isolation != "silo":
            raise NoEnvironmentError
        await self._silos.let_send_mail(environment, is_allowed=is_allowed)

    async def sweep(self) -> int:
        """Remove what closed sessions that have expired by now; expired credentials are nothing that could be removed.

        Raises:
            RefusedCallError: Amazon does not let us.
            NoAnswerError: Amazon does not answer.
        """
        return 0 if self._pool is None else await self._pool.sweep()

    def close(self) -> None:
        """Ask nothing any more, and close all connections."""
        self._roles.close()

    async def _step(
        self, task: Task, method: Callable[[Pool | Silos], Callable[[Task], Awaitable[Outcome]]]
    ) -> Outcome:
        part = self._parts.get(task.environment.isolation)
        if part is None:
            return Refused(code="unsupported_isolation", detail=f"There is no {task.environment.isolation} here.")
        try:
            return await method(part)(task)
        except NoAnswerError as error:
            return Retry(detail=str(error))
        except RefusedCallError as refusal:
            if refusal.is_throttled:
                return Retry(detail=f"{_SWAMPED} {refusal}", after=_THROTTLED_FOR)
            return Retry(detail=str(refusal))


@asynccontextmanager
async def open_aws(terms: AwsTerms, *, clock: Clock) -> AsyncIterator[AwsDriver]:
    """Make the driver, whose connections are closed at the end."""
    driver = AwsDriver(terms, clock=clock)
    try:
        yield driver
    finally:
        driver.close()
