"""A release: all the code of one revision, in a folder of its own."""

import asyncio
import compileall
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_WITHIN = Path(__file__).with_name("within.py")
_KEPT = ("PATH", "LANG", "LC_ALL")


class NoSuchReleaseError(Exception):
    """The code of that revision cannot be had; the message says why."""


class ReleaseFailedError(Exception):
    """What a release does itself has failed; the message is its own."""


@dataclass(frozen=True)
class Release:
    """Code that can be run beside other code.

    Attributes:
        name: which revision it is.
        tree: its folder.
    """

    name: str
    tree: Path

    def command(self, action: str, argument: str) -> list[str]:
        """Return how to have it do something; see `tests.rolling.within`."""
        return [sys.executable, "-P", str(_WITHIN), action, argument]  # -P: nothing of our own folder can be imported

    def environment(self) -> Mapping[str, str]:
        """Return what a program needs so that it finds this code and no other."""
        return {name: os.environ[name] for name in _KEPT if name in os.environ} | {"PYTHONPATH": str(self.tree)}

    async def migrate(self, service: str, url: str) -> list[str]:
        """Apply its migrations to a service's database, as the owner, and return which ones were missing."""
        applied: list[str] = (await self._told("migrate", service, line=url))["applied"]
        return applied

    async def create_databases(self, folder: Path, admin_url: str) -> int:
        """Give its databases and logins what they need of the server, and return how many databases those are."""
        count: int = (await self._told("databases", str(folder), line=admin_url))["databases"]
        return count

    async def definitions(self, folder: Path) -> Mapping[str, Any]:
        """Return what it wants of the broker, with the logins of an installation."""
        found: Mapping[str, Any] = (await self._told("topology", str(folder)))["definitions"]
        return found

    async def _told(self, action: str, argument: str, *, line: str = "") -> Any:
        process = await asyncio.create_subprocess_exec(
            *self.command(action, argument),
            cwd=self.tree,
            env=self.environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(line.encode() + b"\n")
        if process.returncode != 0:
            raise ReleaseFailedError(f"{self.name} cannot {action} {argument}:\n{errors.decode()[-2000:]}")
        return json.loads(output)


def exported(revision: str, folder: Path, *, repository: Path = ROOT) -> Release:
    """Take the code of a revision out of git.

    Raises:
        NoSuchReleaseError: there is no git, no history, or no such revision.
    """
    named = ["rev-parse", "--verify", "--quiet", "--short=9", "--end-of-options", f"{revision}^{{commit}}"]
    commit = _git(repository, *named, failure=f"There is no revision {revision} here").decode().strip()
    archive = _git(repository, "archive", "--format=tar", commit, failure=f"{commit} cannot be exported")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return _compiled(Release(f"{commit} ({revision})", folder))


def working_tree(folder: Path, *, repository: Path = ROOT) -> Release:
    """Take the code as it lies in the repository's folder now, whether or not it was committed.

    Raises:
        NoSuchReleaseError: there is no git.
    """
    listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = _git(repository, *listed, failure=f"{repository} is no git repository").decode().split("\0")
    for name in filter(None, names):
        source, copy = repository / name, folder / name
        if source.is_file():  # what was deleted is still listed
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    return _compiled(Release("the working tree", folder))


def _compiled(release: Release) -> Release:
    """Compile it as an installation would, so that the first start of a service is like any other."""
    for package in ("shared", "services"):
        compileall.compile_dir(release.tree / package, quiet=2)
    return release


def _git(repository: Path, *arguments: str, failure: str) -> bytes:
    try:
        outcome = subprocess.run(["git", *arguments], cwd=repository, check=False, capture_output=True)
    except FileNotFoundError:
        raise NoSuchReleaseError("There is no git on this machine, so there is no earlier code.") from None
    if outcome.returncode == 0:
        return outcome.stdout
    reason = outcome.stderr.decode(errors="replace").strip()
    raise NoSuchReleaseError(". ".join(filter(None, [failure, reason, _shallow(repository)])))


def _shallow(repository: Path) -> str:
    """Return what to do about a clone without its history; empty where it has all of it."""
    command = ["git", "rev-parse", "--is-shallow-repository"]
    outcome = subprocess.run(command, cwd=repository, check=False, capture_output=True, text=True)
    return "This is a shallow clone; `git fetch --unshallow` brings the rest" if "true" in outcome.stdout else ""
