"""Stripe, asked through its own SDK."""

from services.billing.payments.stripe.provider import StripeProvider, open_stripe
from services.billing.payments.stripe.webhooks import StripeNews

__all__ = ["StripeNews", "StripeProvider", "open_stripe"]
