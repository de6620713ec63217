"""The secrets of one installation on this machine: made once, kept in one file that only its owner can read."""

import base64
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from deploy.databases import APPLICATION, DatabasePasswords
from shared.contracts import SERVICES

ADMIN_KEY_FILE = "admin-key"
"""The file of a data folder that holds the administrator's key and nothing else."""

_FILE = "secrets.json"
_RANDOM_BYTES = 32


class Secrets(BaseModel):
    """Every secret that the local runner hands out; none of them is shown when it is printed.

    Attributes:
        databases: by service, and under ``deploy.databases.APPLICATION``.
        broker: the broker login's password, by service.
        broker_deploy: the broker login that declares exchanges, queues and permissions.
        broker_watcher: the broker login of subscribers outside.
        admin_key: the first system administrator's API key.
        encryption_key: what identity's private keys are encrypted with.
    """

    model_config = ConfigDict(frozen=True)

    databases: Mapping[str, DatabasePasswords] = Field(repr=False)
    broker: Mapping[str, str] = Field(repr=False)
    broker_deploy: str = Field(repr=False)
    broker_watcher: str = Field(repr=False)
    admin_key: str = Field(repr=False)
    encryption_key: str = Field(repr=False)


def load_or_create(folder: Path) -> Secrets:
    """Return the secrets of a data folder, made on the first call.

    ``TENURE_ADMIN_KEY`` in the environment takes the place of the kept key and is not written down.

    Args:
        folder: created when missing. Nobody else may enter it; as root others may pass through, because Postgres
            keeps its own folder below and runs as another user.

    Raises:
        ValueError: the file was damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    path = folder / _FILE
    if not path.exists():
        _write_once(path, _generate().model_dump_json(indent=2))
    kept = _completed(path)
    given = os.environ.get("TENURE_ADMIN_KEY")
    return kept.model_copy(update={"admin_key": given}) if given else kept


def keep_admin_key(folder: Path, key: str) -> Path | None:
    """Write the administrator's key where a shell can read it, for its owner alone.

    Returns:
        The file when it was written now, which is the moment to show the key; None when it was there already.
    """
    path = folder / ADMIN_KEY_FILE
    if path.exists() and path.read_text(encoding="ascii") == key:
        return None
    path.unlink(missing_ok=True)
    _write_once(path, key)
    return path


def _generate() -> Secrets:
    return Secrets(
        databases={name: DatabasePasswords(owner=_random(), app=_random()) for name in (*SERVICES, APPLICATION)},
        broker={service: _random() for service in SERVICES},
        broker_deploy=_random(),
        broker_watcher=_random(),
        admin_key=f"tenure_admin_{_random()}",
        encryption_key=_fernet_key(),
    )


def _completed(path: Path) -> Secrets:
    """Read the secrets, and make those that an earlier release had no use for."""
    kept = json.loads(path.read_bytes())
    if isinstance(kept, dict) and "encryption_key" not in kept:
        completed = Secrets.model_validate({**kept, "encryption_key": _fernet_key()})
        _replace(path, completed.model_dump_json(indent=2))
        return completed
    return Secrets.model_validate(kept)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(_RANDOM_BYTES)).decode()


def _random() -> str:
    return secrets.token_urlsafe(_RANDOM_BYTES)


def _replace(path: Path, content: str) -> None:
    _unfinished(path, content).replace(path)


def _unfinished(path: Path, content: str) -> Path:
    """Write a file under another name first: a reader finds all of it or nothing."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    return unfinished


def _write_once(path: Path, content: str) -> None:
    """Write a file unless it is there; the first writer wins."""
    unfinished = _unfinished(path, content)
    try:
        path.hardlink_to(unfinished)
    except FileExistsError:
        return
    finally:
        unfinished.unlink()
