"""Postgres and RabbitMQ as the old release sets them up, run by that release's own code in a process of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.databases import DatabaseUrls
from deploy.local.stack import Stack
from tests.rolling.release import Release, ReleaseFailedError

_STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Servers:
    """Running servers, and the release that keeps them.

    Attributes:
        folder: where data, logins and the definitions that the broker has loaded are kept.
        admin_url: an administrator of the Postgres server.
    """

    stack: Stack
    folder: Path
    admin_url: str
    _keeper: asyncio.subprocess.Process

    @property
    def definitions(self) -> Mapping[str, Any]:
        """What the broker was told at its start."""
        found: Mapping[str, Any] = json.loads((self.folder / "definitions.json").read_text(encoding="utf-8"))
        return found

    async def control(self, *arguments: str) -> str:
        """Have ``rabbitmqctl`` do something, and return what it says.

        Raises:
            ReleaseFailedError: it could not.
        """
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(json.dumps(arguments).encode() + b"\n")
        answer = await _line(self._keeper)
        if "failed" in answer:
            raise ReleaseFailedError(answer["failed"])
        return str(answer["said"])


@asynccontextmanager
async def running_servers(release: Release, folder: Path, say: Callable[[str], None]) -> AsyncIterator[Servers]:
    """Start the servers of a release, with its schemas, topology and logins, and end them with the block."""
    with (folder / "servers.log").open("ab") as log:
        keeper = await asyncio.create_subprocess_exec(
            *release.command("stack", str(folder)),
            cwd=release.tree,
            env=release.environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        told = await _line(keeper)
        stack = _stack(told)
        for line in (folder / "servers.log").read_text(encoding="utf-8").splitlines():
            say(line)
        yield Servers(stack, folder, told["admin_url"], keeper)
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        async with asyncio.timeout(_STOP_SECONDS):
            await keeper.wait()


def _stack(told: Mapping[str, Any]) -> Stack:
    return Stack(
        environment=told["environment"],
        databases={name: DatabaseUrls(**urls) for name, urls in told["databases"].items()},
        admin_key=told["admin_key"],
        postgres=None,
        broker=None,
        watcher_url=told["watcher_url"],
    )


async def _line(keeper: asyncio.subprocess.Process) -> dict[str, Any]:
    assert keeper.stdout is not None
    line = await keeper.stdout.readline()
    if not line:
        raise ReleaseFailedError("the servers' process has ended; its last words are in servers.log")
    answer: dict[str, Any] = json.loads(line)
    return answer
