"""The system user that servers run as when we are root, and the files it must reach."""

import hashlib
import os
import pwd
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_SHARED_FOLDER = Path("/var/lib/tenure")
_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True, kw_only=True)
class Account:
    """A system user without special rights.

    Attributes:
        name: its login name.
        user: its user id.
        group: its group id.
    """

    name: str
    user: int
    group: int


def unprivileged_account() -> Account | None:
    """Return the user to run Postgres as: nobody else when we are an ordinary user, a system user when we are root.

    Postgres refuses to run as root. No user is created: ``postgres`` is taken if the machine has it, else ``nobody``.

    Raises:
        LookupError: we are root and the machine has neither.
    """
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, user=entry.pw_uid, group=entry.pw_gid)
    raise LookupError(f"Postgres does not run as root, and this machine has no user {' or '.join(_CANDIDATES)}.")


def reachable(path: Path, account: Account) -> bool:
    """Tell whether an account may enter every folder above ``path`` that exists already."""
    return all(_may_enter(folder, account) for folder in path.resolve().parents if folder.exists())


def reachable_folder(folder: Path, account: Account | None) -> Path:
    """Return ``folder``, or the place that stands in for it when an account cannot reach it.

    A data folder below root's home (mode 0700) is out of reach of any other user. Opening that home would be worse
    than keeping the data elsewhere, so it goes to ``/var/lib/tenure/<digest of the path>``, and the log says so.
    """
    if account is None or reachable(folder, account):
        return folder
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    elsewhere = _SHARED_FOLDER / f"{folder.name}-{digest}"
    log.warning(
        "data kept elsewhere, its user cannot enter the wanted folder",
        action="move_data",
        wanted=str(folder),
        used=str(elsewhere),
        user=account.name,
    )
    return elsewhere


def reachable_copy(parent: Path, names: Collection[str], account: Account | None, *, version: str) -> Path:
    """Return where an account can run programs from: ``parent``, or a copy made once per version.

    Args:
        parent: the folder that holds the program folders.
        names: the program folders; they find each other by relative paths, so they move together.
        account: who runs them; nothing is copied for ourselves.
        version: keeps copies of different versions apart.
    """
    if account is None or all(_may_run(parent / name, account) for name in names):
        return parent
    copy = _SHARED_FOLDER / f"programs-{version}"
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        for name in names:
            shutil.copytree(parent / name, unfinished / name, symlinks=True)
        _open_for_all(unfinished)
        _rename_unless_there(unfinished, copy)
    return copy


def make_private(folder: Path, account: Account | None) -> None:
    """Create a folder that only its account can look into, below folders that it can enter."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.user, account.group)
        for parent in missing:
            parent.chmod(0o711)


def _open_for_all(folder: Path) -> None:
    for path in (_SHARED_FOLDER, folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))


def _rename_unless_there(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        shutil.rmtree(source)
        if not target.exists():
            raise


def _may_run(folder: Path, account: Account) -> bool:
    return reachable(folder, account) and _may_enter(folder, account)


def _may_enter(folder: Path, account: Account) -> bool:
    status = folder.stat()
    if status.st_uid == account.user:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.group:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)
