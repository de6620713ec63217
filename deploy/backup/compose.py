"""A backup of the Compose stack of this folder: its databases, what is parked, its secrets and its data lake."""

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.backup import steps
from deploy.backup.places import COMPOSE, beside, instead_of
from deploy.backup.programs import Say, read, said, written
from deploy.backup.record import Record, checked

SECRETS = "secrets.tar.gz"
LAKE = "lake.tar.gz"

_RUNNING = ("docker", "compose", "ps", "--quiet", "--status", "running")
_UP_SECONDS = 900.0

# Of the volumes that the job `prepare` has: what was made once, or by somebody else. The rest is made of it again.
_PACK_SECRETS = """
    cd /secrets && exec tar --create operator/secrets.json postgres/password \
        $(ls identity/TENURE_SMTP_URL billing/TENURE_BILLING_STRIPE_KEY billing/TENURE_BILLING_STRIPE_WEBHOOK_SECRET \
            2> /dev/null)
"""
_MADE_HERE = ("operator", "postgres")
_LAKE_ROOT = "/var/lib/tenure"
_PACK_LAKE = f"exec tar --create --directory {_LAKE_ROOT} ."


class NotNowError(Exception):
    """The stack is not in the state for what was asked; the message says what to do."""


def save(folder: Path, say: Say) -> Record:
    """Back up the running stack into a new folder.

    Raises:
        NotNowError: the stack does not run, or there is something in the folder.
        NeverQuietError: something was under way all the time.
        ProgramFailedError: a container did not do its part.
    """
    if not said(*_RUNNING, "postgres", "rabbitmq").strip():
        raise NotNowError("The stack does not run: docker compose up --detach --wait")
    _make(folder)
    try:
        written(folder / SECRETS, (*instead_of("prepare"), "sh", "-c", _PACK_SECRETS), say)
        record = steps.save(folder, COMPOSE, say)
        say("copying the data lake")  # after the moment: all that the databases take for written is in it
        written(folder / LAKE, (*beside("metrics"), "sh", "-c", _PACK_LAKE), say)
        record.write(folder)
    except BaseException:
        shutil.rmtree(folder)  # half a backup is of no use to anybody but thieves
        raise
    return record


def restore(folder: Path, say: Say) -> Record:
    """Make a stack that has no data what it was when it was backed up, and start it.

    Raises:
        NotNowError: the stack runs.
        UnusableBackupError: the folder is no backup, or has changed.
        ProgramFailedError: there are data already, or a container did not do its part.
    """
    say("looking at every byte of the backup")
    record = checked(folder)
    if said(*_RUNNING).strip():
        raise NotNowError("The stack runs. If its data may go: docker compose down --volumes")
    steps.restore(folder, record, COMPOSE, say)
    for service, members in _divided(folder / SECRETS).items():
        unpack = ("tar", "--extract", "--no-same-permissions", "--directory", "/secrets", *members)
        read(folder / SECRETS, (*instead_of(service), *unpack), say)
    read(folder / LAKE, (*instead_of("metrics"), "tar", "--extract", "--directory", _LAKE_ROOT), say)
    say("starting the stack")
    said("docker", "compose", "up", "--detach", "--wait", seconds=_UP_SECONDS)
    say(steps.park_again(folder, COMPOSE))
    return record


def _make(folder: Path) -> None:
    """Make the folder, for us alone: who can read it has every secret of the installation."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(folder.iterdir()):
        raise NotNowError(f"{folder} is not empty.")
    folder.chmod(0o700)


def _divided(secrets: Path) -> Mapping[str, Sequence[str]]:
    """Return which files go into the volumes of which job."""
    with tarfile.open(secrets) as file:
        names = file.getnames()
    made = [name for name in names if name.startswith(_MADE_HERE)]
    given = [name for name in names if name not in made]
    return {"secrets": made} | ({"prepare": given} if given else {})
