"""The contract of all drivers, kept by each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.provisioning.tests.driver_contract import DriverContract
from services.provisioning.tests.postgres_kit import PostgresKit
from services.provisioning.tests.product_contract import ProductContract
from services.provisioning.tests.program_kits import SampleKit, script_kit, webhook_kit
from services.provisioning.tests.support import Application
from shared.postgres import Pool


class TestPostgres(DriverContract, ProductContract):
    @pytest.fixture
    def kit(self, application: Application) -> PostgresKit:
        return PostgresKit(application)


class TestScript(DriverContract, ProductContract):
    @pytest.fixture
    def kit(self, tmp_path: Path) -> SampleKit:
        return script_kit(tmp_path)


class TestWebhookThatAnswersAtOnce(DriverContract, ProductContract):
    @pytest.fixture
    async def kit(self, tmp_path: Path, pool: Pool) -> AsyncIterator[SampleKit]:
        async with webhook_kit(tmp_path, pool, is_later=False) as kit:
            yield kit


class TestWebhookThatCallsBack(DriverContract, ProductContract):
    @pytest.fixture
    async def kit(self, tmp_path: Path, pool: Pool) -> AsyncIterator[SampleKit]:
        async with webhook_kit(tmp_path, pool, is_later=True) as kit:
            yield kit
