"""The pool: partitions of one table and a path in one bucket for each tenant, and a record that says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from services.provisioning.drivers.aws import names, policies
from services.provisioning.drivers.aws.belongings import ITEMS, OBJECTS, Belongings
from services.provisioning.drivers.aws.calls import Caller, Credentials
from services.provisioning.drivers.aws.closing import Closing
from services.provisioning.drivers.aws.policies import Place
from services.provisioning.drivers.aws.roles import LIFETIME, Roles
from services.provisioning.drivers.aws.terms import AwsTerms, PoolTerms
from services.provisioning.drivers.port import (
    Done,
    Environment,
    Inspection,
    Next,
    NoEnvironmentError,
    Outcome,
    Refused,
    Task,
    ThrottledError,
)
from shared.clock import Clock

LOOK_AGAIN, ERASE = "look-again", "erase"

_IS_OURS = "environment_id = :environment"
_CONFLICT = "ConditionalCheckFailedException"
_GONE = Refused(code="unknown_environment", detail="There is no such tenant in the pool.")


@dataclass(frozen=True, slots=True)
class _Record:
    """What the pool knows of a tenant.

    Attributes:
        issued_at: when credentials were last issued, in seconds since 1970; 0 for never.
    """

    environment_id: str
    is_throttled: bool
    products: Mapping[str, str]
    issued_at: int


class Pool:
    """Takes tenants into what they share, and out of it.

    Args:
        terms: with what a pool needs.
    """

    def __init__(self, roles: Roles, terms: AwsTerms, *, clock: Clock) -> None:
        assert terms.pool is not None
        self._roles = roles
        self._terms = terms
        self._pool: PoolTerms = terms.pool
        self._clock = clock

    async def provision(self, task: Task) -> Outcome:
        """Put the tenant's record where there is none."""
        environment = task.environment
        place = self._place(environment)
        await self._closing(place).forget(environment.tenant_id)
        item = _key(environment) | {
            "environment_id": {"S": str(environment.environment_id)},
            "is_throttled": {"BOOL": False},
            "products": {"S": _json(environment.products)},
            "issued_at": {"N": "0"},
        }
        made = await self._own(place).unless(
            _CONFLICT,
            "dynamodb",
            "put_item",
            TableName=place.table,
            Item=item,
            ConditionExpression="attribute_not_exists(tenant)",
        )
        if made is None:
            record = await self._record(place, environment)
            if record is None or record.environment_id != str(environment.environment_id):
                return Refused(code="tenant_exists", detail="The pool has another environment of this tenant.")
        return Done(resources=self._resources(place, environment.tenant_id))

    async def deprovision(self, task: Task) -> Outcome:
        """Close the tenant's sessions, then remove what it keeps, and its record last."""
        environment = task.environment
        place = self._place(environment)
        if task.stage == ERASE:
            return await self._erase(task, place)
        record = await self._update(place, environment, "is_throttled", {"BOOL": True})
        if record is None:
            if task.stage == "" and environment.resources == {}:
                # What was asked for and not waited for may be done after this.
                return Next(stage=LOOK_AGAIN, resources={}, after=self._terms.waits.settled)
            return Done(result={ITEMS: 0, OBJECTS: 0})
        await self._end_sessions(place, environment, record)
        resources = self._resources(place, environment.tenant_id)
        return Next(stage=ERASE, resources=resources, after=self._terms.waits.spread)

    async def throttle(self, task: Task) -> Outcome:
        """Issue nothing any more, and let what was issued be of no use; or the opposite."""
        environment = task.environment
        place = self._place(environment)
        if not environment.is_throttled:
            await self._closing(place).open(environment.tenant_id)
        record = await self._update(place, environment, "is_throttled", {"BOOL": environment.is_throttled})
        if record is None:
            return _GONE
        if environment.is_throttled:
            await self._end_sessions(place, environment, record)
        return Done(resources=environment.resources)

    async def deploy(self, task: Task) -> Outcome:
        """Write down which products run."""
        environment = task.environment
        products = {"S": _json(environment.products)}
        if await self._update(self._place(environment), environment, "products", products) is None:
            return _GONE
        return Done(resources=environment.resources)

    async def inspect(self, environment: Environment) -> Inspection:
        """Look at the tenant's record."""
        record = await self._record(self._place(environment), environment)
        if record is None or record.environment_id != str(environment.environment_id):
            return Inspection(exists=False)
        return Inspection(
            exists=True, is_throttled=record.is_throttled, isolation="pool", products=dict(record.products)
        )

    async def issue(self, environment: Environment) -> Credentials:
        """Lend a session of the role that reaches the tenant's belongings alone; see `Lender.issue`."""
        place = self._place(environment)
        await self._note_session(place, environment)
        return await self._roles.take(
            self._own(place),
            self._pool.role_arn,
            name=names.session_name(environment.tenant_id),
            policy=policies.of_session(place, environment.tenant_id),
            tags={names.TENANT: environment.tenant_id},
        )

    async def sweep(self) -> int:
        """Remove what closes sessions that have expired."""
        closing = Closing(
            self._roles.own(self._terms.region), self._pool.role, waits=self._terms.waits, clock=self._clock
        )
        return await closing.sweep()

    async def _erase(self, task: Task, place: Place) -> Outcome:
        environment = task.environment
        belongings = Belongings(self._own(place), place, environment.tenant_id)
        removed = await belongings.remove_some()
        counted = {name: task.notes.get(name, 0) + number for name, number in removed.items()}
        if any(removed.values()):
            return Next(stage=ERASE, resources=environment.resources, notes=counted)
        await self._own(place).unless(
            _CONFLICT,
            "dynamodb",
            "delete_item",
            TableName=place.table,
            Key=_key(environment),
            ConditionExpression=_IS_OURS,
            ExpressionAttributeValues=_ours(environment),
        )
        return Done(result=counted)

    async def _note_session(self, place: Place, environment: Environment) -> None:
        """Write down that credentials are about to be issued, if they may be.

        Raises:
            NoEnvironmentError: there is no such environment.
            ThrottledError: they may not.
        """
        now = {"N": str(int(self._clock.now().timestamp()))}
        if await self._update(place, environment, "issued_at", now, only_if="is_throttled = :open") is None:
            record = await self._record(place, environment)
            if record is None or record.environment_id != str(environment.environment_id):
                raise NoEnvironmentError
            raise ThrottledError

    async def _end_sessions(self, place: Place, environment: Environment, record: _Record) -> None:
        """Let sessions be of no use that there may be; a role has room for few such policies."""
        longest = LIFETIME + self._terms.waits.settled
        if record.issued_at >= int((self._clock.now() - longest).timestamp()):
            await self._closing(place).close(environment.tenant_id)

    async def _update(
        self, place: Place, environment: Environment, name: str, value: Mapping[str, Any], *, only_if: str = ""
    ) -> _Record | None:
        """Change a part of the tenant's record and return it, if there is one of this environment."""
        values = {":value": value, **_ours(environment)} | ({":open": {"BOOL": False}} if only_if else {})
        changed = await self._own(place).unless(
            _CONFLICT,
            "dynamodb",
            "update_item",
            TableName=place.table,
            Key=_key(environment),
            UpdateExpression=f"SET {name} = :value",
            ConditionExpression=f"{_IS_OURS} AND {only_if}" if only_if else _IS_OURS,
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
        )
        return None if changed is None else _read(changed["Attributes"])

    async def _record(self, place: Place, environment: Environment) -> _Record | None:
        answer = await self._own(place).call(
            "dynamodb", "get_item", TableName=place.table, Key=_key(environment), ConsistentRead=True
        )
        item = answer.get("Item")
        return None if item is None else _read(item)

    def _place(self, environment: Environment) -> Place:
        """Return where a tenant is, which is where it was put, whatever the installation says by now."""
        known = environment.resources
        return Place(
            self._pool.account_id,
            known.get("region") or self._terms.region_of(environment.region),
            known.get("table") or self._pool.table,
            known.get("bucket") or self._pool.bucket,
        )

    def _resources(self, place: Place, tenant_id: str) -> Mapping[str, Any]:
        return {
            "region": place.region,
            "table": place.table,
            "bucket": place.bucket,
            "partitions": list(names.partitions(tenant_id)),
            "prefix": names.prefix(tenant_id),
        }

    def _own(self, place: Place) -> Caller:
        return self._roles.own(place.region)

    def _closing(self, place: Place) -> Closing:
        return Closing(self._own(place), self._pool.role, waits=self._terms.waits, clock=self._clock)


def _read(item: Mapping[str, Any]) -> _Record:
    return _Record(
        item["environment_id"]["S"],
        item["is_throttled"]["BOOL"],
        orjson.loads(item["products"]["S"]),
        int(item["issued_at"]["N"]),
    )


def _key(environment: Environment) -> dict[str, Any]:
    return {"tenant": {"S": names.record_partition(environment.tenant_id)}, "item": {"S": names.RECORD}}


def _ours(environment: Environment) -> dict[str, Any]:
    return {":environment": {"S": str(environment.environment_id)}}


def _json(products: Mapping[str, str]) -> str:
    return orjson.dumps(dict(products)).decode()
