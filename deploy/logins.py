"""Who is told which login: each service its own, and an operator all of them."""

import os
from collections.abc import Mapping

from deploy.databases import APPLICATION, DatabaseUrls
from deploy.local.secrets import Secrets
from deploy.operator import WATCHER_VARIABLE

ENCRYPTION_KEYS = "TENURE_IDENTITY_ENCRYPTION_KEYS"
"""Names what identity's private keys are encrypted with."""


def environment_of(
    service: str, urls: Mapping[str, DatabaseUrls], amqp_urls: Mapping[str, str], secrets: Secrets
) -> dict[str, str]:
    """Return what a service is told of servers and secrets, and nobody else is.

    Args:
        urls: by service, and under `deploy.databases.APPLICATION`.
        amqp_urls: by service; ``TENURE_AMQP_URL`` takes the place of all of them.
    """
    prefix = f"TENURE_{service.upper()}"
    environment = {f"{prefix}_DATABASE_URL": urls[service].app}
    if given := os.environ.get("TENURE_AMQP_URL"):
        environment["TENURE_AMQP_URL"] = given
    else:
        environment[f"{prefix}_AMQP_URL"] = amqp_urls[service]
    if service == "identity":
        environment[ENCRYPTION_KEYS] = os.environ.get(ENCRYPTION_KEYS) or secrets.encryption_key
        if mail_server := os.environ.get("TENURE_SMTP_URL"):
            environment["TENURE_SMTP_URL"] = mail_server
    if service == "provisioning":
        environment["TENURE_APPLICATION_DATABASE_URL"] = urls[APPLICATION].owner
    return environment


def logins_of(
    environment: Mapping[str, Mapping[str, str]], urls: Mapping[str, DatabaseUrls], watcher_url: str
) -> dict[str, str]:
    """Return all that an operator's commands have to know, as `deploy.operator.keep_logins` takes it.

    Args:
        environment: what each service is told, by service.
        watcher_url: the broker login of subscribers outside.
    """
    logins = {
        name: value
        for told in environment.values()
        for name, value in told.items()
        if name.endswith(("_DATABASE_URL", "_AMQP_URL"))
    }
    return logins | {
        f"TENURE_{APPLICATION.upper()}_DATABASE_URL": urls[APPLICATION].owner,
        WATCHER_VARIABLE: watcher_url,
    }
