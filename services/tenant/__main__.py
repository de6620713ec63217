"""`python -m services.tenant`: the tenant service as a process of its own."""

from services.tenant.app import build
from services.tenant.settings import TenantSettings
from shared.service import main

if __name__ == "__main__":
    main(build, TenantSettings)
