"""What goes wrong in a simulation. Each seed chooses which kinds of fault there are, and how frequent each is.

That choice is the swarm of swarm testing (Groce et al., ISSTA 2012): with every fault always on, they hide each other.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import asyncpg

from shared.failpoints import FailpointError
from tests.simulation.bus import Fate
from tests.simulation.trace import Trace

RATES: Mapping[str, float] = {
    "parcel delayed": 0.08,
    "parcel doubled": 0.06,
    "parcel lost": 0.03,
    "parcel arrived, confirm lost": 0.04,
    "parcel arrived, confirm given up": 0.02,
    "crash": 0.006,
    "crash before confirm": 0.01,
    "failure": 0.008,
    "pause": 0.01,
    "commit happened but raised": 0.01,
    "commit absent and raised": 0.01,
    "statement lost connection": 0.003,
    "statement contended": 0.004,
    "statement failed": 0.002,
    "database slow": 0.01,
    "request lost": 0.05,
    "answer lost": 0.05,
}
"""How often each kind strikes where it can, before the swarm's factor."""

EVENTS = (
    "service killed",
    "service gone for long",
    "service restarted",
    "connection cut",
    "broker away",
    "database away",
    "database connections cut",
    "clock jumps",
)
"""Kinds of fault that strike at moments of their own."""

LASTING = ("clock off",)
"""Kinds of fault that are there from the start."""

_FACTORS = (0.3, 1.0, 1.0, 3.0)
_FEW_FAILURES = 3
_LATENCY = 0.002


class SimulatedError(asyncpg.InternalServerError):
    """A statement failed in a way that says neither outage nor contention: to the service it is a bug somewhere."""


@dataclass(frozen=True)
class Swarm:
    """Which faults a seed has.

    Attributes:
        rates: probability of each kind where it can strike; those that are off are not named.
        events: how often each kind strikes at a moment of its own.
        seconds: how long there are faults.
    """

    rates: Mapping[str, float]
    events: Mapping[str, int]
    lasting: frozenset[str]
    seconds: float

    @staticmethod
    def of(chance: random.Random) -> "Swarm":
        """Choose."""
        likely = chance.choice((0.0, 0.15, 0.3, 0.3, 0.5, 0.8))
        factor = chance.choice(_FACTORS)
        rates = {kind: rate * factor for kind, rate in RATES.items() if chance.random() < likely}
        events = {kind: chance.choice((1, 1, 2, 3)) for kind in EVENTS if chance.random() < likely * 0.7}
        lasting = frozenset(kind for kind in LASTING if chance.random() < likely * 0.5)
        return Swarm(rates, events, lasting, chance.choice((4.0, 8.0, 8.0, 15.0, 40.0)))


class Faults:
    """Decides at every place where something can go wrong whether it does.

    Attributes:
        are_on: whether anything goes wrong now.
        away: the databases that cannot be reached.
        counts: how often what went wrong.
        moments: when something did, in virtual seconds.
    """

    def __init__(self, swarm: Swarm, chance: random.Random, trace: Trace, counts: Counter[str]) -> None:
        self.swarm = swarm
        self.chance = chance
        self.are_on = True
        self.away: set[str] = set()
        self.counts = counts
        self.moments: list[float] = []
        self._trace = trace
        self._failures: Counter[str] = Counter()

    def strikes(self, kind: str, who: str, what: str = "") -> bool:
        """Tell whether a fault strikes here and now."""
        rate = self.swarm.rates.get(kind)
        if rate is None or not self.are_on or self.chance.random() >= rate:
            return False
        self.note(kind, who, what)
        return True

    def note(self, kind: str, who: str, what: str = "") -> None:
        """Count a fault."""
        self.counts[kind] += 1
        self.moments.append(self._trace.now)
        self._trace.add(who, f"FAULT {kind}", what)

    # Databases

    def refuses(self, database: str) -> Exception | None:
        """Return why no connection can be had now, or None."""
        return ConnectionRefusedError(f"{database} is away") if database in self.away else None

    def statement(self, database: str, *, only_reads: bool) -> Exception | None:
        """Return what a statement fails with, or None."""
        if database in self.away or self.strikes("statement lost connection", database):
            return asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        if not only_reads and self.strikes("statement contended", database):
            return asyncpg.DeadlockDetectedError("deadlock detected")
        # Never so often that one message uses up its attempts: what is parked must be what somebody meant to be parked.
        if self._failures[database] < _FEW_FAILURES and self.strikes("statement failed", database):
            self._failures[database] += 1
            return SimulatedError("something in the database is broken")
        return None

    def commit(self, database: str) -> str | None:
        """Return ``happened`` or ``absent`` where the committer is not to learn which; else None."""
        if self.strikes("commit happened but raised", database):
            return "happened"
        if self.strikes("commit absent and raised", database):
            return "absent"
        return None

    def delay(self, database: str) -> float:
        """Return the seconds that it takes to get a connection."""
        if self.strikes("database slow", database):
            return self.chance.choice((0.1, 1.0, 6.0, 35.0))
        return 0.0

    # Messages

    def fate(self, service: str) -> Fate:
        """Choose what becomes of a parcel."""
        latency = _LATENCY * (0.5 + self.chance.random())
        if self.strikes("parcel delayed", service):
            late = self._late()
            return Fate((late,), late + latency, name="delayed")
        if self.strikes("parcel doubled", service):
            return Fate((latency, latency + self._late()), 2 * latency, name="doubled")
        if self.strikes("parcel lost", service):
            return Fate((), self.chance.choice((latency, 1.0)), is_confirmed=False, name="lost")
        if self.strikes("parcel arrived, confirm lost", service):
            return Fate((latency,), self.chance.choice((2 * latency, 1.0)), is_confirmed=False, name="unconfirmed")
        if self.strikes("parcel arrived, confirm given up", service):
            return Fate((10.0 + self._late(),), 10.0, is_confirmed=False, name="given up")
        return Fate((latency,), 2 * latency)

    def _late(self) -> float:
        return float(self.chance.choice((0.01, 0.1, 0.1, 1.0, 5.0, 20.0)) * self.chance.random())

    # Failpoints

    async def visit(self, name: str, service: str, crash: Callable[[], None]) -> float:
        """Return for how long to stay at a failpoint.

        Raises:
            FailpointError: what the place is there for fails.
        """
        if self.strikes("crash", service, name):
            self.counts[f"crash at {name}"] += 1
            crash()
        if self.strikes("failure", service, name):
            self.counts[f"failure at {name}"] += 1
            raise FailpointError(name)
        if self.strikes("pause", service, name):
            return float(self.chance.choice((0.01, 0.3, 3.0)))
        return 0.0
