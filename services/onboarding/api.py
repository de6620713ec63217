"""Every HTTP route of the onboarding service."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from services.onboarding import queries
from services.onboarding.catalog import Catalog
from services.onboarding.intake import Accepted, Application, Intake
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS
from services.onboarding.lifecycles.change_tier import CHANGE_TIER
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT
from services.onboarding.operators import Operators
from services.onboarding.orders import Order
from services.onboarding.presentation import AccountView, HistoryEntry, WorkflowView, view
from services.onboarding.pressure import Pressure
from services.onboarding.requests import (
    AccountRequest,
    ActionRequest,
    OffboardingRequest,
    OnboardingRequest,
    ProductChangeRequest,
    SkipRequest,
    StateChangeRequest,
    TierChangeRequest,
    checked,
    checked_account,
    checked_offboarding,
    checked_products,
    checked_tier,
)
from services.onboarding.saga import Abandon, Action, Cancel, Retry, Skip
from services.onboarding.storage import Stored, load
from services.onboarding.streams import Streams
from services.onboarding.watch import Watch
from services.onboarding.workflow import Status
from shared.access import Principal, Role
from shared.clock import Clock
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    FieldError,
    IdempotencyKey,
    Limit,
    Page,
    Problem,
    decode_cursor,
    fingerprint,
    is_still_known,
    page,
    permit,
    problems,
)
from shared.postgres import Pool
from shared.text import Identifier, Text, name_key

PATHS = (
    "/v1/onboardings",
    "/v1/accounts",
    "/v1/offboardings",
    "/v1/tier-changes",
    "/v1/product-changes",
    "/v1/suspensions",
    "/v1/reactivations",
    "/v1/workflows",
    "/v1/events",
)

_ORDERS = frozenset(
    {
        ("POST", "/v1/onboardings"),
        ("PUT", "/v1/accounts"),
        ("POST", "/v1/tier-changes"),
        ("POST", "/v1/product-changes"),
    }
)
"""What makes work and is not urgent."""

_OPERATOR = permit(Role.SYSTEM_ADMIN)
_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
_READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)

_LONGEST_ID = 18
_TICK = 0.001
"""Seconds that are not worth waiting: a timer so short may go off before the clock has moved, again and again."""

Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the workflow to end.")]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="Resume after this event.",
        json_schema_extra={"pattern": rf"^[0-9]{{1,{_LONGEST_ID}}}$"},
    ),
]

_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}, "description": "The events."}}


Check = Callable[[Mapping[str, Any]], Order]
"""Makes an order of a request that fits the catalog, or raises the problem that it does not."""


@dataclass(frozen=True)
class Entrance:
    """Turns orders away that there is no room for, before they are read; what is urgent is read first."""

    pressure: Pressure

    def is_closed(self, method: str, path: str) -> bool:
        """Return whether a request is turned away; one that is not has a place."""
        return (method, path) in _ORDERS and not self.pressure.let_in()


@dataclass(frozen=True)
class Desk:
    """What stands behind the ways in.

    Attributes:
        grace_days: how long an off-boarding can be taken back whose request does not say.
    """

    intake: Intake
    catalog: Catalog
    clock: Clock
    grace_days: int

    async def accept(
        self, check: Check, body: BaseModel, asker: Principal, key: str | None, *, scope: str = ""
    ) -> Accepted:
        """Check a request against the catalog, and have what it orders accepted.

        Args:
            asker: who asks; a tenant out of its reach is none.
            key: the idempotency key, if there is one.
            scope: tells apart what orders different things with the same body.

        Raises:
            Problem: it does not fit, or cannot be accepted now.
        """
        sent, principal = fingerprint(body, scope=scope), _scope_of_keys(asker)
        try:
            order = replace(check(await self.catalog.current()), within=asker.tenant_id)
        except Problem:
            # What was accepted once is answered as then, also when its tier is retired or its date past by now.
            if replayed := await self.intake.replayed(principal, key, sent):
                return replayed
            raise
        return await self.intake.submit(Application(order, principal, key, sent, asker))

    @property
    def today(self) -> date:
        """The day it is, in UTC."""
        return self.clock.now().date()


def _scope_of_keys(asker: Principal) -> str:
    """Return whose idempotency keys are meant: what somebody did in one tenant is not shown to it in another."""
    return asker.id if asker.tenant_id is None else f"{asker.id} in {asker.tenant_id}"


def routes(pool: Pool, *, desk: Desk, operators: Operators, watch: Watch, streams: Streams) -> APIRouter:
    """Return the routes: ways in, ways to follow what became of it, and ways to step in."""
    router = APIRouter()
    router.include_router(_onboarding(desk))
    router.include_router(_lifecycles(desk))
    router.include_router(_ways_out(pool, watch=watch))
    router.include_router(_operators(operators))
    router.include_router(_streams(pool, streams=streams))
    return router


def _onboarding(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["onboarding"], dependencies=[_OPERATOR])

    def onboarding(body: OnboardingRequest) -> Check:
        return lambda catalog: Order(ONBOARD, checked(body, catalog, today=desk.today), body.insists())

    def update(body: AccountRequest) -> Check:
        def check(catalog: Mapping[str, Any]) -> Order:
            checked_account(body, catalog, today=desk.today)
            request = body.model_dump(mode="json", by_alias=True, exclude={"account_id"})
            return Order(UPDATE_ACCOUNT, request | {"tenantId": body.account_id}, tenant_field="accountId")

        return check

    @router.post("/v1/onboardings", status_code=202, response_model=WorkflowView, responses=problems(409))
    async def onboard(body: OnboardingRequest, asker: Asker, key: IdempotencyKey) -> Response:
        """Onboard a customer: from a name to a tenant that is signed in, provisioned, metered and billed.

        A customer that is a tenant already gets the administrators added, and nothing else.
        """
        return _accepted(await desk.accept(onboarding(body), body, asker, key))

    @router.put("/v1/accounts", status_code=202, response_model=AccountView, responses=problems(404, 409))
    async def put_account(body: AccountRequest, asker: Asker, key: IdempotencyKey) -> Response:
        """Create an account, or with ``accountId`` update it; the answer carries the id, which is the tenant's id."""
        check = onboarding(body.onboarding()) if body.account_id is None else update(body)
        accepted = await desk.accept(check, body, asker, key)
        return _accepted(accepted, accountId=accepted.workflow["tenantId"])

    return router


def _lifecycles(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["lifecycles"], responses=problems(404, 409))

    @router.post("/v1/tier-changes", status_code=202, response_model=WorkflowView, dependencies=[_ADMINISTRATORS])
    async def change_tier(body: TierChangeRequest, asker: Asker, key: IdempotencyKey) -> Response:
        """Put a tenant on another tier: its plan, its quotas and its environment, or nothing of all that."""

        def check(catalog: Mapping[str, Any]) -> Order:
            checked_tier(body.tier, catalog)
            return Order(CHANGE_TIER, _json(body))

        return _accepted(await desk.accept(check, body, asker, key, scope=CHANGE_TIER.kind))

    @router.post("/v1/product-changes", status_code=202, response_model=WorkflowView, dependencies=[_ADMINISTRATORS])
    async def change_products(body: ProductChangeRequest, asker: Asker, key: IdempotencyKey) -> Response:
        """Let a tenant have exactly these products."""

        def check(catalog: Mapping[str, Any]) -> Order:
            checked_products(body.products, catalog)
            return Order(CHANGE_PRODUCTS, _json(body))

        return _accepted(await desk.accept(check, body, asker, key, scope=CHANGE_PRODUCTS.kind))

    @router.post("/v1/suspensions", status_code=202, response_model=WorkflowView, dependencies=[_OPERATOR])
    async def suspend(body: StateChangeRequest, asker: Asker, key: IdempotencyKey) -> Response:
        """Suspend a tenant: nobody signs in, nothing is charged, everything is kept."""
        order = Order(SUSPEND, _json(body) | {"suspendedFor": "operator"})
        return _accepted(await desk.accept(lambda _: order, body, asker, key, scope=SUSPEND.kind))

    @router.post("/v1/reactivations", status_code=202, response_model=WorkflowView, dependencies=[_OPERATOR])
    async def reactivate(body: StateChangeRequest, asker: Asker, key: IdempotencyKey) -> Response:
        """Open a suspended tenant again."""
        order = Order(REACTIVATE, _json(body))
        return _accepted(await desk.accept(lambda _: order, body, asker, key, scope=REACTIVATE.kind))

    @router.post("/v1/offboardings", status_code=202, response_model=WorkflowView, dependencies=[_OPERATOR])
    async def offboard(body: OffboardingRequest, asker: Asker, key: IdempotencyKey) -> Response:
        """Off-board a tenant: after a grace period everything of it is deleted, which a certificate tells."""

        def check(_: Mapping[str, Any]) -> Order:
            checked_offboarding(body)
            return Order(OFFBOARD, {"graceDays": desk.grace_days} | _json(body))

        return _accepted(await desk.accept(check, body, asker, key, scope=OFFBOARD.kind))

    return router


def _json(body: BaseModel) -> dict[str, Any]:
    return body.model_dump(mode="json", by_alias=True, exclude_none=True)


def _accepted(accepted: Accepted, **more: object) -> Response:
    headers = {"Location": f"/v1/workflows/{accepted.workflow['id']}"}
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse({**accepted.workflow, **more}, status_code=202, headers=headers)


def _ways_out(pool: Pool, *, watch: Watch) -> APIRouter:
    router = APIRouter(tags=["workflows"], dependencies=[_READERS])

    async def stored(workflow_id: UUID, asker: Principal) -> Stored:
        async with pool.acquire(timeout=5.0) as connection:
            row = await queries.workflow(connection, workflow_id, within=asker.tenant_id)
            if row is None:
                raise unknown_workflow(workflow_id)
            return (await load(connection, [row]))[workflow_id]

    @router.get("/v1/workflows")
    async def list_workflows(
        *,
        asker: Asker,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        tenant_id: Annotated[Identifier | None, Query(alias="tenantId")] = None,
        kind: Annotated[Identifier | None, Query()] = None,
        status: Annotated[Status | None, Query()] = None,
        q: Annotated[Text | None, Query(description="Part of the customer's name.")] = None,
    ) -> Page[WorkflowView]:
        """List workflows, the newest first."""
        async with pool.acquire(timeout=5.0) as connection:
            rows = await queries.workflows(
                connection,
                limit=limit + 1,
                after=_place(cursor),
                tenant_id=asker.narrowed(tenant_id),
                kind=kind,
                status=status,
                name_part=name_key(q) if q else None,
            )
            loaded = list((await load(connection, rows)).values())
        return page(loaded, limit=limit, item=view, key=lambda each: (each.created_at, each.workflow.id))

    @router.get("/v1/workflows/{workflow_id}")
    async def get_workflow(workflow_id: UUID, asker: Asker, response: Response, wait: Wait = 0) -> WorkflowView:
        """Return a workflow; with ``wait``, as soon as it has ended or the time is up."""
        found = await stored(workflow_id, asker)
        deadline = asyncio.get_running_loop().time() + wait
        while not found.workflow.status.is_final and (left := deadline - asyncio.get_running_loop().time()) > _TICK:
            await watch.workflow(workflow_id, seen=found.workflow.seq, within=left)
            found = await stored(workflow_id, asker)
        if not found.workflow.status.is_final:
            response.headers["Retry-After"] = "1"
        return view(found)

    @router.get("/v1/workflows/{workflow_id}/history")
    async def get_history(
        workflow_id: UUID, asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
    ) -> Page[HistoryEntry]:
        """List what happened to a workflow, in order."""
        await stored(workflow_id, asker)
        after = decode_cursor(cursor, int)
        async with pool.acquire(timeout=5.0) as connection:
            rows = await queries.history(connection, workflow_id, after=after[0] if after else 0, limit=limit + 1)
        return page(rows, limit=limit, item=HistoryEntry.of, key=lambda row: (row["seq"],))

    return router


def _operators(operators: Operators) -> APIRouter:
    router = APIRouter(tags=["operators"], dependencies=[_OPERATOR], responses=problems(409))

    async def act(workflow_id: UUID, action: Action, asker: Principal) -> WorkflowView:
        stored = await operators.act(workflow_id, action, asker)
        if stored is None:
            raise unknown_workflow(workflow_id)
        return view(stored)

    @router.post("/v1/workflows/{workflow_id}/cancel")
    async def cancel(workflow_id: UUID, body: ActionRequest, asker: Asker) -> WorkflowView:
        """Have a workflow undone; possible until it has done what cannot be undone."""
        return await act(workflow_id, Cancel(asker.id, body.reason), asker)

    @router.post("/v1/workflows/{workflow_id}/retry")
    async def retry(workflow_id: UUID, body: ActionRequest, asker: Asker) -> WorkflowView:
        """Ask again now for whatever the workflow waits for."""
        return await act(workflow_id, Retry(asker.id, body.reason), asker)

    @router.post("/v1/workflows/{workflow_id}/skip")
    async def skip(workflow_id: UUID, body: SkipRequest, asker: Asker) -> WorkflowView:
        """Vouch for a step, or for its undo, that a workflow needs attention for, and let it go on without."""
        return await act(workflow_id, Skip(body.step, asker.id, body.reason), asker)

    @router.post("/v1/workflows/{workflow_id}/abandon")
    async def abandon(workflow_id: UUID, body: ActionRequest, asker: Asker) -> WorkflowView:
        """Give up a workflow that needs attention; what it leaves is the operator's."""
        return await act(workflow_id, Abandon(asker.id, body.reason), asker)

    return router


def _streams(pool: Pool, *, streams: Streams) -> APIRouter:
    router = APIRouter(tags=["events"], dependencies=[_READERS], responses=_STREAM)

    @router.get("/v1/workflows/{workflow_id}/events", response_class=StreamingResponse)
    async def stream_workflow(
        workflow_id: UUID, asker: Asker, request: Request, last_event_id: LastEventId = None
    ) -> Response:
        """Stream what happens to a workflow as server-sent events, until it has ended."""
        async with pool.acquire(timeout=5.0) as connection:
            if await queries.workflow(connection, workflow_id, within=asker.tenant_id) is None:
                raise unknown_workflow(workflow_id)
        return _event_stream(request, streams.workflow(workflow_id, after=_number(last_event_id)))

    @router.get("/v1/events", response_class=StreamingResponse)
    async def stream_tenant(
        asker: Asker,
        request: Request,
        tenant_id: Annotated[Identifier, Query(alias="tenantId")],
        last_event_id: LastEventId = None,
    ) -> Response:
        """Stream what happens to a tenant's workflows as server-sent events."""
        return _event_stream(request, streams.tenant(asker.narrowed(tenant_id), after=_number(last_event_id)))

    return router


def _event_stream(request: Request, events: AsyncIterator[bytes]) -> Response:
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_while_known(request, events), media_type="text/event-stream", headers=headers)


async def _while_known(request: Request, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield events for as long as whoever asked may still ask: a stream may outlive the session that began it."""
    async for event in events:
        if not await is_still_known(request):
            return
        yield event


def unknown_workflow(workflow_id: UUID) -> Problem:
    """Return the problem of an id that names no workflow."""
    return Problem(404, code="unknown_workflow", detail=f"There is no workflow {workflow_id}.")


def _place(cursor: str | None) -> tuple[datetime, UUID] | None:
    after = decode_cursor(cursor, datetime, UUID)
    return (after[0], after[1]) if after else None


def _number(last_event_id: str | None) -> int:
    if last_event_id is None:
        return 0
    if last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= _LONGEST_ID:
        return int(last_event_id)
    detail = "Last-Event-ID is not an id of this stream."
    raise Problem(422, code="invalid_request", detail=detail, errors=[FieldError("header/Last-Event-ID", detail)])
