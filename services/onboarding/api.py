"""Every HTTP route of the onboarding service."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse

from services.onboarding import queries
from services.onboarding.catalog import Catalog
from services.onboarding.engine import Stored, load
from services.onboarding.intake import Accepted, Application, Intake
from services.onboarding.presentation import AccountView, HistoryEntry, WorkflowView, view
from services.onboarding.requests import AccountRequest, OnboardingRequest, checked
from services.onboarding.saga import Status
from services.onboarding.streams import Streams
from services.onboarding.watch import Watch
from shared.clock import Clock
from shared.http import (
    DEFAULT_LIMIT,
    Administrator,
    Cursor,
    FieldError,
    IdempotencyKey,
    Limit,
    Page,
    Problem,
    administrator,
    decode_cursor,
    fingerprint,
    page,
)
from shared.postgres import Pool
from shared.text import Identifier, Text, name_key

PATHS = ("/v1/onboardings", "/v1/accounts", "/v1/workflows", "/v1/events")

_LONGEST_ID = 18

Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the workflow to end.")]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="Resume after this event.")]


def routes(pool: Pool, *, intake: Intake, catalog: Catalog, watch: Watch, streams: Streams, clock: Clock) -> APIRouter:
    """Return the routes: ways in, and ways to follow what became of it."""
    router = APIRouter(dependencies=[Depends(administrator)])
    router.include_router(_ways_in(pool, intake=intake, catalog=catalog, clock=clock))
    router.include_router(_ways_out(pool, watch=watch))
    router.include_router(_streams(pool, streams=streams))
    return router


def _ways_in(pool: Pool, *, intake: Intake, catalog: Catalog, clock: Clock) -> APIRouter:
    router = APIRouter(tags=["onboarding"])

    async def accept(body: OnboardingRequest, sent: bytes, principal: str, key: str | None) -> Accepted:
        try:
            request = checked(body, await catalog.current(), today=clock.now().date())
        except Problem:
            # What was accepted once is answered as then, also when its tier is retired or its date past by now.
            if replayed := await intake.replayed(principal, key, sent):
                return replayed
            raise
        return await intake.submit(Application(request, principal, key, sent))

    @router.post("/v1/onboardings", status_code=202, response_model=WorkflowView)
    async def onboard(body: OnboardingRequest, principal: Administrator, key: IdempotencyKey) -> Response:
        """Onboard a customer: from a name to a tenant that is signed in, provisioned, metered and billed."""
        accepted = await accept(body, fingerprint(body), principal.id, key)
        return _accepted(accepted, dict(accepted.workflow))

    @router.put("/v1/accounts", status_code=202, response_model=AccountView)
    async def put_account(body: AccountRequest, principal: Administrator, key: IdempotencyKey) -> Response:
        """Create an account; the answer carries its new ``accountId``, which is the tenant's id."""
        if body.account_id is not None:
            await _refuse_update(pool, body.account_id)
        accepted = await accept(body.onboarding(), fingerprint(body), principal.id, key)
        return _accepted(accepted, dict(accepted.workflow) | {"accountId": accepted.workflow["tenantId"]})

    return router


def _accepted(accepted: Accepted, content: dict[str, object]) -> Response:
    headers = {"Location": f"/v1/workflows/{accepted.workflow['id']}"}
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(content, status_code=202, headers=headers)


async def _refuse_update(pool: Pool, account_id: str) -> None:
    async with pool.acquire(timeout=5.0) as connection:
        known = await queries.workflows(connection, limit=1, after=None, tenant_id=account_id)
    if not known:
        detail = f"There is no account {account_id}."
        raise Problem(404, code="unknown_account", detail=detail, errors=[FieldError("/accountId", detail)])
    detail = "An existing account cannot be changed this way yet; leave accountId out to create one."
    raise Problem(409, code="account_exists", detail=detail, errors=[FieldError("/accountId", detail)])


def _ways_out(pool: Pool, *, watch: Watch) -> APIRouter:
    router = APIRouter(tags=["workflows"])

    async def stored(workflow_id: UUID) -> Stored:
        async with pool.acquire(timeout=5.0) as connection:
            row = await queries.workflow(connection, workflow_id)
            if row is None:
                raise unknown_workflow(workflow_id)
            return (await load(connection, [row]))[workflow_id]

    @router.get("/v1/workflows")
    async def list_workflows(
        *,
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
                tenant_id=tenant_id,
                kind=kind,
                status=status,
                name_part=name_key(q) if q else None,
            )
            loaded = list((await load(connection, rows)).values())
        return page(loaded, limit=limit, item=view, key=lambda each: (each.created_at, each.workflow.id))

    @router.get("/v1/workflows/{workflow_id}")
    async def get_workflow(workflow_id: UUID, response: Response, wait: Wait = 0) -> WorkflowView:
        """Return a workflow; with ``wait``, as soon as it has ended or the time is up."""
        found = await stored(workflow_id)
        deadline = asyncio.get_running_loop().time() + wait
        while not found.workflow.status.is_final and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await watch.workflow(workflow_id, seen=found.workflow.seq, within=left)
            found = await stored(workflow_id)
        if not found.workflow.status.is_final:
            response.headers["Retry-After"] = "1"
        return view(found)

    @router.get("/v1/workflows/{workflow_id}/history")
    async def get_history(workflow_id: UUID, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[HistoryEntry]:
        """List what happened to a workflow, in order."""
        await stored(workflow_id)
        after = decode_cursor(cursor, int)
        async with pool.acquire(timeout=5.0) as connection:
            rows = await queries.history(connection, workflow_id, after=after[0] if after else 0, limit=limit + 1)
        return page(rows, limit=limit, item=HistoryEntry.of, key=lambda row: (row["seq"],))

    return router


def _streams(pool: Pool, *, streams: Streams) -> APIRouter:
    router = APIRouter(tags=["events"])

    @router.get("/v1/workflows/{workflow_id}/events", response_class=StreamingResponse)
    async def stream_workflow(workflow_id: UUID, last_event_id: LastEventId = None) -> Response:
        """Stream what happens to a workflow as server-sent events, until it has ended."""
        async with pool.acquire(timeout=5.0) as connection:
            if await queries.workflow(connection, workflow_id) is None:
                raise unknown_workflow(workflow_id)
        return _event_stream(streams.workflow(workflow_id, after=_number(last_event_id)))

    @router.get("/v1/events", response_class=StreamingResponse)
    async def stream_tenant(
        tenant_id: Annotated[Identifier, Query(alias="tenantId")], last_event_id: LastEventId = None
    ) -> Response:
        """Stream what happens to a tenant's workflows as server-sent events."""
        return _event_stream(streams.tenant(tenant_id, after=_number(last_event_id)))

    return router


def _event_stream(events: AsyncIterator[bytes]) -> Response:
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


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
