"""Accepting orders: many requests in one transaction, and no answer before it is on disk."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import asyncpg
import structlog
from opentelemetry.trace import Span

from services.onboarding import decisions, orders, queries, tracing
from services.onboarding.engine import Engine
from services.onboarding.orders import Order, Placed
from services.onboarding.presentation import presented
from services.onboarding.pressure import Pressure
from services.onboarding.saga import Advanced, Started
from services.onboarding.storage import Stored, history_rows, plan_rows, step_row, workflow_row
from services.onboarding.watch import Watch
from services.onboarding.workflow import planned
from shared.audit import Decider
from shared.failpoints import failpoint
from shared.http import FieldError, Problem, overloaded
from shared.messaging import outbox
from shared.messaging.event import Outgoing
from shared.postgres import CONTENTION, Connection, is_unavailable, transaction
from shared.service import Kernel
from shared.text import name_key
from shared.tracing import spans
from shared.tracing.messages import trace_making

log = structlog.get_logger(__name__)

_BATCH = 200
_ATTEMPTS = 5


@dataclass(frozen=True)
class Accepted:
    """The answer to an accepted request.

    Attributes:
        workflow: as the public contract shows it.
        replayed: whether it is the first answer, given again.
    """

    workflow: Mapping[str, Any]
    replayed: bool = False


@dataclass(frozen=True, eq=False)
class Application:
    """A checked order that waits to be accepted.

    Attributes:
        principal: who asks; idempotency keys are theirs.
        key: the idempotency key, if one was given.
        fingerprint: of the request as it was sent.
        decider: who asks, as the audit trail has it.
        answer: what becomes of it.
        traceparent: of the request, where that is traced.
    """

    order: Order
    principal: str
    key: str | None
    fingerprint: bytes
    decider: Decider
    answer: "asyncio.Future[Accepted]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    traceparent: str | None = field(default_factory=spans.current)

    @property
    def idempotency(self) -> tuple[str, str] | None:
        """The idempotency key in the scope of its principal."""
        return (self.principal, self.key) if self.key is not None else None

    def settle(self, outcome: Accepted | Exception) -> None:
        """Answer, unless whoever asked has gone away."""
        if self.answer.done():
            return
        if isinstance(outcome, Accepted):
            self.answer.set_result(outcome)
        else:
            self.answer.set_exception(outcome)


Settled = dict[Application, Accepted | Exception]


@dataclass(frozen=True)
class _Started:
    application: Application
    placed: Placed
    stored: Stored
    advanced: Advanced
    outgoing: Sequence[Outgoing]
    answer: Mapping[str, Any]
    span: Span


class _OvertakenError(Exception):
    """Another process was faster: with an idempotency key, or with a workflow on one of the tenants; look again."""


class Intake:
    """Accepts orders in groups.

    Args:
        pressure: knows whether there is room for more.
        backlog: how many may wait.
    """

    def __init__(self, kernel: Kernel, engine: Engine, watch: Watch, *, pressure: Pressure, backlog: int) -> None:
        self._kernel = kernel
        self._engine = engine
        self._watch = watch
        self._pressure = pressure
        self._waiting: asyncio.Queue[Application] = asyncio.Queue(backlog)

    async def submit(self, application: Application) -> Accepted:
        """Wait until the order is accepted, durably, or refused.

        Raises:
            Problem: 404 where there is no such tenant, 409 where the customer's name is taken or the tenant's state
                speaks against it, 422 where the idempotency key was used for another request, 503 where there is too
                much to do.
        """
        with self._pressure.entering(urgent=application.order.definition.urgent) as is_room:
            if not is_room or self._waiting.full():
                self._pressure.refuse()
                raise overloaded()
            self._waiting.put_nowait(application)
            return await application.answer

    async def replayed(self, principal: str, key: str | None, fingerprint: bytes) -> Accepted | None:
        """Return the first answer to a request that was accepted before, or None.

        Raises:
            Problem: 422 where the idempotency key was used for another request.
        """
        if key is None:
            return None
        async with self._kernel.pool.acquire(timeout=5.0) as connection:
            rows = await queries.first_answers(connection, [(principal, key)])
        return _replay(rows[0], fingerprint) if rows else None

    async def run(self) -> None:
        """Accept what waits, for ever, one group after the other."""
        while True:
            group = [await self._waiting.get()]
            while len(group) < _BATCH and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            await self._accept(group)

    async def _accept(self, group: Sequence[Application]) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._accept_together(group)
            except (_OvertakenError, *CONTENTION):
                if attempt == _ATTEMPTS:
                    self._settle_all(group, TimeoutError("the database is too busy"))
            except Exception as error:  # noqa: BLE001 - each waiting client gets it, as its own problem document
                await self._fail(group, error)
                return
            else:
                return

    async def _fail(self, group: Sequence[Application], error: Exception) -> None:
        """Tell those who wait, after finding out whose fault it is: one request must not fail the others."""
        unanswered = [application for application in group if not application.answer.done()]
        if len(unanswered) < 2 or is_unavailable(error):  # noqa: PLR2004 - one of them alone is at fault
            self._settle_all(unanswered, error)
            return
        for application in unanswered:
            await self._accept([application])

    def _settle_all(self, group: Sequence[Application], error: Exception) -> None:
        log.warning("orders not accepted", action="intake_failed", count=len(group), error=repr(error))
        for application in group:
            application.settle(error)

    async def _accept_together(self, group: Sequence[Application]) -> None:
        async with transaction(self._kernel.pool) as connection:
            settled = await self._answered_before(connection, group)
            candidates, repeated = _first_of_each_key([each for each in group if each not in settled])
            started, refused = await self._begin_all(connection, candidates)
            # Whoever was faster may have been another replica with the very same request.
            refused |= await self._answered_before(connection, list(refused))
            await self._store(connection, started)
        await failpoint("before_202")
        self._watch.wake()
        for each in started:
            each.span.end()
        settled |= refused | {each.application: Accepted(each.answer) for each in started}
        for application, outcome in settled.items():
            application.settle(outcome)
        await self._kernel.relay.send([message for each in started for message in each.outgoing])
        if repeated:
            await self._accept(repeated)

    async def _answered_before(self, connection: Connection, group: Sequence[Application]) -> Settled:
        keys = [each.idempotency for each in group if each.idempotency is not None]
        if not keys:
            return {}
        rows = await queries.first_answers(connection, keys)
        found = {(row["principal"], row["key"]): row for row in rows}
        return {
            each: _outcome(found[each.idempotency], each.fingerprint)
            for each in group
            if each.idempotency is not None and each.idempotency in found
        }

    async def _begin_all(
        self, connection: Connection, candidates: Sequence[Application]
    ) -> tuple[list[_Started], Settled]:
        """Store a workflow for each order that can have one."""
        if not candidates:
            return [], {}
        of = {each.order: each for each in candidates}
        placed, refusals = await orders.place(connection, list(of), self._kernel.ports.ids)
        begun = [self._begin(of[each.order], each) for each in placed]
        stored = await queries.insert_workflows(connection, [_new_row(each) for each in begun]) if begun else set()
        if await orders.has_changed(connection, [each for each in placed if each.workflow_id in stored]):
            raise _OvertakenError("another workflow has ended meanwhile and changed what an order was held against")
        refused: Settled = {of[order]: problem for order, problem in refusals.items()}
        if outrun := [each for each in begun if each.placed.workflow_id not in stored]:
            refused |= await _refuse_outrun(connection, outrun)
        return [each for each in begun if each.placed.workflow_id in stored], refused

    def _begin(self, application: Application, placed: Placed) -> _Started:
        definition = placed.definition
        deadline_at = self._kernel.ports.clock.now() + timedelta(seconds=definition.seconds_for(placed.request))
        workflow = planned(
            placed.workflow_id,
            definition.kind,
            placed.tenant_id,
            definition.plan_for(placed.request),
            deadline_at=deadline_at,
        )
        span = tracing.begin(workflow, because=application.traceparent)
        traceparent = spans.traceparent_of(span)
        stored = Stored(workflow, definition.name, definition.version, placed.request, traceparent=traceparent)
        advanced, outgoing = self._engine.first(stored, Started(), because=traceparent)
        begun = replace(stored, workflow=advanced.workflow)
        ports = self._kernel.ports
        decision = decisions.ordered(placed, application.decider, clock=ports.clock, ids=ports.ids)
        outgoing.append(self._kernel.dispatch.tell(decision))
        trace_making(outgoing, because=traceparent)
        return _Started(application, placed, begun, advanced, outgoing, presented(begun), span)

    async def _store(self, connection: Connection, started: Sequence[_Started]) -> None:
        if not started:
            return
        answers = [_answer_row(each) for each in started if each.application.key is not None]
        if answers and await queries.keep_answers(connection, answers) < len(answers):
            raise _OvertakenError
        workflows = [each.advanced.workflow for each in started]
        await queries.insert_steps(
            connection, [step_row(each.id, name, step) for each in workflows for name, step in each.steps.items()]
        )
        await queries.append_history(
            connection,
            [row for each in started for row in history_rows(each.advanced.workflow, each.advanced.history)],
        )
        outgoing = [message for each in started for message in each.outgoing]
        await outbox.insert(connection, outgoing, now=self._kernel.ports.clock.now())


async def _refuse_outrun(connection: Connection, outrun: Sequence[_Started]) -> Settled:
    """Refuse what another workflow is at work before, naming it; the names that it had taken are free again."""
    await queries.free_names(connection, [each.placed.workflow_id for each in outrun])
    active = await queries.active_workflows(connection, [each.placed.tenant_id for each in outrun])
    if missing := [each for each in outrun if each.placed.tenant_id not in active]:
        raise _OvertakenError(f"{len(missing)} were outrun by workflows that have ended meanwhile")
    return {
        each.application: orders.at_work(each.placed.tenant_id, active[each.placed.tenant_id], each.application.order)
        for each in outrun
    }


def _first_of_each_key(group: Sequence[Application]) -> tuple[list[Application], list[Application]]:
    """Split off requests whose idempotency key is already used earlier in the same group."""
    seen: set[tuple[str, str]] = set()
    first: list[Application] = []
    repeated: list[Application] = []
    for application in group:
        if application.idempotency in seen:
            repeated.append(application)
            continue
        first.append(application)
        if application.idempotency is not None:
            seen.add(application.idempotency)
    return first, repeated


def _outcome(row: asyncpg.Record, fingerprint: bytes) -> Accepted | Exception:
    try:
        return _replay(row, fingerprint)
    except Problem as problem:
        return problem


def _replay(row: asyncpg.Record, fingerprint: bytes) -> Accepted:
    if row["fingerprint"] == fingerprint:
        return Accepted(row["answer"], replayed=True)
    detail = "This Idempotency-Key was used for another request."
    raise Problem(
        422, code="idempotency_key_reused", detail=detail, errors=[FieldError("header/Idempotency-Key", detail)]
    )


def _answer_row(started: _Started) -> dict[str, Any]:
    return {
        "principal": started.application.principal,
        "key": started.application.key,
        "fingerprint": started.application.fingerprint.hex(),
        "workflow_id": started.stored.workflow.id,
        "answer": started.answer,
        "created_at": started.advanced.workflow.updated_at,
    }


def _new_row(started: _Started) -> dict[str, Any]:
    workflow, customer_name = started.advanced.workflow, started.placed.request["customerName"]
    return workflow_row(workflow) | {
        "kind": workflow.kind,
        "definition": started.stored.definition,
        "version": started.stored.version,
        "tenant_id": workflow.tenant_id,
        "customer_name": customer_name,
        "name_key": name_key(customer_name),
        "plan": plan_rows(workflow.plan),
        "request": started.placed.request,
        "traceparent": started.stored.traceparent,
    }
