"""Payment providers: who takes money for invoices, how they are asked for it, and how their books are compared."""

from services.billing.payments.manual import ManualProvider
from services.billing.payments.port import (
    Announcer,
    Charge,
    ChargeRefusedError,
    Collector,
    Customer,
    MalformedNewsError,
    News,
    Paid,
    PaymentProvider,
    Pending,
    ProviderUnavailableError,
    Standing,
    Taken,
    Unpaid,
    Void,
    WrongSignatureError,
)

__all__ = [
    "Announcer",
    "Charge",
    "ChargeRefusedError",
    "Collector",
    "Customer",
    "MalformedNewsError",
    "ManualProvider",
    "News",
    "Paid",
    "PaymentProvider",
    "Pending",
    "ProviderUnavailableError",
    "Standing",
    "Taken",
    "Unpaid",
    "Void",
    "WrongSignatureError",
]
