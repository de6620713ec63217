"""The Compose stack of this checkout, as `docker compose` and whoever is on the same machine reach it."""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.databases import DatabaseUrls
from deploy.local.stack import Stack
from deploy.operator import WATCHER_VARIABLE
from tests.system import MovableClock, System, administrator

PROJECT = "COMPOSE_PROJECT_NAME"
"""Names the stack that is tested; `python -m tests.compose` runs one of its own."""

SERVERS = ("postgres", "rabbitmq")

_ROOT = Path(__file__).resolve().parents[2]
_COMMAND_SECONDS = 300.0


def is_tested() -> bool:
    """Tell whether the tests are to use a Compose stack that runs."""
    return "TENURE_TEST_COMPOSE" in os.environ


def compose(*arguments: str) -> str:
    """Run `docker compose`, and return what it says.

    Raises:
        AssertionError: it failed; with what it complained of.
    """
    return _run("docker", "compose", *arguments)


async def composed(*arguments: str) -> str:
    """Do the same, while others go on."""
    return await asyncio.to_thread(compose, *arguments)


def within(service: str, script: str, *, user: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a service's container, as its own user or as another."""
    named = ("--user", user) if user else ()
    command = ("docker", "compose", "exec", "--no-TTY", *named, service, "sh", "-c", script)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def tool(module: str, *arguments: str) -> str:
    """Run one of the operator's commands in a container of the stack."""
    return compose("run", "--rm", "--no-TTY", "operator", module, *arguments)


def containers() -> Sequence[Mapping[str, Any]]:
    """Return what there is of each container, also of jobs that are done."""
    return [json.loads(line) for line in compose("ps", "--all", "--format", "json").splitlines()]


def inspected(service: str) -> Mapping[str, Any]:
    """Return all that the engine knows of the one container of a service."""
    found: Sequence[Mapping[str, Any]] = json.loads(
        _run("docker", "inspect", compose("ps", "--all", "--quiet", service).strip())
    )
    (container,) = found
    return container


def origin() -> str:
    """Return the URL of the gateway."""
    return f"http://{compose('port', 'gateway', '8080').strip()}"


def admin_key() -> str:
    """Return the administrator's key, as the README has it shown."""
    return tool("deploy.compose.key").strip()


def administered() -> Any:
    """Return a client that the stack takes for its administrator."""
    return administrator(origin(), admin_key())


@asynccontextmanager
async def composed_stack() -> AsyncIterator[Stack]:
    """Give the logins of the stack, as of one that was started here; its servers are found by their names meanwhile."""
    kept = compose("run", "--rm", "--no-TTY", "--entrypoint", "cat", "operator", "/secrets/operator/operator.env")
    logins = dict(line.split("=", 1) for line in kept.splitlines())
    suffix = "_DATABASE_URL"
    databases = {
        name.removeprefix("TENURE_").removesuffix(suffix).lower(): DatabaseUrls(owner=url, app=url)
        for name, url in logins.items()
        if name.endswith(suffix)
    }
    with pytest.MonkeyPatch.context() as patch:
        _resolve(patch, {server: _address(server) for server in SERVERS})
        yield Stack({}, databases, admin_key(), None, None, logins[WATCHER_VARIABLE])


@asynccontextmanager
async def composed_system(stack: Stack) -> AsyncIterator[System]:
    """Give the running stack as a system that is used through its gateway, and can only be seen from outside."""
    async with administered() as client:
        yield System({}, {}, stack.audited, client, _ClockOutside())


class _ClockOutside(MovableClock):
    """The clock of services in containers, which nobody can put forward."""

    def put_forward(self, seconds: float) -> None:
        raise AssertionError(f"{seconds} s cannot be skipped in containers: mark the test `inside`")


def _address(service: str) -> str:
    """Return where a container is reached from this machine; Linux alone has a way to it."""
    networks = inspected(service)["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


def _resolve(patch: pytest.MonkeyPatch, addresses: Mapping[str, str]) -> None:
    """Let this process find containers by the names that they have for each other."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **more: Any) -> Any:
        return resolve(addresses.get(host, host), *arguments, **more)

    patch.setattr(socket, "getaddrinfo", resolved)


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}{done.stdout}"
    return done.stdout
