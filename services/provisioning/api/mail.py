"""What becomes of tenants' mails, who of them may not send for now, and an operator's word that one may again."""

from datetime import datetime
from typing import Literal, Self

import asyncpg
from fastapi import APIRouter
from pydantic import Field

from services.provisioning.api.support import OPERATORS, READERS, TenantId
from services.provisioning.drivers import parts_of, tenancy_of
from services.provisioning.mail import Limits, Score
from services.provisioning.queries import mail as queries
from shared.changes import Changes
from shared.clock import Clock
from shared.contracts.provisioning import MailSendingResumed
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    Limit,
    Page,
    Problem,
    RequestBody,
    Resource,
    decode_cursor,
    page,
    problems,
)
from shared.postgres import Pool
from shared.text import Identifier, Slug, Text


class MailScore(Resource):
    """How much was sent, and what came back."""

    sends: int = Field(description="To how many recipients mail was sent.")
    bounces: int = Field(description="How many of these bounced for good.")
    complaints: int
    bounce_rate: float | None = Field(description="Per cent of sends; null where nothing was sent.")
    complaint_rate: float | None = Field(description="Per cent of sends; null where nothing was sent.")

    @classmethod
    def of(cls, score: Score) -> Self:
        """Make it from a score."""
        return cls(
            sends=score.sends,
            bounces=score.bounces,
            complaints=score.complaints,
            bounce_rate=score.bounce_rate,
            complaint_rate=score.complaint_rate,
        )


class MailLimits(Resource):
    """What a tenant's sending is paused beyond."""

    hours: int = Field(description="How far back is looked, the current hour left out.")
    bounce_rate: float = Field(description="Per cent of sends.")
    complaint_rate: float = Field(description="Per cent of sends.")
    least_sends: int = Field(description="Fewer sends count as so many.")


class TenantMail(Resource):
    """What became of a tenant's mails, and whether it may send more."""

    tenant_id: str
    product: str | None = Field(description="From whose own account they are sent; null for the tenant's.")
    since: datetime = Field(description="The beginning of the hours that are looked at.")
    counts: dict[str, int] = Field(description="What happened in these hours, by event, such as `delivery` or `open`.")
    score: MailScore = Field(description="What of it counts for the limits: mails sent since the last resumption.")
    limits: MailLimits
    paused: bool = Field(description="It may send nothing until an operator lets it again.")
    paused_at: datetime | None
    reason: Literal["bounce_rate", "complaint_rate"] | None = Field(description="What was over its limit.")
    grounds: MailScore | None = Field(description="What it was paused for, as it was then.")
    applied_at: datetime | None = Field(
        description="When its account was made so; null as long as that is tried, and where it never had to be."
    )
    attempts: int = Field(description="How often that was tried.")
    problem: str | None = Field(description="Why the last attempt failed; it is tried again.")

    @classmethod
    def of(cls, row: asyncpg.Record, *, limits: Limits, since: datetime) -> Self:
        """Make it from a row of `queries.mail.page`."""
        grounds = row["grounds"]
        tenant_id, product = parts_of(row["tenant_id"])
        return cls(
            tenant_id=tenant_id,
            product=product,
            since=since,
            counts=row["counts"],
            score=MailScore.of(Score.of(row)),
            limits=_shown(limits),
            paused=row["paused_at"] is not None,
            paused_at=row["paused_at"],
            reason=row["reason"],
            grounds=None if grounds is None else MailScore.of(Score.of(grounds)),
            applied_at=row["applied_at"],
            attempts=row["attempts"],
            problem=row["problem"],
        )


class MailOddity(Resource):
    """Something that came in and was no event of any tenant's mails."""

    reason: Literal["greeting", "unreadable", "unknown_event", "stranger", "too_old"] = Field(
        description="Greeting: Amazon's own word about the topic. Stranger: of an account that is no tenant's, or no "
        "tenant's any more. Too old: it could not be told whether it was counted already."
    )
    count: int
    hour: datetime = Field(description="The hour in which one came in last.")


class MailResumptionRequest(RequestBody):
    """Who may send again, and why."""

    tenant_id: Identifier
    product: Slug | None = Field(default=None, description="From whose own account; null for the tenant's.")
    reason: Text


def routes(pool: Pool, changes: Changes, limits: Limits, clock: Clock) -> APIRouter:
    """Return the routes for mail."""
    router = APIRouter()

    @router.get("/v1/mail", dependencies=[READERS])
    async def list_mail(
        asker: Asker, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, tenant_id: TenantId = None
    ) -> Page[TenantMail]:
        """List what became of tenants' mails, all or one's; tenants without any are left out."""
        (after,) = decode_cursor(cursor, str) or ("",)
        since = limits.since(clock.now())
        async with pool.acquire() as connection:
            rows = await queries.page(
                connection, after=after, limit=limit + 1, tenant_id=asker.narrowed(tenant_id), since=since
            )
        return page(
            rows,
            limit=limit,
            item=lambda row: TenantMail.of(row, limits=limits, since=since),
            key=lambda row: (row["tenant_id"],),
        )

    @router.get("/v1/mail/oddities", dependencies=[OPERATORS])
    async def list_mail_oddities() -> Page[MailOddity]:
        """List how much came in that was no event of any tenant's mails, since limits count, by the reason."""
        async with pool.acquire() as connection:
            rows = await queries.oddities(connection, since=limits.since(clock.now()))
        return Page(items=[MailOddity(**row) for row in rows], next_cursor=None)

    @router.post("/v1/mail-resumptions", status_code=202, dependencies=[OPERATORS], responses=problems(404, 409))
    async def resume_mail(body: MailResumptionRequest, asker: Asker) -> TenantMail:
        """Let a paused tenant send mail again; its account follows within moments, and its rates begin anew."""
        now = clock.now()
        since = limits.since(now)
        async with changes.transaction() as change:
            tenancy = tenancy_of(body.tenant_id, body.product)
            paused = await queries.resume(change.connection, tenancy, now=now)
            rows = await queries.page(change.connection, after="", limit=1, tenant_id=tenancy, since=since)
            if not rows or rows[0]["tenant_id"] != tenancy:
                raise Problem(404, code="unknown_mail", detail=f"Nothing was heard of mails of {body.tenant_id}.")
            if paused is None:
                raise Problem(409, code="not_paused", detail=f"The mail of tenant {body.tenant_id} is not paused.")
            before = {"reason": paused["reason"], "pausedAt": paused["paused_at"], **paused["grounds"]}
            change.decided(
                asker,
                "mail.resumed",
                f"mail:{tenancy}",
                tenant_id=body.tenant_id,
                before=before,
                reason=body.reason,
            )
            change.tell(MailSendingResumed(tenant_id=body.tenant_id, product=body.product, occurred_at=now))
        return TenantMail.of(rows[0], limits=limits, since=since)

    return router


def _shown(limits: Limits) -> MailLimits:
    return MailLimits(
        hours=limits.hours,
        bounce_rate=limits.bounces,
        complaint_rate=limits.complaints,
        least_sends=limits.least_sends,
    )
