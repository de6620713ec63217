"""The webhook driver: environments made by somebody who is asked over HTTP and answers at once, or calls back."""

from services.provisioning.drivers.webhook.api import callback_routes
from services.provisioning.drivers.webhook.callbacks import Callbacks, PostgresCallbacks
from services.provisioning.drivers.webhook.driver import WebhookDriver, WebhookTerms, open_webhook
from services.provisioning.drivers.webhook.signatures import Keys

__all__ = [
    "Callbacks",
    "Keys",
    "PostgresCallbacks",
    "WebhookDriver",
    "WebhookTerms",
    "callback_routes",
    "open_webhook",
]
