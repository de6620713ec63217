"""A deployment as an operator does it: logins and broker first, then one service after the other, onboarding last."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.contracts import SERVICES
from tests.chaos.campaign.fleet import Fleet
from tests.chaos.campaign.journal import Journal
from tests.rolling.release import Release
from tests.rolling.servers import Servers
from tests.rolling.visitors import Visitors

ORDER = (*(service for service in SERVICES if service != "onboarding"), "onboarding")
"""Whoever is asked knows a new message before there is anybody who says it."""

_ROUTE = ("source_name", "destination_name", "routing_key")
_TOPOLOGY = ("exchanges", "queues", "bindings")


@dataclass(frozen=True)
class Restart:
    """One service that runs new code since.

    Attributes:
        asked_at: when the old process was asked to stop.
        ready_at: when the new one said that it is ready.
        stopping: seconds that the old process took to end.
        starting: seconds that the new one took from its start until it was ready.
        setbacks: what clients met instead of an answer, from the migrations until the next service's turn.
    """

    service: str
    asked_at: datetime
    ready_at: datetime
    stopping: float
    starting: float
    setbacks: Mapping[str, int]


@dataclass
class Deployment:
    """Brings new code to a running fleet.

    Attributes:
        pause: seconds for which old code runs on a new schema, and then old and new versions side by side.
        restarts: what has been done.
    """

    release: Release
    fleet: Fleet
    servers: Servers
    journal: Journal
    visitors: Visitors
    pause: float
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.restarts: list[Restart] = []

    async def declare(self) -> None:
        """Give logins what the new release lets them do, and the running broker whatever it wants of that.

        Raises:
            AssertionError: the broker has not taken it.
        """
        count = await self.release.create_databases(self.servers.folder, self.servers.admin_url)
        self.say(f"logins        of {count} databases, as the new release wants them")
        before, after = self.servers.definitions, await self.release.definitions(self.servers.folder)
        path = self.servers.folder / "new-definitions.json"
        path.write_text(json.dumps(after), encoding="utf-8")
        path.chmod(0o644)
        await self.servers.control("import_definitions", str(path.resolve()))
        missing = {_route(each) for each in after["bindings"]} - await self._routes()
        assert not missing, f"the broker lacks {len(missing)} bindings, such as {min(missing)}"
        self.say(f"topology      {_difference(before, after)}")

    async def replace(self, service: str) -> None:
        """Let the new release take over one service.

        Raises:
            AssertionError: the old process did not end in order, or the new one does not run the new code.
        """
        setbacks: Counter[str] = Counter()
        with self._counting(service, setbacks):
            await self._migrate(service)
            asked_at, stopped = datetime.now(UTC), _now()
            ended = await self.fleet.stop(service)
            started = _now()
            began = self._start(service)
            await self.fleet.processes[service].ready(self.fleet.client)
            ready_at, ready = datetime.now(UTC), _now()
            self.say(f"{service:<12}  {ended}; {began}, ready after {ready - started:.1f} s")
            await asyncio.sleep(self.pause)
        restart = Restart(service, asked_at, ready_at, started - stopped, ready - started, setbacks)
        self.restarts.append(restart)

    async def _routes(self) -> set[tuple[str, ...]]:
        said = await self.servers.control("list_bindings", *_ROUTE, "--formatter", "json")
        return {tuple(each[name] for name in _ROUTE) for each in json.loads(said)}

    async def _migrate(self, service: str) -> None:
        applied = await self.release.migrate(service, self.fleet.stack.databases[service].owner)
        if applied:
            self.say(f"{service:<12}  old code on a new schema: {', '.join(applied)}")
            await asyncio.sleep(self.pause)

    def _start(self, service: str) -> str:
        """Start the new code and return the proof that it is that."""
        process = self.fleet.processes[service]
        before = process.pid
        process.root = self.release.tree
        self.fleet.start(service)
        folder = Path(f"/proc/{process.pid}/cwd").readlink()
        assert process.pid != before, f"{service} is still the process {before}"
        assert folder == self.release.tree, f"{service} runs the code in {folder}, not that of {self.release.name}"
        return f"pid {process.pid} runs {self.release.name}"

    @contextmanager
    def _counting(self, service: str, setbacks: Counter[str]) -> Iterator[None]:
        """Count what the service's clients meet during a block; the customers are onboarding's."""
        sources = [self.visitors.setbacks[service]]
        if service == "onboarding":
            sources.append(self.journal.setbacks)
        before = [Counter(source) for source in sources]
        yield
        for source, earlier in zip(sources, before, strict=True):
            setbacks.update(Counter(source) - earlier)


def _route(binding: Mapping[str, str]) -> tuple[str, ...]:
    return binding["source"], binding["destination"], binding["routing_key"]


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say what is new on the broker, and what the new release wants no more and is left."""
    words = []
    for kind in _TOPOLOGY:
        old, new = ({json.dumps(each, sort_keys=True) for each in found[kind]} for found in (before, after))
        words.append(f"{len(new - old)} {kind} added" + (f", {len(old - new)} no longer wanted" if old - new else ""))
    return "; ".join(words)


def _now() -> float:
    return asyncio.get_running_loop().time()
