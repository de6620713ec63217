"""The contract of all drivers, kept on Amazon's infrastructure by the pool and by silos, each for itself.

Nothing is carried between them, which the driver says: it has but one isolation here.
"""

from collections.abc import AsyncIterator

import pytest

from services.provisioning.drivers.aws import open_aws
from services.provisioning.tests.aws_kit import AwsKit
from services.provisioning.tests.cloud import Cloud
from services.provisioning.tests.driver_contract import DriverContract
from services.provisioning.tests.product_contract import ProductContract
from shared.clock import SystemClock


class TestPool(DriverContract, ProductContract):
    @pytest.fixture
    async def kit(self, cloud: Cloud) -> AsyncIterator[AwsKit]:
        async with open_aws(cloud.terms(silo=False), clock=SystemClock()) as driver:
            yield AwsKit(driver, cloud)


class TestSilo(DriverContract, ProductContract):
    @pytest.fixture
    async def kit(self, cloud: Cloud) -> AsyncIterator[AwsKit]:
        async with open_aws(cloud.terms(pool=False), clock=SystemClock()) as driver:
            yield AwsKit(driver, cloud)
