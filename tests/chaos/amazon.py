"""Amazon as a service meets it that dies: each kind of call is held up once, so that its caller can be killed in it."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deploy.local.ports import free_port
from services.provisioning.tests.cloud import MANAGEMENT_ROLE, OWN_ACCOUNT, Cloud, session_of
from shared.testing.amazon import Asked, StartResponse, error

Steps = Callable[[], Awaitable[Mapping[str, str]]]
"""Says what is being done at this moment, by tenant."""

_PATIENCE_SECONDS = 5.0
_LONGEST_SECONDS = 30.0
_READING = ("Describe", "List", "Get", "Assume")
_NAMING = ("AccountId", "ChildId", "ResourceId", "TargetId")
_FORGOTTEN = "503 Service Unavailable"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A moment at which a process can die.

    Attributes:
        step: of the job that it works on; where a call does not say for which tenant it is, nothing.
        call: what it has asked Amazon for.
        is_done: whether Amazon has done it; the answer has not come in either case.
    """

    step: str
    call: str
    is_done: bool = False

    def __str__(self) -> str:
        return f"{self.step or 'anywhere'}: {'after' if self.is_done else 'before'} {self.call}"


class HoldingCloud(Cloud):
    """Holds up one call of each kind for each step: before it is done, and if it changes something, after that too.

    What was looked for has no effect, so that before and after it are the same. Nobody is held up who takes on the role
    in the management account, since all wait for that.

    Attributes:
        held: who is held up at this moment: the tenant, by place.
        struck: where somebody was killed.
    """

    def __init__(self, steps: Steps) -> None:
        super().__init__(port=free_port())  # which nobody else takes while this is away
        self._steps = steps
        self.held: dict[Place, str] = {}
        self.struck: set[Place] = set()
        self._loop = asyncio.get_running_loop()
        self._holding = threading.Lock()
        self._is_open = True
        self._gate = threading.Event()
        self._since = 0.0

    @property
    def held_seconds(self) -> float:
        """How long the first one has been held up."""
        return time.monotonic() - self._since if self.held else 0.0

    def hold(self) -> None:
        """Begin to hold calls up that were never held up before."""
        with self._holding:
            self._is_open = False

    def let_go(self, killed: Collection[Place] = ()) -> None:
        """Hold nobody up any more; what was held up before it was done is not done.

        Args:
            killed: where they were killed, and are never held up again.
        """
        with self._holding:
            self._is_open = True
            self.struck.update(killed)
            self.held.clear()
            gate, self._gate = self._gate, threading.Event()
        gate.set()

    def answer(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:
        """Answer what is asked for, unless whoever asks is held up there."""
        if self._is_open or not self._can_be_held(asked):
            return super().answer(asked, start_response)
        tenant_id = self._tenant_asked_for(asked)
        place = Place(self._step(tenant_id), _call_of(asked))
        if self._is_held(place, tenant_id):
            return error(asked, start_response, "ServiceUnavailable", "", status=_FORGOTTEN)
        told: list[Any] = []
        body = list(super().answer(asked, lambda *of: told.extend(of)))
        if not asked.operation.startswith(_READING):
            self._is_held(replace(place, is_done=True), tenant_id)
        start_response(*told)
        return body

    def _can_be_held(self, asked: Asked) -> bool:
        is_common = asked.operation == "AssumeRole" and asked.parameters["RoleArn"] == MANAGEMENT_ROLE
        return bool(asked.operation) and not self._is_operator(asked) and not is_common

    def _is_held(self, place: Place, tenant_id: str) -> bool:
        with self._holding:
            if self._is_open or place in self.struck or place in self.held:
                return False
            if not self.held:
                self._since = time.monotonic()
            self.held[place] = tenant_id
            gate = self._gate
        gate.wait(_LONGEST_SECONDS)
        return True

    def _step(self, tenant_id: str) -> str:
        if not tenant_id:
            return ""
        return asyncio.run_coroutine_threadsafe(self._ask(), self._loop).result(_PATIENCE_SECONDS).get(tenant_id, "")

    async def _ask(self) -> Mapping[str, str]:
        return await self._steps()

    def _tenant_asked_for(self, asked: Asked) -> str:
        """Return for which tenant a call is; nothing where it does not say."""
        wanted = asked.parameters
        session = session_of(asked.access_key)
        account_id = session.role_arn.split(":")[4] if session else OWN_ACCOUNT
        if account_id != OWN_ACCOUNT:
            return self._tenant_in(account_id)
        if "AccountName" in wanted:
            return _tenant_named(wanted["AccountName"])
        if "CreateAccountRequestId" in wanted:
            return _tenant_named(self._requests[wanted["CreateAccountRequestId"]].name)
        if "RoleArn" in wanted:
            return self._tenant_in(wanted["RoleArn"].split(":")[4])
        return next((self._tenant_in(wanted[name]) for name in _NAMING if name in wanted), "")

    def _tenant_in(self, account_id: str) -> str:
        from moto.organizations.models import organizations_backends  # noqa: PLC0415 - of those tests alone that use it

        accounts = list(organizations_backends[OWN_ACCOUNT]["aws"].accounts)
        return next(_tenant_named(each.name) for each in accounts if each.id == account_id)


def _tenant_named(account_name: str) -> str:
    """Return the tenant of an account by its name; see `services.provisioning.drivers.aws.names.account_name`."""
    return account_name.split()[1]


def _call_of(asked: Asked) -> str:
    """Return what is asked for; S3 says in the query what of a bucket is meant."""
    if asked.service != "s3":
        return asked.operation
    return f"{asked.operation} {asked.environment['QUERY_STRING'] or 'bucket'}"
