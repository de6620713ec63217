"""`python -m services.billing`: the billing service as a process of its own."""

from services.billing.app import build
from services.billing.settings import BillingSettings
from shared.service import main

if __name__ == "__main__":
    main(build, BillingSettings)
