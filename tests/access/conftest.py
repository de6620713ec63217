from collections.abc import AsyncIterator

import pytest_asyncio

from deploy.local.stack import Stack
from tests.access.cast import Cast, assembled
from tests.system import System


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cast(system: System, stack: Stack) -> AsyncIterator[Cast]:
    """Everybody who asks in the tests of this folder, and what they have."""
    async with assembled(system, stack) as cast:
        yield cast
