"""The bare floor: the messages and commits of an onboarding, with nothing but aio-pika and asyncpg.

Six processes as in the real system: one orchestrates, five do what they are asked. Everything that makes Tenure what it
is has been left out: HTTP, contracts, retries, time-outs, undo, history, checks of who says what. What is left is what
the hardware, RabbitMQ, Postgres and the two client libraries cost: for each batch inbox, effect and outbox in one
transaction, commit, publish with confirms, delete from the outbox, acknowledge.

    python -m bench.floor <role>    reads FLOOR_DATABASE_URL and FLOOR_AMQP_URL

The orchestrator runs FLOOR_COUNT workflows in groups of FLOOR_GROUP, and prints how many seconds that took; in groups
of one it waits for each before it starts the next, and prints the seconds of each.
"""

import asyncio
import json
import os
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import aio_pika
import asyncpg
from aio_pika.abc import AbstractIncomingMessage

ORCHESTRATOR = "onboarding"
STEPS = {
    "register": "tenant",
    "administrators": "identity",
    "account": "billing",
    "track": "metrics",
    "provision": "provisioning",
    "activate": "tenant",
}
"""Who does each step."""

ROLES = (ORCHESTRATOR, *dict.fromkeys(STEPS.values()))
SCHEMA = """
    CREATE TABLE inbox (id uuid PRIMARY KEY);
    CREATE TABLE outbox (id uuid PRIMARY KEY, destination text NOT NULL, body bytea NOT NULL);
    CREATE TABLE effect (workflow uuid, step text, body bytea NOT NULL, PRIMARY KEY (workflow, step));
    CREATE TABLE workflow (id uuid PRIMARY KEY, answers integer NOT NULL, done boolean NOT NULL DEFAULT false);
"""
_PARALLEL = ("administrators", "account", "track", "provision")
_ALL_PARALLEL = 1 + len(_PARALLEL)
_PREFETCH = 50
_LONGEST_SECONDS = 120.0
_FORGET_SECONDS = 0.05
_DATA = "x" * 500
"""About what a real message carries."""

Message = dict[str, Any]
Addressed = tuple[str, Message]


class Node:
    """One process: a queue of its own, a database of its own."""

    def __init__(self, role: str, pool: "asyncpg.Pool[asyncpg.Record]", exchange: Any) -> None:
        self.role = role
        self.pool = pool
        self.exchange = exchange
        self._sent: list[str] = []
        self._arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

    async def run(self, consuming: Any) -> None:
        """Handle what arrives, batch after batch."""
        await consuming.set_qos(prefetch_count=_PREFETCH)
        queue = await consuming.get_queue(f"floor.{self.role}", ensure=False)
        await queue.consume(self._arrived.put)
        while True:
            deliveries = [await self._arrived.get()]
            while not self._arrived.empty():
                deliveries.append(self._arrived.get_nowait())
            await self.handle([message for each in deliveries for message in json.loads(each.body)])
            await deliveries[-1].ack(multiple=True)

    async def handle(self, messages: Sequence[Message]) -> None:
        """Take a batch into account and send what follows."""
        async with self.pool.acquire() as connection, connection.transaction():
            fresh = await connection.fetch(
                "INSERT INTO inbox SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING id",
                [message["id"] for message in messages],
            )
            ids = {str(row["id"]) for row in fresh}
            outgoing = await self.take(connection, [message for message in messages if message["id"] in ids])
            await keep(connection, outgoing)
        await self.send(outgoing)

    async def take(self, connection: Any, messages: Sequence[Message]) -> list[Addressed]:
        """Do what is asked, and answer."""
        await connection.execute(
            "INSERT INTO effect SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[])",
            [message["workflow"] for message in messages],
            [message["step"] for message in messages],
            [message["data"].encode() for message in messages],
        )
        return [(ORCHESTRATOR, new(message["workflow"], message["step"])) for message in messages]

    async def send(self, outgoing: Sequence[Addressed]) -> None:
        """Publish what was committed, one AMQP message for each destination."""
        batches: dict[str, list[Message]] = defaultdict(list)
        for destination, message in outgoing:
            batches[destination].append(message)
        await asyncio.gather(*(self._publish(destination, batch) for destination, batch in batches.items()))
        self._sent += [message["id"] for _, message in outgoing]

    async def forget(self) -> None:
        """Delete what was confirmed from the outbox now and then, without waiting for the disk."""
        while True:
            await asyncio.sleep(_FORGET_SECONDS)
            sent, self._sent = self._sent, []
            if sent:
                async with self.pool.acquire() as connection, connection.transaction():
                    await connection.execute("SET LOCAL synchronous_commit = off")
                    await connection.execute("DELETE FROM outbox WHERE id = ANY($1::uuid[])", sent)

    async def _publish(self, destination: str, batch: Sequence[Message]) -> None:
        if destination == "status":  # for the outside: one event, one message
            await asyncio.gather(*(self._publish_one(destination, message, mandatory=False) for message in batch))
        else:
            await self._publish_one(destination, batch, mandatory=True)

    async def _publish_one(self, destination: str, content: object, *, mandatory: bool) -> None:
        body = json.dumps(content).encode()
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await self.exchange.publish(message, destination, mandatory=mandatory)


class Orchestrator(Node):
    """The process that starts workflows and follows them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._wanted = self._done = 0
        self._over = asyncio.Event()

    async def run_all(self, count: int, group: int) -> float:
        """Start workflows group by group, as fast as they are accepted; return the seconds until the last is done."""
        started = time.perf_counter()
        self._wanted, self._done = count, 0
        self._over.clear()
        for first in range(0, count, group):
            await self._start([str(uuid.uuid4()) for _ in range(min(group, count - first))])
        async with asyncio.timeout(_LONGEST_SECONDS):
            await self._over.wait()
        return time.perf_counter() - started

    async def _start(self, ids: Sequence[str]) -> None:
        outgoing = [each for one in ids for each in (("tenant", new(one, "register")), ("status", new(one, "")))]
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO workflow SELECT unnest($1::uuid[]), 0", ids)
            await keep(connection, outgoing)
        await self.send(outgoing)

    async def handle(self, messages: Sequence[Message]) -> None:
        """Take a batch of answers into account; that all are done counts once it is committed."""
        await super().handle(messages)
        if self._done == self._wanted:
            self._over.set()

    async def take(self, connection: Any, messages: Sequence[Message]) -> list[Addressed]:
        """Note each answer and ask for what comes next."""
        await connection.execute(
            "INSERT INTO effect SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[])",
            [message["workflow"] for message in messages],
            [message["step"] for message in messages],
            [message["data"].encode() for message in messages],
        )
        rows = await connection.fetch(
            """
            UPDATE workflow SET answers = answers + new.count, done = answers + new.count = $2
            FROM (SELECT id, count(*) FROM unnest($1::uuid[]) AS id GROUP BY id) AS new WHERE workflow.id = new.id
            RETURNING workflow.id, answers, done
            """,
            [message["workflow"] for message in messages],
            len(STEPS),
        )
        registered = {message["workflow"] for message in messages if message["step"] == "register"}
        self._done += sum(row["done"] for row in rows)
        return [each for row in rows for each in _next(str(row["id"]), row, registered)]


def _next(workflow: str, row: Any, registered: set[str]) -> Iterable[Addressed]:
    if workflow in registered:
        yield from ((STEPS[step], new(workflow, step)) for step in _PARALLEL)
    elif row["answers"] == _ALL_PARALLEL:
        yield STEPS["activate"], new(workflow, "activate")
    elif row["done"]:
        yield "status", new(workflow, "")


def new(workflow: str, step: str) -> Message:
    """Return a message about a step of a workflow."""
    return {"id": str(uuid.uuid4()), "workflow": workflow, "step": step, "data": _DATA}


async def keep(connection: Any, outgoing: Sequence[Addressed]) -> None:
    """Write messages into the outbox."""
    await connection.execute(
        "INSERT INTO outbox SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[])",
        [message["id"] for _, message in outgoing],
        [destination for destination, _ in outgoing],
        [json.dumps(message).encode() for _, message in outgoing],
    )


async def declare(amqp_url: str) -> None:
    """Make the exchange and the queues, empty."""
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        exchange = await channel.declare_exchange("floor", "direct", durable=True)
        for role in ROLES:
            queue = await channel.declare_queue(f"floor.{role}", durable=True, arguments={"x-queue-type": "quorum"})
            await queue.bind(exchange, role)


async def main(role: str) -> None:
    """Run one process; the orchestrator prints the seconds from the first workflow to the last, and ends."""
    publishing = await aio_pika.connect(os.environ["FLOOR_AMQP_URL"])
    consuming = await aio_pika.connect(os.environ["FLOOR_AMQP_URL"])
    channel = await publishing.channel()
    exchange = await channel.get_exchange("floor", ensure=False)
    async with asyncpg.create_pool(os.environ["FLOOR_DATABASE_URL"], min_size=2, max_size=4) as pool:
        consumer = await consuming.channel(publisher_confirms=False)
        if role != ORCHESTRATOR:
            participant = Node(role, pool, exchange)
            await asyncio.gather(participant.run(consumer), participant.forget())
            return
        node = Orchestrator(role, pool, exchange)
        count, group = int(os.environ["FLOOR_COUNT"]), int(os.environ["FLOOR_GROUP"])
        rounds = [(count, group)] if group > 1 else [(1, 1)] * count
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each) for each in (node.run(consumer), node.forget())]
            print(*[await node.run_all(*each) for each in rounds])
            for each in running:
                each.cancel()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1]))
