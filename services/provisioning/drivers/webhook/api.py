"""HTTP by which those call back whom the webhook driver has asked."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from services.provisioning.drivers.documents import MalformedAnswerError, check_outcome, parsed
from services.provisioning.drivers.webhook.callbacks import Callbacks
from services.provisioning.drivers.webhook.signatures import ID, Keys, WrongSignatureError
from shared.clock import Clock
from shared.http import Problem, everybody, problems

PATH = "/v1/driver-callbacks"

LARGEST = 256 * 1024
"""How many bytes a callback may have."""

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "title": "DriverAnswer"}}},
    }
}

Key = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


def callback_routes(callbacks: Callbacks, keys: Keys, *, clock: Clock) -> APIRouter:
    """Return the route for callbacks; whoever calls shows by a signature who it is.

    Args:
        keys: one of which callbacks are signed with.
    """
    router = APIRouter(tags=["drivers"], dependencies=[everybody()])

    @router.post(
        f"{PATH}/{{key}}",
        status_code=204,
        response_class=Response,
        openapi_extra=_BODY,
        responses=problems(401, 404, 413, 422),
    )
    async def call_back(key: Key, request: Request) -> None:
        """Take the answer to what the webhook driver has asked, signed as Standard Webhooks has it.

        `webhook-id` is the key. Of several answers to one key the first counts.
        """
        body = await request.body()
        if len(body) > LARGEST:
            raise Problem(413, code="body_too_large", detail=f"A callback has at most {LARGEST} bytes.")
        _check_sender(keys, key, request, body, now=clock.now())
        try:
            document = parsed(body)
            check_outcome(document)
        except MalformedAnswerError as error:
            raise Problem(422, code="malformed_answer", detail=str(error)) from None
        if not await callbacks.record(key, document):
            raise Problem(404, code="unknown_callback", detail="Nobody waits for an answer with this key.")

    return router


def _check_sender(keys: Keys, key: str, request: Request, body: bytes, *, now: datetime) -> None:
    """Let nobody pass who has not signed this very answer."""
    try:
        identity = keys.check(request.headers, body, now=now)
    except WrongSignatureError as error:
        raise _wrong_signature(str(error)) from None
    if identity != key:
        raise _wrong_signature(f"{ID} must be the key that is in the path.")


def _wrong_signature(detail: str) -> Problem:
    headers = {"WWW-Authenticate": 'Signature realm="tenure"'}
    return Problem(401, code="wrong_signature", detail=detail, headers=headers)
