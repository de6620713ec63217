"""Corrections of usage over HTTP."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, Field, StringConstraints

from services.metrics import amending, queries
from services.metrics.amending import Adjustment, Voiding
from services.metrics.api.meters import MeterName
from services.metrics.api.quantities import written
from services.metrics.deciding import Deciding
from services.metrics.recording.event import LONGEST_TEXT
from shared.access import Role
from shared.http import (
    DEFAULT_LIMIT,
    Asker,
    Cursor,
    FieldError,
    IdempotencyKey,
    Limit,
    Page,
    Problem,
    RequestBody,
    Resource,
    decode_cursor,
    fingerprint,
    page,
    permit,
    problems,
)
from shared.postgres import Pool
from shared.text import Identifier, Instant, Paragraph

_OPERATORS = permit(Role.SYSTEM_ADMIN)


def _not_zero(text: str) -> str:
    if Decimal(text) == 0:
        raise ValueError("must not be zero")
    return text


_Quantity = Annotated[
    str, StringConstraints(strict=True, pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,9})?$"), AfterValidator(_not_zero)
]

# Neither trimmed nor cleaned: it has to be the event's, to the letter.
_EventText = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=LONGEST_TEXT)]


class NewAmendment(RequestBody):
    """A correction: `source` and `id` make an event void, or `meter`, `time` and `quantity` adjust an hour."""

    tenant_id: Identifier
    source: _EventText | None = Field(default=None, description="Of the event that is to be void.")
    id: _EventText | None = Field(default=None, description="Of the event that is to be void.")
    meter: MeterName | None = Field(default=None, description="Of those that add up: `count` and `sum`.")
    time: Instant | None = Field(default=None, description="In the hour that is adjusted.")
    quantity: _Quantity | None = Field(
        default=None, description="What is added to it, below zero too; a decimal number.", examples=["-12.5"]
    )
    reason: Paragraph = Field(description="Why. It is kept in the audit trail.")

    def asked(self, idempotency_key: str | None) -> Voiding | Adjustment:
        """Return what is asked for.

        Raises:
            Problem: 422, it is neither of the two, or both.
        """
        key, print_ = idempotency_key, fingerprint(self)
        of_event, of_hour = (self.source, self.id), (self.meter, self.time, self.quantity)
        if self.source is not None and self.id is not None and of_hour == (None, None, None):
            return Voiding(
                tenant_id=self.tenant_id,
                reason=self.reason,
                idempotency_key=key,
                fingerprint=print_,
                source=self.source,
                event_id=self.id,
            )
        if self.meter is not None and self.time is not None and self.quantity is not None and of_event == (None, None):
            return Adjustment(
                tenant_id=self.tenant_id,
                reason=self.reason,
                idempotency_key=key,
                fingerprint=print_,
                meter=self.meter,
                happened_at=self.time,
                quantity=Decimal(self.quantity),
            )
        raise self._wrong()

    def _wrong(self) -> Problem:
        """Name the fields that are missing, or those that are of the other kind of correction."""
        of_event = {"source", "id"} & self.model_fields_set
        of_hour = {"meter", "time", "quantity"} & self.model_fields_set
        if of_event and of_hour:
            errors = [
                FieldError(
                    f"/{name}", f"`{name}` must be left out: a correction makes an event void or adjusts an hour."
                )
                for name in sorted(of_hour)
            ]
        else:
            required = ("meter", "time", "quantity") if of_hour else ("source", "id")
            missing = [name for name in required if getattr(self, name) is None]
            errors = [FieldError(f"/{name}", f"`{name}` is required.") for name in missing]
        return Problem(422, code="validation_failed", detail=errors[0].detail, errors=errors)


class Amendment(Resource):
    """A correction of a tenant's usage. It is never changed, and part of the usage of the hour that it corrects."""

    amendment_id: UUID
    tenant_id: str
    source: str | None = Field(description="Of the event that is void; null for an adjustment.")
    id: str | None = Field(description="Of the event that is void; null for an adjustment.")
    meter: str | None = Field(description="That is adjusted; null where an event is void, whatever meters took it.")
    time: datetime = Field(description="When the event happened; in the hour that is adjusted.")
    quantity: str | None = Field(description="What is added; null where an event is void.")
    reason: str
    actor: str = Field(description="`user:<id>`, `key:<id>` or `system-administrator`.")
    amended_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Make it from a row of `queries.amendments.page`."""
        return cls(
            amendment_id=row["amendment_id"],
            tenant_id=row["tenant_id"],
            source=row["source"],
            id=row["event_id"],
            meter=row["meter"],
            time=row["happened_at"],
            quantity=None if row["quantity"] is None else written(row["quantity"]),
            reason=row["reason"],
            actor=row["actor"],
            amended_at=row["amended_at"],
        )


def routes(pool: Pool, deciding: Deciding) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["usage"], dependencies=[_OPERATORS])

    @router.post("/v1/usage/amendments", status_code=201, responses={200: {"model": Amendment}, **problems(404)})
    async def amend_usage(body: NewAmendment, asker: Asker, key: IdempotencyKey, response: Response) -> Amendment:
        """Make an event void, or adjust an hour of a meter that counts or sums up.

        An event is void once: asking again changes nothing (200). An adjustment is made as often as it is asked for,
        unless the requests have one `Idempotency-Key`. What is void stays known: the event sent again is a duplicate.
        """
        asked = body.asked(key)
        async with deciding.by(asker) as act:
            row, is_new = await amending.amend(act, asked)
        if not is_new:
            response.status_code = 200
        return Amendment.of(row)

    @router.get("/v1/usage/amendments")
    async def list_amendments(
        tenant_id: Annotated[Identifier, Query(alias="tenantId")],
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> Page[Amendment]:
        """List what of a tenant's usage was corrected, the newest first."""
        after = decode_cursor(cursor, datetime, UUID)
        async with pool.acquire() as connection:
            rows = await queries.amendments.page(
                connection, tenant_id, after=(after[0], after[1]) if after else None, limit=limit + 1
            )
        return page(rows, limit=limit, item=Amendment.of, key=lambda row: (row["amended_at"], row["amendment_id"]))

    return router
