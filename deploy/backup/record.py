"""What a backup says of itself: `backup.json`, which is written last; a folder without it is no backup."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

FILE = "backup.json"

_FORMAT = 1


class UnusableBackupError(Exception):
    """A folder is no backup, or not the one that was made; the message names the file."""


@dataclass(frozen=True)
class Record:
    """A backup.

    Attributes:
        point: the name of the moment, in the log of Postgres.
        moment: aware.
        held_seconds: for how long publishers were held.
    """

    point: str
    moment: datetime
    held_seconds: float

    def write(self, folder: Path) -> None:
        """Complete a backup: from now on it is one."""
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in sorted(folder.iterdir())
        }
        told = {
            "format": _FORMAT,
            "point": self.point,
            "moment": self.moment.isoformat(),
            "heldSeconds": round(self.held_seconds, 1),
            "files": files,
        }
        unfinished = folder / f"{FILE}.new"
        unfinished.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        unfinished.replace(folder / FILE)


def checked(folder: Path) -> Record:
    """Return what a backup says of itself, after a look at every byte of it.

    Raises:
        UnusableBackupError: it is none, or it has changed.
    """
    try:
        told = orjson.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        raise UnusableBackupError(f"{folder} has no {FILE}: it is no backup, or was never completed.") from None
    except orjson.JSONDecodeError as error:
        raise UnusableBackupError(f"{folder / FILE} cannot be read: {error}") from error
    if told.get("format") != _FORMAT:
        raise UnusableBackupError(f"{folder / FILE} is of format {told.get('format')}; this code reads {_FORMAT}.")
    for name, was in told["files"].items():
        path = folder / name
        if not path.exists():
            raise UnusableBackupError(f"{path} is missing.")
        if path.stat().st_size != was["bytes"] or _digest(path) != was["sha256"]:
            raise UnusableBackupError(f"{path} is not what it was when the backup was made.")
    return Record(told["point"], datetime.fromisoformat(told["moment"]), told["heldSeconds"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
