"""`python -m deploy.compose.secrets`: make the installation's secrets, once, and hand Postgres and RabbitMQ theirs.

The first job of the stack, before any server runs. What was made at an earlier start is kept.
"""

import json
import secrets
import sys
from pathlib import Path

from deploy.compose.volumes import DEFINITIONS, OPERATOR, POSTGRES, POSTGRES_PASSWORD, RABBITMQ, ROOT, put
from deploy.local.secrets import Secrets, keep_admin_key, load_or_create
from deploy.topology import DEPLOY, WATCHER, definitions
from shared.messaging.topology import Manifest

_RANDOM_BYTES = 32


def main(root: Path = ROOT) -> int:
    """Fill the volumes of the operator and of the two servers, and say where the administrator's key is."""
    made = load_or_create(root / OPERATOR)
    if not (root / POSTGRES / POSTGRES_PASSWORD).exists():
        put(root / POSTGRES, POSTGRES_PASSWORD, secrets.token_urlsafe(_RANDOM_BYTES))
    put(root / RABBITMQ, DEFINITIONS, json.dumps(topology(made), indent=1))
    keep_admin_key(root / OPERATOR, made.admin_key)
    print("The administrator's key is shown by: docker compose run --rm operator deploy.compose.key")
    return 0


def broker_passwords(made: Secrets) -> dict[str, str]:
    """Return the password of every login to the broker."""
    return {**made.broker, DEPLOY: made.broker_deploy, WATCHER: made.broker_watcher}


def topology(made: Secrets) -> dict[str, object]:
    """Return what the broker has to hold, as a definitions file."""
    return definitions(Manifest.load(), broker_passwords(made), administrators={DEPLOY})


if __name__ == "__main__":
    sys.exit(main())
