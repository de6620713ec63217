"""How guessing passwords is slowed down: by account and address together, by account, and by address.

Whoever mistypes waits a little longer each time, up to a quarter of an hour, but never for ever: who knows an e-mail
address must not be able to lock its owner out for good, so an account alone is slow to close, and the pair of account
and address quick. Attempts are counted before the password is looked at: a thousand at once are a thousand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.identity.queries import throttle as queries
from shared.http import Problem
from shared.postgres import Connection

FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=15)
MEMORY = timedelta(hours=1)
"""After so long without an attempt, earlier ones count no more."""

FREE = {"pair": 5, "account": 50, "address": 100}
"""How many attempts are let through before the first wait, by what they have in common."""


@dataclass(frozen=True)
class Attempt:
    """An attempt to get in.

    Attributes:
        account: what is guessed at, such as a `shared.text.email_key`; it need not exist.
        address: where from.
    """

    account: str
    address: str

    @property
    def subjects(self) -> Sequence[tuple[str, int]]:
        """What it is counted for, each with how many are free."""
        return (
            (f"pair:{self.account}@{self.address}", FREE["pair"]),
            (f"account:{self.account}", FREE["account"]),
            (f"address:{self.address}", FREE["address"]),
        )


async def admit(connection: Connection, attempt: Attempt, *, now: datetime) -> None:
    """Count an attempt and let it through; the connection is in a transaction of its own.

    Raises:
        Problem: 429 with when to come back, if it has to wait; then it is not counted.
    """
    subjects = [subject for subject, _ in attempt.subjects]
    closed_until = await queries.lock(connection, subjects, now=now, memory=MEMORY)
    if closed_until is not None:
        seconds = max(1, round((closed_until - now).total_seconds()))
        raise Problem(
            429,
            code="too_many_attempts",
            detail=f"Too many attempts. Try again in {seconds} seconds.",
            headers={"Retry-After": str(seconds)},
        )
    await queries.count(connection, attempt.subjects, now=now, first=FIRST_WAIT, longest=LONGEST_WAIT)


async def forgive(connection: Connection, attempt: Attempt) -> None:
    """Forget the attempts on an account, since one was right; those on other accounts from the address still count."""
    pair, account, address = (subject for subject, _ in attempt.subjects)
    await queries.forget(connection, [pair, account], uncounted=address)
