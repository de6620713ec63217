"""What Stripe tells by webhooks, which show by a signature that it is Stripe.

A webhook is believed in one thing only: that there is something new about an invoice. What that is, Stripe is asked.
So it does not matter in which order they arrive, how often, or how late.
"""

import json
from collections.abc import Mapping
from typing import Final

import stripe

from services.billing.payments.port import MalformedNewsError, News, WrongSignatureError
from services.billing.payments.stripe.provider import NAME

HEADER: Final = "stripe-signature"

TOLERANCE: Final = 300
"""How many seconds ago a webhook may have been signed."""

_LONGEST = 255


class StripeNews:
    """Reads Stripe's webhooks.

    Args:
        secret: with which Stripe signs what it sends to this endpoint.
    """

    name = NAME

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def read(self, headers: Mapping[str, str], body: bytes) -> News:
        """Return what a webhook tells; see `Announcer.read`."""
        try:
            stripe.WebhookSignature.verify_header(body.decode(), headers.get(HEADER), self._secret, TOLERANCE)
        except (stripe.SignatureVerificationError, UnicodeError):
            raise WrongSignatureError("The webhook is not signed by Stripe, or was signed too long ago.") from None
        try:
            event = json.loads(body)
            about = event["data"]["object"]
            is_about_a_bill = about["object"] == "invoice"
            return News(_text(event["id"]), _text(event["type"]), _text(about["id"]) if is_about_a_bill else None)
        except (ValueError, LookupError, TypeError):
            raise MalformedNewsError("The webhook is signed, and is no event of Stripe.") from None


def _text(value: object) -> str:
    """Return an identity or a type.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise TypeError
    return value
