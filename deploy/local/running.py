"""The whole system, running: servers, six services and the one origin, in one process or in seven."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import httpx2
from starlette.types import ASGIApp

from deploy.local.children import running_children
from deploy.local.gateway import gateway
from deploy.local.processes import ServerFailedError
from deploy.local.stack import Say, Stack, running_stack
from deploy.local.system import built_services, origin_of
from shared.failpoints import arm_from_environment
from shared.http import HttpServer
from shared.service import run_all

HOST = "127.0.0.1"
"""Where the origin listens: this machine alone."""

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class System:
    """A running system.

    Attributes:
        url: the origin.
    """

    stack: Stack
    url: str


@asynccontextmanager
async def running_system(
    folder: Path, *, port: int, say: Say, processes: bool = False, durable: bool = True
) -> AsyncIterator[System]:
    """Start everything, and stop it at the end in the opposite order.

    Args:
        folder: where data and generated secrets are kept; nobody else may work with it.
        port: the origin's; free.
        say: told one line for each part that is ready.
        processes: whether each service is a process of its own, with a gateway in front.
        durable: whether Postgres waits for the disk; only throw-away data may do without.

    Raises:
        ServerFailedError: the services did not become ready.
    """
    url = f"http://{HOST}:{port}"
    async with running_stack(folder, say=say, durable=durable, issuer=url, lake=_lake(folder)) as stack:
        system = System(stack, url)
        running = _in_seven_processes(system, folder, port, say) if processes else _in_one_process(system, port, say)
        async with running:
            yield system


def _lake(folder: Path) -> Path:
    return folder.absolute() / "lake"


@asynccontextmanager
async def _in_one_process(system: System, port: int, say: Say) -> AsyncIterator[None]:
    started = time.monotonic()
    stopping = asyncio.Event()
    arm_from_environment()
    async with built_services(system.stack.environment) as services, asyncio.TaskGroup() as group:
        group.create_task(run_all(services, origin_of(services), host=HOST, port=port, stopping=stopping))
        try:
            await until_ready(system.url)
            say(f"Services    {len(services)} in one process  ({time.monotonic() - started:.1f} s)")
            yield
        finally:
            stopping.set()


@asynccontextmanager
async def _in_seven_processes(system: System, folder: Path, port: int, say: Say) -> AsyncIterator[None]:
    started = time.monotonic()
    async with running_children(system.stack.environment, folder / "services", say) as children:
        owners = {child.name: (import_module(f"services.{child.name}.api").PATHS, child.url) for child in children}
        async with gateway(owners) as origin, _served(origin, port):
            await until_ready(system.url)
            for child in children:
                say(f"{child.name:<12}  process {child.pid} on port {child.port}")
            say(f"Services    {len(children)} processes behind one origin  ({time.monotonic() - started:.1f} s)")
            yield


@asynccontextmanager
async def _served(origin: ASGIApp, port: int) -> AsyncIterator[None]:
    server = HttpServer(origin, host=HOST, port=port)
    serving = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def until_ready(url: str) -> None:
    """Return as soon as an origin's services can all do their work.

    Raises:
        ServerFailedError: not within a minute; with what was missing last.
    """
    deadline = time.monotonic() + _READY_SECONDS
    async with httpx2.AsyncClient(base_url=url, timeout=_ANSWER_SECONDS, trust_env=False) as client:
        while missing := await _missing(client):
            if time.monotonic() > deadline:
                raise ServerFailedError(f"The services were not ready within {_READY_SECONDS:.0f} s: {missing}")
            await asyncio.sleep(_POLL_SECONDS)


async def _missing(client: httpx2.AsyncClient) -> str:
    try:
        answer = await client.get("/readyz")
    except httpx2.TransportError as error:
        return f"no answer from {client.base_url} ({type(error).__name__})"
    return "" if answer.is_success else str(answer.json()["detail"])
