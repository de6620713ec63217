"""`python -m services.identity`: the identity service as a process of its own."""

from services.identity.app import build
from services.identity.settings import IdentitySettings
from shared.service import main

if __name__ == "__main__":
    main(build, IdentitySettings)
