"""Usage events over HTTP."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field

from services.metrics.recording.event import Event, Reception, parse
from services.metrics.recording.reading import read, read_line
from services.metrics.recording.recorder import CONFLICT, DUPLICATE, Outcome, Recorder
from services.metrics.recording.refusal import RefusedError
from shared.access import Role
from shared.clock import Clock
from shared.http import Asker, FieldError, Problem, Resource, permit, problems

EVENT = "application/cloudevents+json"
"""One event (CloudEvents, JSON format)."""

BATCH = "application/cloudevents-batch+json"
"""An array of events (CloudEvents, JSON format)."""

NDJSON = "application/x-ndjson"
"""One event a line."""

MOST_EVENTS = 1_000
"""How many events a request may bring."""

_WRITERS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
_EVENT = {
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
_BATCH = {
    "type": "array",
    "description": f"At most {MOST_EVENTS:,} events.",
    "items": {"description": "A `UsageEvent`; what is none is refused, and the others are taken."},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"anyOf": [_EVENT, _BATCH]}},
            EVENT: {"schema": _EVENT},
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
        is_one, documents = _documents(_media_type(request), await request.body())
        reception = Reception.at(clock.now(), tenant_id=asker.tenant_id)
        sent = [_event(document, reception) for document in documents]
        outcomes = await _outcomes(recorder, sent)
        ids = [_id(document) for document in documents]
        if is_one:
            _check(outcomes[0])
        return Response(orjson.dumps(_results(ids, outcomes)), media_type="application/json")

    return router


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _documents(media_type: str, body: bytes) -> tuple[bool, list[Any]]:
    """Return whether one event was sent, and the documents that may be events."""
    if media_type == NDJSON:
        lines = [line for line in body.splitlines() if line.strip()]
        _check_number(len(lines))
        return False, [_line(line) for line in lines]
    document = read(body) if body else None
    if media_type == EVENT or (media_type != BATCH and not isinstance(document, list)):
        return True, [document]
    if not isinstance(document, list):
        detail = "The body must be an array of events."
        raise Problem(422, code="validation_failed", detail=detail, errors=[FieldError("", detail)])
    _check_number(len(document))
    return False, document


def _line(line: bytes) -> Any:
    try:
        return read_line(line)
    except RefusedError as refusal:
        return refusal


def _check_number(count: int) -> None:
    if count > MOST_EVENTS:
        detail = f"A request may bring at most {MOST_EVENTS} events, not {count}."
        raise Problem(413, code="too_many_events", detail=detail)


def _event(document: Any, reception: Reception) -> Event | RefusedError:
    if isinstance(document, RefusedError):
        return document
    try:
        return parse(document, reception)
    except RefusedError as refusal:
        return refusal


async def _outcomes(recorder: Recorder, sent: Sequence[Event | RefusedError]) -> list[Outcome]:
    recorded: Iterator[Outcome] = iter(await recorder.record([each for each in sent if isinstance(each, Event)]))
    return [next(recorded) if isinstance(each, Event) else each for each in sent]


def _id(document: Any) -> str | None:
    id_ = document.get("id") if isinstance(document, dict) else None
    return id_ if isinstance(id_, str) else None


def _check(outcome: Outcome) -> None:
    """Answer for a single event that was not taken."""
    if isinstance(outcome, RefusedError):
        errors = [] if outcome.pointer is None else [FieldError(outcome.pointer, outcome.detail)]
        raise Problem(422, code=outcome.code, detail=outcome.detail, errors=errors)
    if outcome == CONFLICT:
        raise Problem(409, code=CONFLICT, detail=_CONFLICT_DETAIL)


_CONFLICT_DETAIL = "Another event with this `source` and `id` was accepted before."


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
    detail = _CONFLICT_DETAIL if outcome == CONFLICT else None
    return {"id": id_, "status": outcome, "code": None, "detail": detail, "pointer": None}
