"""Which payment provider an installation has, and what runs because of it."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from services.billing.payments.collecting import Collecting
from services.billing.payments.manual import ManualProvider
from services.billing.payments.port import Announcer, Collector
from services.billing.payments.reconciling import Reconciling
from services.billing.settings import BillingSettings
from shared.service import Kernel


@asynccontextmanager
async def open_provider(settings: BillingSettings) -> AsyncIterator[Collector | ManualProvider]:
    """Open the provider that is told of; people record payments where none is."""
    if settings.stripe_key is None:
        yield ManualProvider()
        return
    from services.billing.payments.stripe import open_stripe  # noqa: PLC0415 - 16 MB for those who need it

    async with open_stripe(settings.stripe_key.get_secret_value(), url=settings.stripe_url) as provider:
        yield provider


def announcer(settings: BillingSettings) -> Announcer | None:
    """Return what reads the provider's webhooks; None where none are expected."""
    if settings.stripe_webhook_secret is None:
        return None
    from services.billing.payments.stripe import StripeNews  # noqa: PLC0415 - as above

    return StripeNews(settings.stripe_webhook_secret.get_secret_value())


def collecting(
    kernel: Kernel,
    provider: Collector | ManualProvider,
    settings: BillingSettings,
    *,
    registry: CollectorRegistry | None = None,
) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    """Return what runs as long as the service does; nothing where nobody is asked for money."""
    if isinstance(provider, ManualProvider):
        return []
    retries = [timedelta(days=days) for days in settings.collection_retry_days]
    return [
        Collecting(kernel, provider, retries=retries, registry=registry).run,
        Reconciling(kernel, provider, registry=registry).run,
    ]
