"""Sends invitations that are pending: a few at a time, each again and again at growing distances, but not for ever."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from services.identity.invitations import BETWEEN_MAILS, Token, next_attempt_after
from services.identity.mail import Mail, Mailer, MailError, MailRefusedError, one_line
from services.identity.queries import invitations as queries
from shared.access import OPERATORS, Role
from shared.clock import Clock
from shared.postgres import CONTENTION, Pool, is_unavailable, transaction

log = structlog.get_logger(__name__)

AT_A_TIME = 8
"""How many mails are handed over at once; a slow one holds up none of the others."""

MAIL_SECONDS = 60.0
"""How long handing over one mail may take, all steps together."""

LEASE = timedelta(minutes=5)
"""How long an invitation is left to the process that sends it; above the longest that this can take."""

_POLL_SECONDS = 2.0
_OUTAGE_SECONDS = 2.0

_LEVELS: Final = {"sent": logging.INFO, "pending": logging.WARNING, "failed": logging.ERROR}
_ROLES: Final = {
    Role.SYSTEM_ADMIN: "a system administrator",
    Role.CUSTOMER_SUPPORT: "customer support",
    Role.TENANT_ADMIN: "an administrator",
    Role.TENANT_USER: "a user",
}


@dataclass(frozen=True, slots=True)
class Errand:
    """An invitation that this process is about to send.

    Attributes:
        customer_name: whom it comes from; None where nobody said.
        attempt: which one this is, from 1 on.
    """

    invitation_id: UUID
    email: str
    role: Role
    customer_name: str | None
    expires_at: datetime
    attempt: int
    token: Token


class Delivery:
    """Looks for invitations that are due and sends them; replicas share the work.

    Args:
        accept_url: where a person accepts an invitation; its token is added as the fragment, which browsers send to
            nobody and no server logs.
    """

    def __init__(self, pool: Pool, mailer: Mailer, *, clock: Clock, accept_url: str) -> None:
        self._pool = pool
        self._mailer = mailer
        self._clock = clock
        self._accept_url = accept_url
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look and send for ever; neither an outage of the database nor one of the mail server ends it."""
        try:
            while True:
                await self._round()
        finally:
            await self._give_up_sending()

    async def _round(self) -> None:
        try:
            await self.begin()
        except Exception as error:
            if not (is_unavailable(error) or isinstance(error, CONTENTION)):
                raise
            log.warning("mails wait for the database", action="delivery_unavailable", error=repr(error))
            await self._clock.sleep(_OUTAGE_SECONDS)
            return
        if len(self._sending) == AT_A_TIME:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
        else:
            await self._clock.sleep(_POLL_SECONDS)

    async def begin(self) -> int:
        """Begin to send what is due, as far as there is room; return how many mails that are."""
        errands = await self._take(AT_A_TIME - len(self._sending))
        for errand in errands:
            task = asyncio.create_task(self._send(errand), name="mail")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return len(errands)

    async def finish(self) -> None:
        """Wait for the mails that were begun."""
        await asyncio.gather(*self._sending)

    async def _take(self, limit: int) -> list[Errand]:
        now = self._clock.now()
        async with transaction(self._pool) as connection:
            rows = await queries.lock_due(connection, now=now, limit=limit)
            late = [row["invitation_id"] for row in rows if row["expires_at"] <= now]
            errands = [_errand(row) for row in rows if row["expires_at"] > now]
            if late:
                await queries.give_up(connection, late)
            if errands:
                hashes = {errand.invitation_id: errand.token.hash for errand in errands}
                await queries.begin_attempts(connection, hashes, until=now + LEASE)
        return errands

    async def _send(self, errand: Errand) -> None:
        """Send one mail and write down what became of it; whatever happens, it concerns this mail alone."""
        failure = await self._failure_of(errand)
        now = self._clock.now()
        next_attempt_at = _next_attempt(errand, failure, now=now)
        delivery = "sent" if failure is None else "pending" if next_attempt_at else "failed"
        log.log(
            _LEVELS[delivery],
            "invitation mail",
            action=f"mail_{delivery}",
            invitation_id=str(errand.invitation_id),
            attempt=errand.attempt,
            error=failure and f"{type(failure).__name__}: {failure}",
        )
        try:
            async with self._pool.acquire(timeout=_OUTAGE_SECONDS) as connection:
                await queries.end_attempt(
                    connection,
                    errand.invitation_id,
                    errand.token.hash,
                    delivery=delivery,
                    next_attempt_at=next_attempt_at or now,
                )
        except Exception as error:  # noqa: BLE001 - the lease ends, and it is tried again
            log.warning("mail's outcome is lost", action="delivery_unavailable", error=repr(error))

    async def _failure_of(self, errand: Errand) -> MailError | None:
        try:
            async with asyncio.timeout(MAIL_SECONDS):
                await self._mailer.send(invitation_mail(errand, self._accept_url))
        except MailError as error:
            return error
        except TimeoutError:
            return MailError(f"took longer than {MAIL_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001 - what one address or name breaks must not keep others from their mail
            return MailError(type(error).__name__)  # not its text, which may quote the mail
        return None

    async def _give_up_sending(self) -> None:
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)


def invitation_mail(errand: Errand, accept_url: str) -> Mail:
    """Write the mail that invites somebody."""
    customer = one_line(errand.customer_name or "")
    where = f"“{customer}”" if customer else "this installation" if errand.role in OPERATORS else "an organisation"
    link = f"{accept_url}#token={errand.token.text}"
    until = errand.expires_at.astimezone(UTC)
    return Mail(
        recipient=errand.email,
        subject=f"Your invitation to {customer or where}",
        text=(
            f"You are invited to {where} as {_ROLES[errand.role]}.\n\n"
            f"Open this link to accept. It works once, until {until:%d %B %Y, %H:%M} UTC:\n\n"
            f"{link}\n\n"
            "If you did not expect this, ignore it: nothing happens unless the link is opened.\n"
        ),
        link=link,
    )


def accept_url_of(issuer: str) -> str:
    """Return where a person accepts an invitation at an origin."""
    return f"{issuer}/invitations/accept"


def _errand(row: Any) -> Errand:
    return Errand(
        invitation_id=row["invitation_id"],
        email=row["email"],
        role=Role(row["role"]),
        customer_name=row["customer_name"],
        expires_at=row["expires_at"],
        attempt=row["attempts"] + 1,
        token=Token.new(),
    )


def _next_attempt(errand: Errand, failure: MailError | None, *, now: datetime) -> datetime | None:
    """Return before when there is no other mail; None if there is never one."""
    if failure is None:
        return now + BETWEEN_MAILS
    return None if isinstance(failure, MailRefusedError) else next_attempt_after(errand.attempt, now=now)
