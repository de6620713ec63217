"""A whole system of real processes on a private stack, and the one verdict that every crash test ends with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from deploy.audit import audit
from deploy.local.postgres import PostgresServer
from deploy.local.rabbitmq import BrokerServer
from deploy.local.stack import Stack, running_stack
from shared.testing import eventually
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.processes import ServiceProcess
from tests.chaos.watcher import Watcher, watching

END_SECONDS = 70.0
"""How long workflows may take to end after a fault: below the 90 s after which a step is given up."""

SWEPT_SECONDS = 45.0
"""How long a message may wait to be sent after a fault: a sweeper that died holding rows has them for 30 s."""

_LOOK_SECONDS = 0.1
_ATTEMPTS = 50
_HTTP_SECONDS = 20.0
_CONNECTIONS = 64


@dataclass(frozen=True)
class Moment:
    """Where a load stood when a fault struck.

    Attributes:
        ended: workflows that had.
        running: workflows that had begun and not ended.
        waiting: requests without an answer.
    """

    ended: int
    running: int
    waiting: int

    def __str__(self) -> str:
        return f"{self.ended} workflows ended, {self.running} running, {self.waiting} requests waiting"


@dataclass(frozen=True)
class Verdict:
    """What became of a load; everything that must hold has been checked.

    Attributes:
        setbacks: what the clients met before they were answered 202.
        seconds: from the acceptance of the last to the end of the last.
    """

    completed: int
    compensated: int
    setbacks: Mapping[str, int]
    seconds: float

    def __str__(self) -> str:
        setbacks = ", ".join(f"{count} {name}" for name, count in self.setbacks.items()) or "no setbacks"
        return (
            f"{self.completed} completed, {self.compensated} compensated,"
            f" {self.seconds:.1f} s after the last was accepted; clients met {setbacks}"
        )


@dataclass(frozen=True)
class System:
    """Six processes and what they stand on."""

    stack: Stack
    processes: Mapping[str, ServiceProcess]
    client: httpx2.AsyncClient
    ledger: Ledger
    watcher: Watcher

    @property
    def postgres(self) -> PostgresServer:
        """The embedded server."""
        assert self.stack.postgres is not None
        return self.stack.postgres

    @property
    def broker(self) -> BrokerServer:
        """The embedded node."""
        assert self.stack.broker is not None
        return self.stack.broker

    async def mend(self) -> None:
        """Start whatever does not run, and wait until all of it is ready."""
        await self.postgres.start()
        await self.broker.start()
        for process in self.processes.values():
            if process.exit_code is not None:
                process.start()
        await asyncio.gather(*(process.ready(self.client) for process in self.processes.values()))

    def pids(self) -> dict[str, int]:
        """Return which process each service is."""
        return {name: process.pid for name, process in self.processes.items()}

    @asynccontextmanager
    async def under_load(self, count: int) -> AsyncIterator[Load]:
        """Send that many onboardings while the block runs, and leave it when all of them are accepted."""
        load = Load(self.client, count, alive_before=(await audit(self.stack.audited)).alive)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(load.place_all())
                yield load
        except BaseExceptionGroup as error:
            error.add_note(self.last_words())
            raise

    async def moment(self, load: Load) -> Moment:
        """Return where a load stands now."""
        ended, running = await self.ledger.counts(load.prefix)
        return Moment(ended, running, load.waiting)

    async def begun(self, load: Load) -> Moment:
        """Wait until workflows of a load are running."""
        return await self._until(load, lambda moment: moment.running > 0, "workflows are running")

    async def in_the_middle(self, load: Load) -> Moment:
        """Wait until a tenth of a load has ended."""
        return await self._until(load, lambda moment: moment.ended >= load.count // 10, "a tenth has ended")

    async def _until(self, load: Load, condition: Callable[[Moment], bool], wanted: str) -> Moment:
        moment = Moment(0, 0, 0)

        async def holds() -> bool:
            nonlocal moment
            moment = await self.moment(load)
            return condition(moment)

        await eventually(holds, within=END_SECONDS, describe=lambda: f"{wanted}; but {moment}")
        return moment

    async def freeze_at_work(self, service: str, load: Load) -> int:
        """Freeze a service while it has messages to handle, and return how many these are.

        Frozen, it still has them at the moment when it is killed. One that stood still between two messages, with
        nothing for anybody else to do, goes on a little before it is tried again.
        """
        process = self.processes[service]
        for _ in range(_ATTEMPTS):
            process.freeze()
            deadline = asyncio.get_running_loop().time() + _LOOK_SECONDS
            while asyncio.get_running_loop().time() < deadline:
                if found := (await self.ledger.open_work(load.prefix))[service]:
                    return found
            process.thaw()
            await asyncio.sleep(_LOOK_SECONDS / 10)
        raise AssertionError(f"{service} never had anything to do: {await self.moment(load)}")

    async def verdict(self, load: Load, *, timeouts: int = 0) -> Verdict:
        """Wait until a load has ended and every message has arrived, then check that nothing is half done or doubled.

        Args:
            timeouts: how many steps must have been asked again because their time was up. Where it is zero, a message
                that is lost is not made up for by asking again.

        Raises:
            AssertionError: something does not end, or is not as it should be; with what it is.
        """
        started = asyncio.get_running_loop().time()
        await self._until_ended(load)
        seconds = asyncio.get_running_loop().time() - started
        await load.repeat_all()
        await self.until_quiet()
        await self._check_outcomes(load)
        asked_again = await self.ledger.timeouts(load.prefix)
        assert len(asked_again) == timeouts, f"messages were lost, or doubled: steps timed out: {asked_again}"
        await self._check_told(load)
        compensated = sum(order.doomed for order in load.orders)
        await self._check_residue(alive=load.alive_before + load.count - compensated)
        self._check_running()
        return Verdict(load.count - compensated, compensated, load.setbacks, seconds)

    async def _until_ended(self, load: Load) -> None:
        async def have_ended() -> bool:
            await asyncio.sleep(_LOOK_SECONDS)
            return await self.ledger.counts(load.prefix) == (load.count, 0)

        try:
            await eventually(have_ended, within=END_SECONDS)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{await self.ledger.stuck(load.prefix)}\n{await self._condition()}"
            ) from None

    async def until_quiet(self) -> None:
        """Wait until nothing is left to send and nothing waits in a queue."""
        await self._until_none(self.ledger.outboxes, "messages in outboxes", within=SWEPT_SECONDS)
        await self._until_none(self.ledger.queues, "messages in queues", within=SWEPT_SECONDS)

    async def _until_none(self, left: Callable[[], Awaitable[dict[str, int]]], what: str, *, within: float) -> None:
        found: dict[str, int] = {}

        async def is_none_left() -> bool:
            nonlocal found
            await asyncio.sleep(_LOOK_SECONDS)
            found = await left()
            return not found

        await eventually(is_none_left, within=within, describe=lambda: f"{what}: {found}")

    async def _condition(self) -> str:
        return f"outboxes: {await self.ledger.outboxes()}; queues: {await self.ledger.queues()}\n{self.last_words()}"

    def last_words(self) -> str:
        """Return the end of every process's log, with its exit code if it has ended."""
        return "\n".join(
            f"--- {name} ({'running' if each.exit_code is None else each.exit_code})\n{each.last_words()}"
            for name, each in self.processes.items()
        )

    async def _check_outcomes(self, load: Load) -> None:
        outcomes = await self.ledger.outcomes(load.prefix)
        assert outcomes.keys() == {order.workflow_id for order in load.orders}, "not one workflow per order"
        assert {each["endings"] for each in outcomes.values()} == {1}, "a workflow has not ended exactly once"
        for order in load.orders:
            outcome = outcomes[order.workflow_id]
            expected = "compensated" if order.doomed else "completed"
            assert outcome["status"] == expected, f"{order.key} is {outcome['status']}: {outcome['failure']}"
            assert not order.doomed or "unknown_region" in outcome["failure"], outcome["failure"]

    async def _check_told(self, load: Load) -> None:
        wanted = {order.workflow_id: ["compensated" if order.doomed else "completed"] for order in load.orders}

        def missing() -> list[str]:
            return [workflow_id for workflow_id in wanted if not self.watcher.finals(workflow_id)]

        await eventually(lambda: not missing(), describe=lambda: f"the outside was never told of {missing()}")
        told = {workflow_id: self.watcher.finals(workflow_id) for workflow_id in wanted}
        assert told == wanted, {each: told[each] for each in wanted if told[each] != wanted[each]}

    async def _check_residue(self, *, alive: int) -> None:
        found = await audit(self.stack.audited)
        assert not found.findings, "\n".join(map(str, found.findings))
        assert found.alive == alive

    def _check_running(self) -> None:
        ended = {name: each.exit_code for name, each in self.processes.items() if each.exit_code is not None}
        assert not ended, f"services that have ended: {ended}"


@asynccontextmanager
async def running_system(folder: Path) -> AsyncIterator[System]:
    """Start a durable stack and six service processes on it, and end all of it at the end."""
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(running_stack(folder, say=print, durable=True))
        processes = {name: ServiceProcess(name, told, folder) for name, told in stack.environment.items()}
        for process in processes.values():
            exits.callback(process.kill)
        client = await exits.enter_async_context(_client(processes["onboarding"].url, stack.admin_key))
        watcher = await exits.enter_async_context(watching(stack.watcher_url))
        ledger = Ledger(
            databases={name: stack.databases[name].owner for name in stack.environment},
            brokers={name: told[f"TENURE_{name.upper()}_AMQP_URL"] for name, told in stack.environment.items()},
        )
        exits.push_async_callback(ledger.close)
        yield System(stack, processes, client, ledger, watcher)
        for server in (stack.postgres, stack.broker):
            if server is not None:
                server.kill()  # nobody needs its data any more


def _client(url: str, key: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=_HTTP_SECONDS,
        limits=httpx2.Limits(max_connections=_CONNECTIONS),
        trust_env=False,
    )
