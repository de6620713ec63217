"""Debian's packages, for whoever is root on a machine that lacks a program."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVICE_POLICY = Path("/usr/sbin/policy-rc.d")


class InstallationError(Exception):
    """A package could not be installed; the message ends with what was said about it."""


def can_install() -> bool:
    """Tell whether packages can be installed at all."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(package: str) -> None:
    """Install a package, and start none of its services.

    Raises:
        InstallationError: that failed.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update"],
        ["apt-get", "install", "--yes", "--no-install-recommends", package],
    ):
        with _no_services_started():
            outcome = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if outcome.returncode != 0:
            output = (outcome.stdout + outcome.stderr).strip().splitlines()[-10:]
            raise InstallationError(f"{' '.join(command)} failed:\n" + "\n".join(output))


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep a package from starting the machine's own servers (Debian policy, invoke-rc.d and policy-rc.d)."""
    if _SERVICE_POLICY.exists():
        yield
        return
    _SERVICE_POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _SERVICE_POLICY.chmod(0o755)
    try:
        yield
    finally:
        _SERVICE_POLICY.unlink()
