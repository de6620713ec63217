"""Running seeds one after the other in one process, on databases of its own."""

import gc
import logging
import secrets
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from deploy.manifest import manifest
from tests.simulation.assembly import Edge, adapted_services, simulated_settings
from tests.simulation.faults import Swarm
from tests.simulation.invariants import Evidence, check, gathered
from tests.simulation.loop import VirtualLoop
from tests.simulation.servers import Servers, opened_servers
from tests.simulation.sometimes import happened
from tests.simulation.world import World

Result = TypeVar("Result")

_GARBAGE_THRESHOLDS = (50_000, 20, 20)
"""A simulation is over before most of what it made would be looked at a second time."""


@dataclass(frozen=True)
class Outcome:
    """What one seed came to.

    Attributes:
        violations: broken promises; none where all is well.
        counts: faults and other things that happened, and how often.
        sometimes: which of the things happened that must happen now and then.
        digest: of the trace, where it was wanted.
    """

    seed: int
    violations: tuple[str, ...]
    counts: Counter[str]
    sometimes: frozenset[str]
    digest: str
    seconds: float


class Runner:
    """Runs simulations on one set of databases.

    Attributes:
        is_broken: whether a simulation could not be brought to its end, so that there should be no other one here.
        world: the last one; ``evidence`` what was found in it.
    """

    def __init__(self, loop: VirtualLoop, servers: Servers) -> None:
        self._loop = loop
        self._servers = servers
        self._settings = simulated_settings()
        self._manifest = manifest()
        self._edge = Edge()
        self.is_broken = False
        self.world: World | None = None
        self.evidence: Evidence | None = None

    def run(self, seed: int, *, swarm: Swarm | None = None, digest: bool = False) -> Outcome:
        """Run one seed from its start to its verdict.

        Args:
            swarm: what goes wrong; the seed's own choice where None.
            digest: whether the digest of the trace is wanted.

        Raises:
            StandstillError: it came to no end at all.
        """
        began = time.perf_counter()
        _really(self._loop, self._servers.clean())
        self._loop.rewind()
        logged: Counter[str] = Counter()
        world = World(seed, self._loop, self._servers.databases, self._settings, manifest=self._manifest, swarm=swarm)
        self.world = world
        with adapted_services(self._edge), listening(logged):
            self._loop.run_until_complete(world.run())
        self.evidence = _really(self._loop, gathered(world, self._servers))
        violations = check(self.evidence)
        for row in self.evidence.workflows:
            world.counts[f"{row['kind']} {row['status']}"] += 1
        for name in ("effects", "trace"):
            world.counts[name] += len(getattr(world, name))
        world.counts["database operations"] += world.gate.operations
        world.counts["parcels"] += sum(len(each) for each in world.wires.tap.said.values())
        world.counts["orders"] += len(world.journal.orders)
        world.counts["virtual seconds"] += round(self._loop.now)
        return Outcome(
            seed,
            tuple(violations),
            world.counts,
            happened(self.evidence, logged),
            world.trace.digest() if digest else "",
            time.perf_counter() - began,
        )


def _really(loop: VirtualLoop, work: Coroutine[Any, Any, Result]) -> Result:
    """Do something on the real servers, outside of any simulation."""

    async def counted() -> Result:
        loop.under_way += 1
        try:
            return await work
        finally:
            loop.under_way -= 1

    return loop.run_until_complete(counted())


@contextmanager
def opened_runner(admin_url: str) -> Iterator[Runner]:
    """Make a loop and databases for simulations, and remove both at the end.

    Args:
        admin_url: a Postgres server, as somebody who may do everything.
    """
    loop = VirtualLoop()
    servers = opened_servers(admin_url, f"tenure_simulation_{secrets.token_hex(3)}")
    with listening(Counter()):
        runner = Runner(loop, _really(loop, _entered(servers)))
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    try:
        yield runner
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        _really(loop, servers.__aexit__(None, None, None))
        loop.close()


async def _entered(servers: Any) -> Servers:
    opened: Servers = await servers.__aenter__()
    return opened


@contextmanager
def listening(logged: Counter[str]) -> Iterator[None]:
    """Count what services log, by action, and print none of it."""

    def count(_logger: object, _method: str, event: Any) -> Any:
        logged[event.get("action", "")] += 1
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[count],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
