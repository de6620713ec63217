"""Whether a request to an application may pass, and what the application is told of who sent it.

All of it is decided from memory: only a token, a key or a tenant that was not in use waits for the database.
"""

import hmac
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from services.identity.standing import Plan, Standings, Tenant
from services.identity.usage import Usage, Verdict
from services.identity.verified import VerifiedTokens
from shared.access import api_keys
from shared.access.authenticator import is_one_of
from shared.access.principal import Principal, Role
from shared.access.tokens import InvalidTokenError
from shared.access.usage import KeyUses
from shared.clock import Clock
from shared.http import Problem

Headers = tuple[tuple[bytes, bytes], ...]
"""As ASGI has them: names in lower case."""

_CHALLENGE = 'Bearer realm="tenure"'
_LONGEST = 8 * 1024
_PARTS_OF_A_TOKEN = 3


class Needs(NamedTuple):
    """What whoever guards the application wants of those who may pass.

    Attributes:
        roles: of each of these sets one.
        scopes: all of them.
    """

    roles: tuple[frozenset[str], ...] = ()
    scopes: frozenset[str] = frozenset()

    def and_also(self, other: "Needs") -> "Needs":
        """Return what is needed where both are."""
        return Needs(self.roles + other.roles, self.scopes | other.scopes)


NOTHING = Needs()


class Admission(NamedTuple):
    """A request that may pass, as the application is told of it.

    Attributes:
        headers: always all of them, empty where there is nothing to say, so that each replaces the client's own.
    """

    headers: Headers


class Authorizer:
    """Decides about requests.

    Args:
        uses: where the use of API keys is noted.
        admin_key: of the system administrator, who is no tenant's.
    """

    def __init__(
        self,
        *,
        tokens: VerifiedTokens,
        standings: Standings,
        usage: Usage,
        uses: KeyUses,
        admin_key: str,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._standings = standings
        self._usage = usage
        self._uses = uses
        self._admin_digest = api_keys.digest(admin_key)
        self._clock = clock

    async def judge(self, credential: str | None, needs: Needs = NOTHING) -> Admission:
        """Let a request pass, and count it.

        Args:
            credential: an access token or an API key; None for a request that brings none, or several.

        Raises:
            Problem: 401 where nobody is proven, 403 where whoever it is may not, 429 where there were too many.
            UnknownStandingError: that cannot be told, because the database is away.
        """
        if credential is None:
            raise _unauthenticated("Send one access token or API key as `Authorization: Bearer <key>` or `X-Api-Key`.")
        if len(credential) > _LONGEST:
            raise _invalid(f"The credential has more than {_LONGEST} characters.")
        if credential.count(".") == _PARTS_OF_A_TOKEN - 1:
            principal, tenant, key_id = await self._of_token(credential)
        else:
            principal, tenant, key_id = await self._of_api_key(credential)
        _refuse_lacking(principal, needs)
        verdict = self._usage.judge(tenant)
        if verdict.retry_seconds:
            raise _too_many(verdict)
        if key_id is not None:
            self._uses.note(key_id, self._clock.now())
        return Admission(_identity(principal, key_id) + _tier(tenant.plan) + _limits(verdict))

    async def _of_token(self, text: str) -> tuple[Principal, Tenant, str | None]:
        try:
            token = await self._tokens.read(text)
        except InvalidTokenError as error:
            raise _invalid(f"The access token is not valid: {error}.") from None
        tenant_id = _tenant_of(token.principal)
        is_revoked, tenant = await self._standings.of_token(token.session_id, tenant_id, token.key_id)
        _refuse_blocked(tenant)
        if is_revoked or token.epoch < tenant.epoch:
            raise _invalid("The access token was revoked.")
        return token.principal, tenant, token.key_id

    async def _of_api_key(self, text: str) -> tuple[Principal, Tenant, str]:
        key = api_keys.parse(text)
        if key is None:
            if hmac.compare_digest(api_keys.digest(text), self._admin_digest):
                raise _no_tenant()
            raise _invalid("The API key is not known.")
        known = await self._standings.of_api_key(key.id)
        if known is None or not is_one_of(key.digest, known.secrets, now=self._clock.now()):
            raise _invalid("The API key is not known.")
        tenant = await self._standings.of_tenant(_tenant_of(known.principal))
        _refuse_blocked(tenant)
        return known.principal, tenant, key.id


@lru_cache(maxsize=256)
def needs_of_query(query: bytes) -> Needs:
    """Read ``role=TenantAdmin&scope=orders:read``: one of the roles, all of the scopes."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    roles = frozenset(value for name, value in pairs if name == "role")
    scopes = frozenset(word for name, value in pairs if name == "scope" for word in value.split())
    return Needs((roles,) if roles else (), scopes)


def needs_of_headers(roles: Iterable[bytes], scopes: Iterable[bytes]) -> Needs:
    """Read ``X-Required-Role: TenantAdmin, TenantUser`` and ``X-Required-Scope: orders:read``; each asks for more."""
    sets = tuple(frozenset(_words(value)) for value in roles)
    return Needs(sets, frozenset(word for value in scopes for word in _words(value)))


def _words(value: bytes) -> list[str]:
    return value.decode("latin-1").replace(",", " ").split()


def _tenant_of(principal: Principal) -> str:
    if principal.tenant_id is None:
        raise _no_tenant()
    return principal.tenant_id


def _refuse_blocked(tenant: Tenant) -> None:
    if tenant.is_blocked:
        raise Problem(403, code="tenant_blocked", detail="Nobody has access to the tenant at present.")


def _refuse_lacking(principal: Principal, needs: Needs) -> None:
    if any(principal.acts_as not in roles for roles in needs.roles):
        raise Problem(403, code="forbidden", detail=f"This is not for a {principal.acts_as}.")
    if lacking := [scope for scope in sorted(needs.scopes) if not _is_granted(principal, scope)]:
        raise Problem(
            403,
            code="insufficient_scope",
            detail=f"This needs the scope {lacking[0]}.",
            headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope"'},
        )


def _is_granted(principal: Principal, scope: str) -> bool:
    """Return whether a scope is there, or one that covers it: ``read`` covers ``orders:read``."""
    resource, _, action = scope.rpartition(":")
    return principal.is_granted(action, resource)


def _unauthenticated(detail: str, challenge: str = _CHALLENGE) -> Problem:
    return Problem(401, code="unauthenticated", detail=detail, headers={"WWW-Authenticate": challenge})


def _invalid(detail: str) -> Problem:
    return _unauthenticated(detail, f'{_CHALLENGE}, error="invalid_token"')


def _no_tenant() -> Problem:
    return Problem(403, code="no_tenant", detail="Operators act in a tenant by a support session.")


def _too_many(verdict: Verdict) -> Problem:
    headers = {name.decode(): value.decode() for name, value in _limits(verdict)}
    return Problem(
        429,
        code="too_many_requests",
        detail=f"The tenant's tier lets no more than {verdict.limit} requests pass {verdict.period}.",
        headers=headers | {"Retry-After": str(verdict.retry_seconds)},
    )


@lru_cache(maxsize=10_000)
def _identity(principal: Principal, key_id: str | None) -> Headers:
    return (
        (b"x-tenant-id", _value(principal.tenant_id)),
        (b"x-user-id", _value(principal.user_id)),
        (b"x-role", _value(principal.acts_as)),
        (b"x-scope", _value(" ".join(sorted(principal.scopes)))),
        (b"x-api-key-id", _value(key_id)),
    )


@lru_cache(maxsize=1_000)
def _tier(plan: Plan | None) -> Headers:
    if plan is None:
        return (b"x-tier", b""), (b"x-tier-limits", b"")
    limits = {"requests-per-second": plan.per_second, "requests-per-day": plan.per_day}
    shown = ", ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
    return (b"x-tier", _value(plan.tier)), (b"x-tier-limits", _value(shown))


def _limits(verdict: Verdict) -> Headers:
    if verdict.limit is None:
        return _UNLIMITED
    return (
        (b"x-ratelimit-limit", b"%d" % verdict.limit),
        (b"x-ratelimit-remaining", b"%d" % verdict.remaining),
        (b"x-ratelimit-reset", b"%d" % verdict.reset_seconds),
    )


_UNLIMITED: Headers = ((b"x-ratelimit-limit", b""), (b"x-ratelimit-remaining", b""), (b"x-ratelimit-reset", b""))


def _value(text: str | None) -> bytes:
    """Return what can stand in a header; what cannot is a question mark."""
    return "".join(each if " " <= each <= "~" else "?" for each in text or "").encode()


NAMES = tuple(
    name.decode() for name, _ in (*_identity(Principal("", Role.TENANT_USER, "t"), None), *_tier(None), *_UNLIMITED)
)
"""What the application is told by; whoever guards it must not let the client's own through."""
