from collections.abc import AsyncIterator, Mapping

import pytest

from deploy.local.throwaway import Server
from shared.testing.bus_suite import BusSuite, Site
from shared.testing.sites import MemorySite, RabbitSite, rabbit_site


class TestMemoryBus(BusSuite):
    @pytest.fixture
    async def site(self) -> AsyncIterator[Site]:
        site = MemorySite()
        yield site
        await site.broker.close()


@pytest.mark.broker
class TestRabbitBus(BusSuite):
    @pytest.fixture
    async def site(self, broker_server: Server, logins: Mapping[str, str]) -> AsyncIterator[RabbitSite]:
        async with rabbit_site(broker_server.admin_url, logins) as site:
            yield site
