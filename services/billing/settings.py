"""What the billing service is told from outside."""

from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from services.billing import overdue
from shared.settings import ServiceSettings, settings_of


class BillingSettings(ServiceSettings):
    """The settings of the billing service.

    Attributes:
        grace_hours: how long after the end of a month its usage may still come in before it is invoiced; what comes
            later is on the next invoice.
        seller_name: who sells, as invoices for people say; with nothing said, nothing is written.
        seller_address: likewise, in lines.
        seller_tax_id: likewise.
        dunning: whether whoever does not pay is told so, suspended and off-boarded; off where nobody books payments.
        past_due_days: how long after the issue of an invoice of which something is due its tenant is told so.
        suspension_days: how long after it the tenant is suspended, until it has paid.
        termination_days: how long after it the tenant is off-boarded; 0 for never.
        stripe_key: of the account at Stripe by which invoices are collected; None where people record payments.
        stripe_webhook_secret: with which Stripe signs its webhooks; without it news of payments is a day late.
        stripe_url: whom to ask instead of Stripe; for tests.
        collection_retry_days: how many days after the issue of an invoice its money is asked for again, separated by
            commas; first it is at once.
    """

    model_config = settings_of("billing")

    grace_hours: int = Field(default=24, ge=0, le=168)
    seller_name: str = Field(default="", max_length=200)
    seller_address: str = Field(default="", max_length=1000)
    seller_tax_id: str = Field(default="", max_length=100)
    dunning: bool = False
    past_due_days: int = Field(default=10, ge=1, le=3650)
    suspension_days: int = Field(default=14, ge=1, le=3650)
    termination_days: int = Field(default=21, ge=0, le=3650)
    stripe_key: SecretStr | None = Field(default=None, min_length=1)
    stripe_webhook_secret: SecretStr | None = Field(default=None, min_length=1)
    stripe_url: str | None = Field(default=None, pattern=r"^https?://[^/?#\s]+$")
    collection_retry_days: Annotated[tuple[Annotated[int, Field(ge=1, le=365)], ...], NoDecode] = (1, 9, 13, 20)

    @field_validator("collection_retry_days", mode="before")
    @classmethod
    def _split_days(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("collection_retry_days")
    @classmethod
    def _days_go_on(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in pairwise(value)):
            raise ValueError("collection_retry_days must go on from each to the next")
        return value

    @model_validator(mode="after")
    def _webhooks_of_somebody(self) -> Self:
        if self.stripe_key is None and self.stripe_webhook_secret is not None:
            raise ValueError("TENURE_BILLING_STRIPE_WEBHOOK_SECRET needs TENURE_BILLING_STRIPE_KEY")
        return self

    @model_validator(mode="after")
    def _dunning_goes_on(self) -> Self:
        if not self.past_due_days < self.suspension_days:
            raise ValueError("past_due_days must be less than suspension_days")
        if 0 < self.termination_days <= self.suspension_days:
            raise ValueError("suspension_days must be less than termination_days, or termination_days 0 for never")
        return self

    @property
    def dunning_terms(self) -> overdue.Terms | None:
        """How long an invoice may be unpaid; None where dunning is off."""
        if not self.dunning:
            return None
        return overdue.Terms(
            past_due=timedelta(days=self.past_due_days),
            suspension=timedelta(days=self.suspension_days),
            termination=timedelta(days=self.termination_days) if self.termination_days else None,
        )
