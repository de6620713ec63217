"""Which provider there is, as it is told from outside; and what runs because of it."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.billing.payments import Collector, ManualProvider
from services.billing.payments.opening import announcer, collecting, open_provider
from services.billing.settings import BillingSettings
from services.billing.tests.support import NOON
from services.billing.tests.till import Till
from shared.postgres import Pool

ENVIRONMENT = {"TENURE_BILLING_DATABASE_URL": "postgresql://x", "TENURE_AMQP_URL": "amqp://127.0.0.1/"}


def told(**variables: str) -> BillingSettings:
    names = {f"TENURE_BILLING_{name.upper()}": value for name, value in variables.items()}
    return BillingSettings.from_environment({**ENVIRONMENT, "TENURE_ADMIN_KEY": "k" * 24, **names})


async def test_nobody_is_asked_for_money_unless_it_is_told(pool: Pool) -> None:
    settings = told()
    async with open_provider(settings) as provider:
        assert isinstance(provider, ManualProvider)
        assert (provider.name, provider.collects) == ("manual", False)
        assert collecting(Till(pool).house.kernel(), provider, settings) == []
    assert announcer(settings) is None


async def test_with_a_key_it_is_collected_and_compared(pool: Pool) -> None:
    settings = told(stripe_key="sk_test_1", stripe_webhook_secret="whsec_1", stripe_url="http://127.0.0.1:1")
    async with open_provider(settings) as provider:
        assert (provider.name, provider.collects) == ("stripe", True)
        assert not isinstance(provider, ManualProvider)
        collector: Collector = provider
        assert [each async for each in _nothing(collector)] == ["away"]
        runs = collecting(Till(pool).house.kernel(), provider, settings)
        assert [each.__qualname__ for each in runs] == ["Collecting.run", "Reconciling.run"]
    heard = announcer(settings)
    assert heard is not None
    assert heard.name == "stripe"


async def _nothing(collector: Collector) -> Any:
    try:
        async for each in collector.payments_since(NOON):
            yield each
    except Exception:  # noqa: BLE001 - there is nobody at this port
        yield "away"


def test_secrets_are_not_shown() -> None:
    shown = repr(told(stripe_key="sk_test_1", stripe_webhook_secret="whsec_1"))
    assert "sk_test_1" not in shown
    assert "whsec_1" not in shown


def test_days_are_told_in_a_list() -> None:
    assert told().collection_retry_days == (1, 9, 13, 20)
    assert told(collection_retry_days="2, 5").collection_retry_days == (2, 5)
    assert told(collection_retry_days="").collection_retry_days == ()


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"stripe_webhook_secret": "whsec_1"}, "needs TENURE_BILLING_STRIPE_KEY"),
        ({"stripe_key": ""}, "stripe_key"),
        ({"stripe_key": "sk", "stripe_url": "ftp://x"}, "stripe_url"),
        ({"collection_retry_days": "5,5"}, "go on from each to the next"),
        ({"collection_retry_days": "0"}, "greater than or equal to 1"),
        ({"collection_retry_days": "soon"}, "valid integer"),
    ],
)
def test_what_cannot_be_is_refused(variables: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        told(**variables)
