"""Providers with people whom a test makes: what the contract of all providers is tried on."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID, uuid4

from services.identity.providers.built_in import BuiltInProvider
from services.identity.providers.cognito import Cognito
from services.identity.providers.port import Directory, IdentityProvider, Password, Proof
from services.identity.tests.amazon import Amazon, open_cognito
from shared.clock import SystemClock
from shared.postgres import Pool


class Kit(Protocol):
    """A provider of one tenant, with people whom a test makes."""

    @property
    def tenant_id(self) -> str:
        """Whose provider it is."""
        ...

    @property
    def provider(self) -> IdentityProvider:
        """The provider."""
        ...

    async def make(self, email: str) -> UUID:
        """Let the provider know somebody, and return which user of ours it is."""
        ...

    async def proof(self, email: str) -> Proof:
        """Return a proof that the provider takes, made the way a person makes it."""
        ...

    async def wrong_proof(self, email: str) -> Proof:
        """Return a proof that the provider does not take."""
        ...

    async def remove(self, email: str) -> None:
        """Let the provider know somebody no more."""
        ...


class ExternalKit(Kit, Protocol):
    """The same of a provider that is somewhere else."""

    def away(self) -> AbstractContextManager[None]:
        """Let the provider not answer."""
        ...


class DirectoryKit(Kit, Protocol):
    """The same of a provider that keeps our passwords."""

    @property
    def provider(self) -> Directory:
        """The provider."""
        ...


@dataclass
class PasswordKit:
    """A provider that keeps our passwords, each made of the address."""

    tenant_id: str
    provider: Directory
    users: dict[str, UUID] = field(default_factory=dict)

    async def make(self, email: str) -> UUID:
        self.users[email] = user_id = await self.user(email)
        await self.provider.enrol(user_id, email, password_of(email))
        return user_id

    async def user(self, _email: str) -> UUID:
        """Make a user of ours."""
        return uuid4()

    async def proof(self, email: str) -> Password:
        return Password(self.users.get(email), password_of(email))

    async def wrong_proof(self, email: str) -> Password:
        return Password(self.users.get(email), "another-long-password")

    async def remove(self, email: str) -> None:
        await self.provider.forget(self.users[email])


@dataclass(kw_only=True)
class BuiltInKit(PasswordKit):
    """Our own passwords."""

    pool: Pool

    async def user(self, _email: str) -> UUID:
        user_id: UUID = await self.pool.fetchval(
            "INSERT INTO users (user_id, email, email_key, created_at) VALUES ($1, $2, $2, now()) RETURNING user_id",
            uuid4(),
            _email,
        )
        return user_id


@dataclass(kw_only=True)
class CognitoKit(PasswordKit):
    """A pool of users."""

    amazon: Amazon

    def away(self) -> AbstractContextManager[None]:
        return self.amazon.away()


def built_in_kit(pool: Pool) -> BuiltInKit:
    """Return the provider that all tenants have."""
    return BuiltInKit("", BuiltInProvider(pool, clock=SystemClock()), pool=pool)


@asynccontextmanager
async def shared_pool_kits(amazon: Amazon) -> AsyncIterator[tuple[CognitoKit, CognitoKit]]:
    """Return two tenants that share a pool."""
    async with open_cognito(amazon.terms(amazon.shared_pool())) as cognito:
        yield _kit(cognito, amazon, "t1"), _kit(cognito, amazon, "t2")


@asynccontextmanager
async def own_pool_kits(amazon: Amazon) -> AsyncIterator[tuple[CognitoKit, CognitoKit]]:
    """Return two tenants with a pool each."""
    async with open_cognito(amazon.terms()) as cognito:
        yield await _own(cognito, amazon, "t1"), await _own(cognito, amazon, "t2")


def password_of(email: str) -> str:
    """Return what somebody types."""
    return f"a-long-password-of-{email}"


async def _own(cognito: Cognito, amazon: Amazon, tenant_id: str) -> CognitoKit:
    pool = await cognito.pools.open(tenant_id, is_begun=False)
    return _kit(cognito, amazon, tenant_id, pool_id=pool.pool_id, client_id=pool.client_id)


def _kit(
    cognito: Cognito, amazon: Amazon, tenant_id: str, *, pool_id: str | None = None, client_id: str | None = None
) -> CognitoKit:
    provider = cognito.directory(tenant_id, pool_id=pool_id, client_id=client_id)
    assert provider is not None
    return CognitoKit(tenant_id, provider, amazon=amazon)
