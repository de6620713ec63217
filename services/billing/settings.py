"""What the billing service is told from outside."""

from pydantic import Field

from shared.settings import ServiceSettings, settings_of


class BillingSettings(ServiceSettings):
    """The settings of the billing service.

    Attributes:
        grace_hours: how long after the end of a month its usage may still come in before it is invoiced; what comes
            later is on the next invoice.
        seller_name: who sells, as invoices for people say; with nothing said, nothing is written.
        seller_address: likewise, in lines.
        seller_tax_id: likewise.
    """

    model_config = settings_of("billing")

    grace_hours: int = Field(default=24, ge=0, le=168)
    seller_name: str = Field(default="", max_length=200)
    seller_address: str = Field(default="", max_length=1000)
    seller_tax_id: str = Field(default="", max_length=100)
