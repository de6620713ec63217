"""HTTP by which payment providers tell what is new."""

from fastapi import APIRouter, Request, Response

from services.billing import queries
from services.billing.payments import Announcer, MalformedNewsError, News, WrongSignatureError
from shared.clock import Clock
from shared.http import Problem, everybody, problems
from shared.postgres import Pool, transaction

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "title": "StripeEvent"}}},
    }
}


def routes(pool: Pool, announcer: Announcer | None, clock: Clock) -> APIRouter:
    """Return the route for webhooks; whoever calls shows by a signature who it is.

    Args:
        announcer: reads what the provider tells; without any nobody can have signed it.
    """
    router = APIRouter(dependencies=[everybody()])

    @router.post(
        "/v1/payment-webhooks/stripe",
        status_code=204,
        response_class=Response,
        openapi_extra=_BODY,
        responses=problems(401, 413, 422),
    )
    async def hear_stripe(request: Request) -> None:
        """Take a webhook of Stripe, signed as `Stripe-Signature` has it. Told again, it changes nothing.

        Whatever it says, no more is made of it than that Stripe is asked for what it is about.
        """
        body = await request.body()
        if announcer is None:
            raise _wrong_signature("No webhooks of Stripe are expected here.")
        news = _read(announcer, request, body)
        async with transaction(pool) as connection:
            await queries.bills.hear(
                connection, announcer.name, news.event_id, news.type, news.reference, now=clock.now()
            )

    return router


def _read(announcer: Announcer, request: Request, body: bytes) -> News:
    try:
        return announcer.read(request.headers, body)
    except WrongSignatureError as error:
        raise _wrong_signature(str(error)) from None
    except MalformedNewsError as error:
        raise Problem(422, code="malformed_webhook", detail=str(error)) from None


def _wrong_signature(detail: str) -> Problem:
    headers = {"WWW-Authenticate": 'Signature realm="tenure"'}
    return Problem(401, code="wrong_signature", detail=detail, headers=headers)
