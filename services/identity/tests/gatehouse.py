"""Replicas of the gate on one database, and somebody who makes credentials for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from joserfc.jwk import ECKey
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from services.identity.api.authorize import Gate
from services.identity.authorize import Authorizer
from services.identity.queries import plans
from services.identity.standing import Standings
from services.identity.usage import Usage
from services.identity.verified import VerifiedTokens
from shared.access import EVERYTHING, KnownCredentials, Role, api_keys, replica, tokens
from shared.access.tokens import AccessClaims
from shared.clock import Clock, ManualClock
from shared.contracts.base import INSTALLATION
from shared.contracts.identity import (
    ApiKeyChanged,
    ApiKeySecret,
    SessionsRevoked,
    SigningKeyPublished,
    TenantAccessChanged,
)
from shared.contracts.tenant import UsagePlan
from shared.postgres import Pool, transaction

ISSUER = "https://tenure.example.com"
ADMIN_KEY = "the administrator's key"

_LATER = datetime(2100, 1, 1, tzinfo=UTC)


def signing_key(key_id: str = "k1") -> ECKey:
    """Make a key that tokens can be signed with."""
    return ECKey.generate_key("P-256", {"kid": key_id, "use": "sig", "alg": "ES256"})


class Replica:
    """One process's gate.

    Attributes:
        app: the gate, before an application that answers everything else with ``behind``.
        client: asks it.
    """

    def __init__(self, pool: Pool, clock: Clock) -> None:
        credentials = KnownCredentials(pool, clock=clock, issuer=ISSUER)
        self.uses = credentials.uses
        self.standings = Standings(pool, clock=clock)
        self.usage = Usage(pool, clock=clock)
        self.registry = CollectorRegistry()
        self.gate = Gate(
            Authorizer(
                tokens=VerifiedTokens(credentials.claims, clock=clock),
                standings=self.standings,
                usage=self.usage,
                uses=credentials.uses,
                admin_key=ADMIN_KEY,
                clock=clock,
            ),
            self.registry,
        )
        self.app: ASGIApp = self.gate.before(PlainTextResponse("behind"))
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://tenure", headers={"Accept": "*/*"}
        )

    async def ask(
        self, credential: str | None = None, *, method: str = "GET", path: str = "/v1/authorize", **headers: str
    ) -> httpx2.Response:
        """Ask as a gateway does; underscores in names of headers are hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if credential is not None:
            sent["Authorization"] = f"Bearer {credential}"
        return await self.client.request(method, path, headers=sent)

    async def outcome(self, credential: str | None = None, **sent: Any) -> tuple[int, str]:
        """Ask, and return the status and the code of the problem, if it is one."""
        answer = await self.ask(credential, **sent)
        return answer.status_code, answer.json()["code"] if answer.content else ""

    async def passing(self, credential: str, *, most: int) -> int:
        """Ask so often, and return how many may pass."""
        return [(await self.ask(credential)).status_code for _ in range(most)].count(200)


@dataclass
class Gatehouse:
    """What the gates judge by, and who makes credentials."""

    pool: Pool
    clock: Clock = field(default_factory=ManualClock)
    key: ECKey = field(default_factory=signing_key)

    def replica(self) -> Replica:
        """Start another process."""
        return Replica(self.pool, self.clock)

    async def publish(self, key: ECKey | None = None) -> None:
        """Let a key be known."""
        known = key or self.key
        public = {str(name): str(value) for name, value in known.as_dict(private=False).items()}
        fact = SigningKeyPublished(key_id=str(known.kid), public_key=public, expires_at=_LATER)
        async with transaction(self.pool) as connection:
            await replica.keep_signing_keys(connection, [fact])

    def token(self, key: ECKey | None = None, **claims: Any) -> str:
        """Sign a token of a user of the tenant ``t1``; claims may be others."""
        return tokens.sign(self.claims(**claims), key or self.key)

    def claims(self, **claims: Any) -> AccessClaims:
        """Return what such a token says."""
        now = tokens.epoch_seconds(self.clock.now())
        given: Mapping[str, Any] = {
            "iss": ISSUER,
            "sub": "u1",
            "client_id": "console",
            "aud": tokens.AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "jti": "j1",
            "sid": "s1",
            "role": Role.TENANT_USER,
            "scope": "read write",
            "epoch": 0,
            "tenant_id": "t1",
        }
        return AccessClaims.model_validate({**given, **claims})

    async def plan(
        self, per_second: int | None, per_day: int | None, *, tenant_id: str = "t1", version: int = 1
    ) -> None:
        """Give a tenant a plan."""
        plan = UsagePlan(tier="standard", version=version, requests_per_second=per_second, requests_per_day=per_day)
        async with transaction(self.pool) as connection:
            await plans.put_plans(connection, {tenant_id: plan})

    async def revoke_session(self, session_id: str = "s1") -> None:
        """End a session."""
        async with transaction(self.pool) as connection:
            await replica.keep_revoked_sessions(
                connection, [SessionsRevoked(session_ids=(session_id,), forget_at=_LATER)]
            )

    async def change_access(self, *, epoch: int, is_blocked: bool, tenant_id: str = "t1") -> None:
        """Void the tokens of a tenant, and let nobody in or not."""
        async with transaction(self.pool) as connection:
            await replica.keep_tenant_access(
                connection, [TenantAccessChanged(tenant_id=tenant_id, epoch=epoch, is_blocked=is_blocked)]
            )

    async def issue(
        self,
        *,
        tenant_id: str = "t1",
        role: Role = Role.TENANT_USER,
        scopes: Sequence[str] = tuple(EVERYTHING),
        good_for: timedelta | None = None,
    ) -> api_keys.ApiKey:
        """Make an API key."""
        key = api_keys.new_key(api_keys.new_id())
        expires_at = None if good_for is None else self.clock.now() + good_for
        await self._tell(
            ApiKeyChanged(
                tenant_id=tenant_id,
                key_id=key.id,
                revision=1,
                role=role,
                scopes=tuple(scopes),
                secrets=(ApiKeySecret(digest=key.digest.hex(), expires_at=expires_at),),
            )
        )
        return key

    async def revoke_key(self, key: api_keys.ApiKey) -> None:
        """Revoke an API key of the tenant ``t1``."""
        await self._tell(
            ApiKeyChanged(
                tenant_id="t1",
                key_id=key.id,
                revision=2,
                role=Role.TENANT_USER,
                scopes=(),
                secrets=(),
                forget_at=_LATER,
            )
        )

    async def _tell(self, fact: ApiKeyChanged) -> None:
        async with transaction(self.pool) as connection:
            await replica.keep_api_keys(connection, [fact])


OPERATORS = INSTALLATION
"""Whose API keys operators have."""
