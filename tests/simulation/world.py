"""One simulation: six services, a broker, seven databases, some clients, and what goes wrong between them."""

import asyncio
import contextvars
import functools
import hashlib
import random
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from deploy.local.system import SERVICES
from shared.failpoints import visited_by
from shared.ids import SeededIds
from shared.messaging.event import Event, Outgoing
from shared.messaging.topology import RETRY_DELAYS, STATUS_EXCHANGE, Manifest, retry_queue_of, work_queue_of
from shared.postgres import CONTENTION, is_unavailable
from shared.service import Ports, Service
from shared.settings import ServiceSettings
from tests.simulation.assembly import database_of
from tests.simulation.bus import SimulatedBus, Wires
from tests.simulation.clock import SimulatedClock
from tests.simulation.database import OUTBOX, TIMERS, Database, Gate, Lease, Pool
from tests.simulation.door import FrontDoor
from tests.simulation.faults import Faults, SimulatedError, Swarm
from tests.simulation.load import Client, Journal, live
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process, adopt, current
from tests.simulation.trace import Trace

SUBSCRIBER = "sub.simulation"
"""The queue of somebody outside who listens to everything."""

_LONGEST_SECONDS = 900.0
_LOOK_SECONDS = 0.5
_EFFORTS = 200
_LONG_SECONDS = 130.0
"""Longer than all attempts of a step together."""
_POLLS_OF = {"onboarding": (OUTBOX, TIMERS)}
_JUMPS = (-60, -5, 5, 60, 7200)
"""Seconds by which a clock jumps. Not far back: what is due by that clock then waits for as long."""


@dataclass(frozen=True)
class Effect:
    """A message that took effect: its handler ran, and the transaction was committed."""

    service: str
    id: UUID
    type: str
    workflow_id: UUID | None
    step: str | None


class World:
    """Everything that there is in one simulation.

    Args:
        seed: determines all of it.
        databases: by service, and the application's; empty but for catalogs.
        settings: of each service.

    Attributes:
        effects: what took effect anywhere, in the order of the commits.
        committed: the messages of all outboxes that were ever committed, by service.
        violations: promises that were broken, each beginning with its id.
        counts: what happened how often.
    """

    def __init__(
        self,
        seed: int,
        loop: VirtualLoop,
        databases: Mapping[str, Database],
        settings: Mapping[str, ServiceSettings],
        *,
        manifest: Manifest,
        swarm: Swarm | None = None,
    ) -> None:
        self.seed = seed
        self.loop = loop
        self.databases = databases
        self.chance = random.Random(seed)
        self.trace = Trace(loop.time)
        self.counts: Counter[str] = Counter()
        self.swarm = swarm or Swarm.of(self.chance)
        self.faults = Faults(self.swarm, self.chance, self.trace, self.counts)
        self.gate = Gate(loop, self.chance, self.trace)
        self.clocks = {name: SimulatedClock(loop) for name in SERVICES}
        self.manifest = manifest
        self.wires = Wires(manifest, SimulatedClock(loop), loop, self, self.trace)
        self.journal = Journal(expects_bugs="statement failed" in self.swarm.rates)
        self.effects: list[Effect] = []
        self.committed: dict[str, set[UUID]] = {name: set() for name in SERVICES}
        self.violations: list[str] = []
        self._settings = settings
        self._processes: dict[str, Process] = {}
        self._buses: dict[str, SimulatedBus] = {}
        self._pools: dict[str, Pool] = {}
        self._numbers: Counter[str] = Counter()
        self._context = contextvars.copy_context()
        self._clients: list[asyncio.Task[None]] = []
        self._is_over = False

    # The course of a simulation

    async def run(self) -> None:
        """Let everything happen, until it is quiet."""
        self._prepare()
        try:
            with visited_by(self._visit):
                await self._happen()
        finally:
            await self._end()

    def _prepare(self) -> None:
        random.seed(self.seed)  # of which the services take their jitter
        self.loop.set_task_factory(adopt)  # type: ignore[arg-type] # typeshed knows it without the context
        self.loop.when_idle = self.gate.advance
        for database in self.databases.values():
            database.forget()
        self.wires.broker.declare_queue(SUBSCRIBER)
        self.wires.broker.bind(STATUS_EXCHANGE, SUBSCRIBER, "#")
        if "clock off" in self.swarm.lasting:
            service = self.chance.choice(list(SERVICES))
            self.clocks[service].ahead = timedelta(days=self.chance.choice((-2, 2)))
            self.faults.note("clock off", service, str(self.clocks[service].ahead))

    async def _happen(self) -> None:
        for service in SERVICES:
            self._later(self.chance.random() * 0.2, self._start, service)
        for kind, times in self.swarm.events.items():
            for _ in range(times):
                self._later(self.chance.random() ** 2 * self.swarm.seconds, self._strike, kind)
        door = FrontDoor(lambda: self._processes.get("onboarding"), self.faults, self.trace)
        clients = [
            Client(number, door, self.chance, self.journal) for number in range(self.chance.choice((1, 2, 2, 3)))
        ]
        self._clients = [asyncio.create_task(live(client)) for client in clients]
        await asyncio.wait(self._clients, timeout=self.swarm.seconds)
        await self._until_quiet(self.swarm.seconds)
        self._heal()
        if not await self._until_quiet(self.loop.time() + _LONGEST_SECONDS):
            self.violations.append(f"L1 not quiet {_LONGEST_SECONDS:g} s after everything was healed: {self._unrest()}")
        for client in self._clients:
            if client.done() and client.exception() is not None:
                raise AssertionError("a client failed") from client.exception()

    def _heal(self) -> None:
        self.trace.add("world", "heals")
        self.faults.are_on = False
        self.faults.away.clear()
        self.wires.broker.come_back()

    async def _until_quiet(self, deadline: float) -> bool:
        while self._unrest():
            if self.loop.time() > deadline:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    def _unrest(self) -> str:
        """Name something that still moves; nothing if everything is quiet."""
        if not all(client.done() for client in self._clients):
            return "clients wait"
        if missing := [name for name in SERVICES if not self._is_serving(name)]:
            return f"{missing} do not serve"
        if self.wires.under_way:
            return f"{self.wires.under_way} parcels are under way"
        if waiting := [name for name in self._queues() if self.wires.broker.depth(name)]:
            return f"messages wait in {waiting}"
        for name in SERVICES:
            for poll in _POLLS_OF.get(name, (OUTBOX,)):
                changes, soonest = self.databases[name].soonest.get(poll.begins, (0, None))
                if changes != self.databases[name].changes or soonest is not None:
                    return f"{name} has work at {soonest}, or has not looked lately: {poll.begins}"
        return ""

    def _queues(self) -> Sequence[str]:
        retries = [retry_queue_of(name, delay) for name in SERVICES for delay in RETRY_DELAYS]
        return [*(work_queue_of(name) for name in SERVICES), *retries]

    def _is_serving(self, service: str) -> bool:
        process = self._processes.get(service)
        return process is not None and process.built is not None and process.built.kernel.consumer.is_consuming

    async def _end(self) -> None:
        self._is_over = True
        for process in self._processes.values():
            process.kill()
        for client in self._clients:
            client.cancel()
        await self.wires.broker.close()
        for _ in range(_EFFORTS):
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            if not rest and self.gate.is_idle:
                break
            for process in self._processes.values():
                for task in list(process.tasks):
                    task.cancel()
            await asyncio.sleep(0.001)
        else:
            raise AssertionError(f"these do not die: {rest}")
        self.loop.when_idle = _never
        self.loop.set_task_factory(None)

    # Processes

    def _later(self, seconds: float, work: Any, *args: Any) -> None:
        self.loop.call_later(seconds, work, *args, context=self._context.copy())

    def _start(self, service: str) -> None:
        if self._is_over:
            return
        self._numbers[service] += 1
        self.trace.add(service, "starts", self._numbers[service])
        process = Process(service, self._numbers[service], self.loop)
        self._processes[service] = process
        task = process.start(self._run(process))
        task.add_done_callback(functools.partial(self._ended, process))

    async def _run(self, process: Process) -> None:
        build, _ = SERVICES[process.service]
        clock = self.clocks[process.service]
        bus = self._buses[process.service] = SimulatedBus(self.wires, process)
        ports = Ports(
            clock=clock,
            ids=SeededIds(_number(self.seed, process.service, process.number), clock),
            bus=lambda _: bus,
            manifest=self.manifest,
            open_pool=self.open_pool,  # type: ignore[arg-type] # has what services use of a pool
        )
        async with build(self._settings[process.service], ports) as service:
            self._observe(service)
            process.built = service
            await service.run(process.stopping)

    async def open_pool(self, url: str, **_: Any) -> Pool:
        """Open a pool on one of the simulated databases, for the process that asks."""
        process = current()
        assert process is not None
        name = database_of(url)
        if (refusal := self.faults.refuses(name)) is not None:
            raise refusal
        pool = Pool(self.databases[name], self.gate, self.faults, process, self._observe_statement)
        self._pools[name] = pool
        return pool

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._is_over or process.is_dead:
            return
        if process.stopping.is_set() and error is None:
            self.trace.add(process.service, "stopped")
        else:
            self.trace.add(process.service, "ends by itself", repr(error))
            if error is not None and _is_simulated(error):
                self.counts["ended by a broken statement"] += 1
            elif error is not None and process.built is None and _is_passing(error):
                self.counts["gave up starting"] += 1  # whoever runs it starts it again; nothing had been begun
            else:
                report = "".join(traceback.format_exception(error)) if error else "cancelled"
                self.violations.append(f"L3 {process.service} ended by itself: {report}")
        process.kill()
        self._later(self.chance.choice((0.1, 2.0)) * self.chance.random(), self._start, process.service)

    def crash(self, process: Process, seconds: float | None = None) -> None:
        """Let a process die here and now, to be started again after so many seconds, or soon."""
        if process.is_dead:
            return
        others = [each for name, each in self._processes.items() if name != process.service]
        self.counts["crash while another was down"] += any(each.is_dead for each in others)
        self.trace.add(process.service, "dies")
        process.kill()
        if seconds is None:
            seconds = self.chance.choice((0.1, 0.5, 2.0, 10.0)) * self.chance.random()
        self._later(seconds, self._start, process.service)

    # What goes wrong

    async def _visit(self, name: str) -> None:
        process = current()
        if process is None:
            return
        process.require_alive()
        self.trace.add(process.service, "at", name)
        stay = await self.faults.visit(name, process.service, functools.partial(self.crash, process))
        process.require_alive()
        if stay:
            await asyncio.sleep(stay)

    def fate(self, service: str) -> Any:
        """Choose what becomes of a parcel."""
        return self.faults.fate(service)

    async def accepted(self, service: str) -> None:
        """Let a publisher crash before it learns that its parcels have arrived."""
        process = current()
        if process is not None and self.faults.strikes("crash before confirm", service):
            self.crash(process)
            process.require_alive()

    def _strike(self, kind: str) -> None:
        if not self.faults.are_on:
            return
        service = self.chance.choice(list(SERVICES))
        seconds = self.chance.choice((0.2, 2.0, 10.0)) * self.chance.random()
        self.faults.note(kind, service, f"{seconds:.3f}")
        process = self._processes.get(service)
        match kind:
            case "service killed" if process is not None:
                self.crash(process)
            case "service gone for long" if process is not None:
                self.crash(process, _LONG_SECONDS)
            case "service restarted" if process is not None:
                process.stopping.set()
            case "connection cut" if service in self._buses:
                self._buses[service].cut()
            case "broker away":
                self.wires.broker.go_away()
                self._later(seconds, self.wires.broker.come_back)
            case "database away":
                self._lose_database(self.chance.choice(list(self.databases)), seconds)
            case "database connections cut":
                self._cut_database(self.chance.choice(list(self.databases)))
            case "clock jumps":
                self.clocks[service].ahead += timedelta(seconds=self.chance.choice(_JUMPS))

    def _lose_database(self, name: str, seconds: float) -> None:
        self.trace.add(name, "is away")
        self.faults.away.add(name)
        self._cut_database(name)
        self._later(seconds, self.faults.away.discard, name)

    def _cut_database(self, name: str) -> None:
        if name in self._pools:
            self._pools[name].cut()

    # What is observed beside the services

    def _observe(self, service: Service) -> None:
        dispatch, name = service.kernel.dispatch, service.name
        handle = dispatch.handle

        async def observed(connection: Any, events: Sequence[Event]) -> list[Outgoing]:
            said = await handle(connection, events)
            effects = [Effect(name, each.id, each.type, each.workflow_id, each.step) for each in events]
            connection.notes.append(functools.partial(self.effects.extend, effects))
            return said

        dispatch.handle = observed  # type: ignore[method-assign]

    def _observe_statement(self, lease: Lease, beginning: str, args: Sequence[Any], result: Any) -> None:
        name = lease.database.name
        if beginning.startswith("INSERT INTO outbox"):
            lease.notes.append(functools.partial(self.committed[name].update, args[0]))
        elif beginning.startswith("INSERT INTO inbox"):
            self.counts["duplicate delivered"] += len(args[0]) - len(result)


def _is_simulated(error: BaseException) -> bool:
    """Tell whether a process ended because of what it was told is a bug: that is what a supervisor is for."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_simulated(each) for each in error.exceptions)
    return isinstance(error, SimulatedError)


def _is_passing(error: BaseException) -> bool:
    return is_unavailable(error) or isinstance(error, CONTENTION)


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest())


def _never() -> bool:
    return False
