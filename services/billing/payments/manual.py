"""The provider that is built in: people record what has come in, and nobody is asked for money."""

from services.billing.receivables import MANUAL


class ManualProvider:
    """Takes no money by itself; see ``POST /v1/payments``."""

    name = MANUAL
    collects = False
