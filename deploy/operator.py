"""What an operator's commands need to know: every login of an installation, from the environment or its data folder."""

import os
from collections.abc import Mapping
from pathlib import Path

from deploy.databases import APPLICATION
from shared.contracts import SERVICES

WATCHER_VARIABLE = "TENURE_WATCHER_AMQP_URL"
"""Names the broker login of subscribers outside."""

LOGINS_FILE = "operator.env"
"""The file of a data folder that holds every login of the running installation."""


class MissingLoginsError(Exception):
    """Nobody said where the installation is."""


def data_folder() -> Path:
    """Return where embedded servers and generated secrets live: ``TENURE_DATA_DIR``, else ``.tenure``."""
    return Path(os.environ.get("TENURE_DATA_DIR", ".tenure"))


def keep_logins(folder: Path, environment: Mapping[str, str]) -> None:
    """Write the logins of a running installation into its data folder, for its owner alone."""
    descriptor = os.open(folder / LOGINS_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in sorted(environment.items()))


def database_urls() -> dict[str, str]:
    """Return where each service's database and the application's is.

    Raises:
        MissingLoginsError: neither the environment nor the data folder tells.
    """
    return {name: _told(f"TENURE_{name.upper()}_DATABASE_URL") for name in (*SERVICES, APPLICATION)}


def broker_url(service: str) -> str:
    """Return a service's own login to the broker, or the one for all.

    Raises:
        MissingLoginsError: neither the environment nor the data folder tells.
    """
    return _told(f"TENURE_{service.upper()}_AMQP_URL", "TENURE_AMQP_URL")


def watcher_url() -> str:
    """Return the broker login of subscribers outside.

    Raises:
        MissingLoginsError: neither the environment nor the data folder tells.
    """
    return _told(WATCHER_VARIABLE)


def _told(*names: str) -> str:
    told = _kept() | os.environ
    for name in names:
        if name in told:
            return told[name]
    raise MissingLoginsError(
        f"Set {' or '.join(names)}, or TENURE_DATA_DIR to the data folder of a running `make up` "
        f"(now {data_folder()}, which has no {LOGINS_FILE})."
    )


def _kept() -> dict[str, str]:
    try:
        lines = (data_folder() / LOGINS_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines)
