"""Sessions that are of no use any more although they have not expired.

A session of a role cannot be ended. But each one bears what sets its environment apart as a tag, and a policy of the
role can deny everything to those that do. It is needed no longer than sessions last.
"""

from datetime import datetime

import orjson

from services.provisioning.drivers.aws import names, policies
from services.provisioning.drivers.aws.calls import Caller
from services.provisioning.drivers.aws.roles import LIFETIME
from services.provisioning.drivers.aws.terms import Waits
from shared.clock import Clock


class Closing:
    """Closes and opens what sessions of one role there are in a tenant's environment; see `Environment.tenant_id`.

    Args:
        role: its name.
    """

    def __init__(self, caller: Caller, role: str, *, waits: Waits, clock: Clock) -> None:
        self._caller = caller
        self._role = role
        self._waits = waits
        self._clock = clock

    async def close(self, tenant_id: str) -> None:
        """Let no session of a tenant be of any use, those included that are issued at this moment."""
        await self._put(tenant_id)

    async def open(self, tenant_id: str) -> None:
        """Let all sessions of a tenant be of use that have not expired."""
        await self._remove(names.closing_policy(tenant_id))

    async def forget(self, tenant_id: str) -> None:
        """Let sessions be of use that begin from now on, and of those before no one that was closed."""
        if await self._find(names.closing_policy(tenant_id)) is not None:
            await self._put(tenant_id, before=self._clock.now())

    async def sweep(self) -> int:
        """Remove what is needed no more, since no session is left that it could be meant for; return how much."""
        answer = await self._caller.call("iam", "list_role_policies", RoleName=self._role, MaxItems=1000)
        old = self._clock.now() - LIFETIME - self._waits.settled - self._waits.spread
        swept = 0
        for name in answer["PolicyNames"]:
            if name.startswith(names.CLOSED_SESSIONS) and await self._is_older(name, old):
                await self._remove(name)
                swept += 1
        return swept

    async def _is_older(self, name: str, moment: datetime) -> bool:
        policy = await self._find(name)
        return policy is not None and policies.written_at(policy) < int(moment.timestamp())

    async def _find(self, name: str) -> policies.Policy | None:
        found = await self._caller.unless(
            "NoSuchEntity", "iam", "get_role_policy", RoleName=self._role, PolicyName=name
        )
        return None if found is None else found["PolicyDocument"]

    async def _put(self, tenant_id: str, *, before: datetime | None = None) -> None:
        document = policies.of_closed_tenant(tenant_id, written=self._clock.now(), before=before)
        await self._caller.call(
            "iam",
            "put_role_policy",
            RoleName=self._role,
            PolicyName=names.closing_policy(tenant_id),
            PolicyDocument=orjson.dumps(document).decode(),
        )

    async def _remove(self, name: str) -> None:
        await self._caller.unless("NoSuchEntity", "iam", "delete_role_policy", RoleName=self._role, PolicyName=name)
