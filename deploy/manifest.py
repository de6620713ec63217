"""The manifest, made of what the services' tables say: `python -m deploy.manifest` writes it."""

from importlib import import_module
from pathlib import Path

import shared.messaging
from shared.contracts import SERVICES
from shared.messaging.topology import Manifest

PATH = Path(shared.messaging.__file__).with_name("manifest.json")


def manifest() -> Manifest:
    """Build the manifest from every service's ``PUBLISHES`` and ``SUBSCRIPTIONS``."""
    tables = {service: import_module(f"services.{service}.handlers") for service in SERVICES}
    return Manifest.of(
        publishes={service: table.PUBLISHES for service, table in tables.items()},
        subscribes={service: table.SUBSCRIPTIONS for service, table in tables.items()},
    )


if __name__ == "__main__":
    PATH.write_text(manifest().dump(), encoding="utf-8")
