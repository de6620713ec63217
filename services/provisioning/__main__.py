"""`python -m services.provisioning`: the provisioning service as a process of its own."""

from services.provisioning.app import build
from services.provisioning.settings import ProvisioningSettings
from shared.service import main

if __name__ == "__main__":
    main(build, ProvisioningSettings)
