"""Roles that are taken on: ours in the management account, ours in tenants' accounts, and those that are lent."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, timedelta
from typing import Any

import orjson

from services.provisioning.drivers.aws.calls import Caller, Calls, Credentials, caller
from services.provisioning.drivers.aws.policies import Policy
from services.provisioning.drivers.aws.terms import BOOTSTRAP_ROLE, AwsTerms
from shared.clock import Clock

LIFETIME = timedelta(minutes=15)
"""How long a session of a role is valid: the shortest that Amazon gives."""

_MARGIN = timedelta(minutes=5)
_OURS = "tenure-provisioning"


class Roles:
    """Asks with our own credentials, and with those of roles."""

    def __init__(self, calls: Calls, terms: AwsTerms, *, clock: Clock) -> None:
        self._calls = calls
        self._terms = terms
        self._clock = clock
        self._own: dict[str, Caller] = {}
        self._management: Caller | None = None
        self._renewing = asyncio.Lock()

    def own(self, region: str) -> Caller:
        """Return who asks with the credentials that the process has."""
        if region not in self._own:
            self._own[region] = Caller(self._calls, region)
        return self._own[region]

    async def management(self) -> Caller:
        """Return who asks as the role in the management account, with credentials that last for some minutes.

        Raises:
            RefusedCallError: it may not be taken on.
            NoAnswerError: see `Calls.run`.
        """
        assert self._terms.silo is not None
        async with self._renewing:
            known = self._management
            if known is None or known.credentials is None or known.credentials.expires_at < self._soon():
                credentials = await self.take(self.own(self._terms.region), self._terms.silo.management_role_arn)
                self._management = Caller(self._calls, self._terms.region, credentials)
                if known is not None:
                    known.close()
            assert self._management is not None
            return self._management

    @asynccontextmanager
    async def bootstrap(self, account_id: str, region: str) -> AsyncIterator[Caller]:
        """Return who asks as the bootstrap role in a tenant's account, for a while."""
        credentials = await self.take(await self.management(), f"arn:aws:iam::{account_id}:role/{BOOTSTRAP_ROLE}")
        async with caller(self._calls, region, credentials) as member:
            yield member

    async def take(
        self,
        giver: Caller,
        role_arn: str,
        *,
        name: str = _OURS,
        policy: Policy | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Credentials:
        """Return credentials of a role for the shortest time there is.

        Args:
            giver: whom the role trusts.
            name: what the session is called where Amazon logs what it does.
            policy: what of the role's rights the session has; all where None.
            tags: what policies of the role can tell the session by.
        """
        more: dict[str, Any] = {}
        if policy is not None:
            more["Policy"] = orjson.dumps(policy).decode()
        if tags:
            more["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        seconds = int(LIFETIME.total_seconds())
        answer = await giver.call(
            "sts", "assume_role", RoleArn=role_arn, RoleSessionName=name, DurationSeconds=seconds, **more
        )
        given = answer["Credentials"]
        return Credentials(
            given["AccessKeyId"],
            given["SecretAccessKey"],
            given["SessionToken"],
            expires_at=given["Expiration"].astimezone(UTC),
        )

    def close(self) -> None:
        """Ask nothing any more."""
        for each in self._own.values():
            each.close()
        if self._management is not None:
            self._management.close()
        self._calls.close()

    def _soon(self) -> Any:
        return self._clock.now() + _MARGIN
