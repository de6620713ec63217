"""Known weaknesses of what is locked, as the OSV database has them, where it can be reached."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2

from deploy.checks.check import ROOT, FoundError, UnreachedError, program

DATABASE = "https://api.osv.dev/v1/query"
"""Asked by one request a package. Not the package index: a mirror of it answers without knowing of any weakness."""

ACCEPTED: Mapping[str, str] = MappingProxyType({})
"""Ids of weaknesses that do not reach us, and why; take one out when the lock no longer needs it."""

_ANSWER_SECONDS = 5.0
_AUDIT_SECONDS = 300.0
_NETWORK = ("ConnectionError", "Timeout")


def check_vulnerabilities(lock: Path = ROOT / "requirements.lock", *, database: str = DATABASE) -> None:
    """Let pip-audit ask for every package of a lock.

    Args:
        lock: versions with hashes, of services and of tools.
        database: speaks OSV's query interface.

    Raises:
        FoundError: a package has a known weakness that is not accepted, or could not be asked for.
        UnreachedError: the database does not answer.
        MissingToolError: pip-audit is not installed.
    """
    _require_answer(database)
    command: list[str | Path] = [
        *(
            program("pip-audit"),
            "--requirement",
            lock,
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ),
        *("--vulnerability-service", "osv", "--osv-url", database, "--timeout", f"{_ANSWER_SECONDS:.0f}"),
        *(part for identity in ACCEPTED for part in ("--ignore-vuln", identity)),
    ]
    try:
        outcome = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_AUDIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise UnreachedError(f"not reached: {database} took more than {_AUDIT_SECONDS:.0f} s") from None
    _judge(outcome, database)


def _require_answer(database: str) -> None:
    try:
        httpx2.post(database, json={}, timeout=_ANSWER_SECONDS)
    except httpx2.HTTPError as error:
        raise UnreachedError(f"not reached: {database} ({error})") from None


def _judge(outcome: subprocess.CompletedProcess[str], database: str) -> None:
    try:
        packages = json.loads(outcome.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (outcome.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        if any(word in said for word in _NETWORK):
            raise UnreachedError(f"not reached: {database} ({said})") from None
        raise FoundError(said) from None
    if faults := list(_faults(packages)):
        raise FoundError("\n".join(faults))


def _faults(packages: list[dict[str, Any]]) -> Iterator[str]:
    for package in packages:
        if "skip_reason" in package:
            yield f"{package['name']}: {package['skip_reason']}"
        for found in package.get("vulns", ()):
            fixed = ", ".join(found["fix_versions"]) or "nothing yet"
            yield f"{package['name']} {package['version']}: {found['id']}, mended in {fixed}"
