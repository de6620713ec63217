"""The API keys of the service on a real database, and whoever makes and uses them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx2
import orjson

from services.identity.api import api_keys as routes_of_keys
from services.identity.changes import Changes
from services.identity.handlers import purge_users
from services.identity.keys import ApiKeys, Issued, Order
from shared.access import ADMINISTRATOR, Principal, Role, replica
from shared.access.authenticator import InvalidCredentialError, KnownCredentials
from shared.clock import ManualClock
from shared.contracts.base import Message
from shared.contracts.identity import ApiKeyChanged, PurgeUsers
from shared.http import create_api
from shared.ids import TimeOrderedIds
from shared.messaging.event import decode
from shared.messaging.topology import Manifest
from shared.postgres import Pool, transaction
from shared.service import Kernel, Ports, open_kernel
from shared.settings import ServiceSettings, settings_of
from shared.testing.memory_bus import MemoryBroker, MemoryBus

ADMIN_KEY = "a-key-of-the-administrator"
DAY = timedelta(days=1)

OPERATOR = ADMINISTRATOR
ANNA = Principal(id="user:anna", role=Role.TENANT_ADMIN, tenant_id="t1")
BELA = Principal(id="user:bela", role=Role.TENANT_ADMIN, tenant_id="t2")
VISITOR = Principal(id="user:sue", role=Role.CUSTOMER_SUPPORT, tenant_id="t1", reason="A ticket.")


class Settings(ServiceSettings):
    """What the kernel needs to be told."""

    model_config = settings_of("identity")


@dataclass
class Keyring:
    """API keys, and the kernel below them."""

    kernel: Kernel
    clock: ManualClock

    def __post_init__(self) -> None:
        self.keys = ApiKeys(Changes(self.kernel), self.clock)

    @property
    def pool(self) -> Pool:
        """Connections to the service's database."""
        return self.kernel.pool

    @property
    def credentials(self) -> KnownCredentials:
        """What this service lets keys in by."""
        return self.kernel.credentials

    async def issue(
        self, asker: Principal = ANNA, role: Role | None = Role.TENANT_ADMIN, lifetime: timedelta | None = None
    ) -> Issued:
        """Make a key."""
        end = None if lifetime is None else self.clock.now() + lifetime
        return await self.keys.issue(asker, Order(name="ci", role=role, expires_at=end))

    async def is_good(self, text: str) -> bool:
        """Tell whether this service lets somebody in by a key."""
        return await is_good(self.credentials, text)

    async def told(self) -> list[Message]:
        """Return all that was told, the first first."""
        rows = await self.pool.fetch("SELECT event FROM outbox ORDER BY id")
        return [decode(orjson.loads(row["event"])).message for row in rows]

    async def changes(self) -> list[ApiKeyChanged]:
        """Return the changes of keys that were told, the first first."""
        return [each for each in await self.told() if isinstance(each, ApiKeyChanged)]

    async def known_keys(self) -> set[tuple[object, ...]]:
        """Return what this service knows of keys as all others do."""
        return await known_keys(self.pool)

    def client(self, key: str = ADMIN_KEY) -> httpx2.AsyncClient:
        """Return somebody who uses the API with a key."""
        api = create_api(
            "identity",
            routers=[routes_of_keys.routes(self.pool, self.keys, clock=self.clock)],
            admin_key=ADMIN_KEY,
            credentials=self.credentials,
            checks={},
            version="1",
        )
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {key}"}
        )


@asynccontextmanager
async def open_keyring(database_url: str) -> AsyncIterator[Keyring]:
    """Open the kernel on a database with two tenants."""
    clock = ManualClock()
    broker = MemoryBroker(Manifest.load(), clock)
    settings = Settings.from_environment(
        {
            "TENURE_IDENTITY_DATABASE_URL": database_url,
            "TENURE_ADMIN_KEY": ADMIN_KEY,
            "TENURE_AMQP_URL": "amqp://127.0.0.1/",
        }
    )
    ports = Ports(clock=clock, bus=lambda service: MemoryBus(broker, service))
    async with open_kernel("identity", settings, ports, {}) as kernel:
        await make_members(kernel.pool, ("t1", "t2"))
        yield Keyring(kernel, clock)
    await broker.close()


async def make_members(pool: Pool, tenant_ids: Sequence[str]) -> None:
    """Let each of these tenants have a member."""
    for tenant_id in tenant_ids:
        await pool.execute(
            """
            WITH made AS (
                INSERT INTO users (user_id, email, email_key, created_at)
                VALUES ($1, $2 || '@example.org', $2 || '@example.org', now()) RETURNING user_id
            )
            INSERT INTO membership SELECT $2, user_id, 'TenantAdmin', now() FROM made
            """,
            TimeOrderedIds().new(),
            tenant_id,
        )


async def purge(keyring: Keyring) -> None:
    """Forget the first of the two tenants, as a workflow asks for."""
    async with transaction(keyring.pool) as connection:
        await purge_users(connection, [PurgeUsers(tenant_id="t1")], clock=keyring.clock)


async def keep(pool: Pool, facts: Sequence[ApiKeyChanged]) -> None:
    """Let another service hear facts about keys."""
    async with transaction(pool) as connection:
        await replica.keep_api_keys(connection, facts)


async def is_good(credentials: KnownCredentials, text: str) -> bool:
    """Tell whether a service lets somebody in by a key."""
    try:
        await credentials.of_api_key(text)
    except InvalidCredentialError:
        return False
    return True


async def known_keys(pool: Pool) -> set[tuple[object, ...]]:
    """Return id, tenant, revision, role, scopes and number of secrets of each key, and whether it is over."""
    rows = await pool.fetch(
        "SELECT key_id, tenant_id, revision, role, scopes, jsonb_array_length(secrets), forget_at IS NOT NULL "
        "FROM access_api_key"
    )
    return {tuple(tuple(value) if isinstance(value, list) else value for value in row) for row in rows}
