"""Usage events over HTTP."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field

from services.metrics.recording.body import (
    BATCH,
    EVENT,
    MOST_EVENTS,
    NDJSON,
    documents_of,
    events_of,
    id_of,
    media_type_of,
    outcomes_of,
)
from services.metrics.recording.event import Reception
from services.metrics.recording.recorder import CONFLICT, CONFLICT_DETAIL, DUPLICATE, Outcome, Recorder
from services.metrics.recording.refusal import RefusedError
from shared.access import Role
from shared.clock import Clock
from shared.http import Asker, FieldError, Problem, Resource, permit, problems

_WRITERS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
EVENT_SCHEMA = {
    "type": "object",
    "title": "UsageEvent",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 255},
        "source": {"type": "string", "minLength": 1, "maxLength": 255},
        "type": {"type": "string", "minLength": 1, "maxLength": 255},
        "subject": {
            "type": ["string", "null"],
            "pattern": "^[A-Za-z0-9_-]{1,64}$",
            "description": "The tenant; who acts in one may leave it out.",
        },
        "time": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "Left out: when it is received.",
        },
        "data": {"type": ["object", "null"]},
    },
}
"""JSON schema of an event."""

_BATCH = {
    "type": "array",
    "description": f"At most {MOST_EVENTS:,} events.",
    "items": {"description": "A `UsageEvent`; what is none is refused, and the others are taken."},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"anyOf": [EVENT_SCHEMA, _BATCH]}},
            EVENT: {"schema": EVENT_SCHEMA},
            BATCH: {"schema": _BATCH},
            NDJSON: {
                "schema": {"description": "A `UsageEvent` a line; what is none is refused, the others are taken."}
            },
        },
    }
}


class Result(Resource):
    """What became of an event."""

    id: str | None = Field(description="The event's; null where it cannot be read.")
    status: Literal["accepted", "duplicate", "conflict", "refused"]
    code: str | None = Field(description="Why it was refused, for machines.")
    detail: str | None
    pointer: str | None = Field(description="A JSON pointer into the event: where the reason is.")


class Results(Resource):
    """What became of the events of a request, in their order."""

    accepted: int
    duplicates: int
    conflicts: int
    refused: int
    results: list[Result]


def routes(recorder: Recorder, *, clock: Clock) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["usage"])

    @router.post(
        "/v1/usage",
        dependencies=[_WRITERS],
        openapi_extra=_BODY,
        response_model=Results,
        responses=problems(400, 409, 413, 415, 422, 503),
    )
    async def record_usage(asker: Asker, request: Request) -> Response:
        """Record usage events: CloudEvents 1.0, one, an array of them, or NDJSON.

        Each counts once, however often it is sent: it is known by its `source` and `id`, and has to come with the same
        ones again. What is `accepted` is durable. `duplicate`: it was accepted before. `conflict`: another one was,
        with the same `source` and `id`. `refused`: nothing of it is kept; the others of the request are taken. A single
        event that is refused or in conflict is answered with a problem.
        """
        is_one, documents = documents_of(media_type_of(request.headers.get("content-type", "")), await request.body())
        sent = events_of(documents, Reception.at(clock.now(), tenant_id=asker.tenant_id))
        outcomes = await outcomes_of(recorder, sent)
        ids = [id_of(document) for document in documents]
        if is_one:
            _check(outcomes[0])
        return Response(orjson.dumps(_results(ids, outcomes)), media_type="application/json")

    return router


def _check(outcome: Outcome) -> None:
    """Answer for a single event that was not taken."""
    if isinstance(outcome, RefusedError):
        errors = [] if outcome.pointer is None else [FieldError(outcome.pointer, outcome.detail)]
        raise Problem(422, code=outcome.code, detail=outcome.detail, errors=errors)
    if outcome == CONFLICT:
        raise Problem(409, code=CONFLICT, detail=CONFLICT_DETAIL)


def _results(ids: Sequence[str | None], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    results = [_result(id_, outcome) for id_, outcome in zip(ids, outcomes, strict=True)]
    counts = Counter(result["status"] for result in results)
    return {
        "accepted": counts["accepted"],
        "duplicates": counts[DUPLICATE],
        "conflicts": counts[CONFLICT],
        "refused": counts["refused"],
        "results": results,
    }


def _result(id_: str | None, outcome: Outcome) -> dict[str, str | None]:
    if isinstance(outcome, RefusedError):
        why = {"code": outcome.code, "detail": outcome.detail, "pointer": outcome.pointer}
        return {"id": id_, "status": "refused", **why}
    detail = CONFLICT_DETAIL if outcome == CONFLICT else None
    return {"id": id_, "status": outcome, "code": None, "detail": detail, "pointer": None}
