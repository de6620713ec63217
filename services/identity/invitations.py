"""Who is invited, and what has become of the invitation."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self
from uuid import UUID

from shared.contracts.identity import AddAdministrators, CreateAdministrators, SetAdministrators
from shared.ids import Ids
from shared.text import email_key

Status = Literal["open", "accepted", "expired"]
Delivery = Literal["pending", "sent", "failed"]
Ask = CreateAdministrators | AddAdministrators | SetAdministrators
"""What names administrators by their addresses."""

AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a mail is due that need not wait."""

BETWEEN_MAILS = timedelta(minutes=1)
"""How long nobody gets another mail for the same invitation, however often it is asked for."""

RETRY_DELAYS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 3 * 60, 6 * 60, 12 * 60))
"""How long after each attempt that failed the next one is made; after the last a mail is given up, within a day."""

_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Person:
    """A user to be made, unless somebody with this address is known already.

    Attributes:
        user_id: the identity of the user if it is new.
        email: as it was first written.
        email_key: what all spellings of the address have in common.
        created_at: when the user was made, or is if it is new.
        name: what the person wants to be called.
        password: what is kept of the password, for a user who may have to be made again; None where there is none.
    """

    user_id: UUID
    email: str
    email_key: str
    created_at: datetime
    name: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A user's way into a tenant.

    Attributes:
        token_hash: SHA-256 of the token that lets the user in.
        customer_name: whom the mail says it comes from.
    """

    invitation_id: UUID
    tenant_id: str
    user_id: UUID
    token_hash: bytes
    customer_name: str | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """What lets its bearer accept an invitation, good once.

    Attributes:
        text: 43 characters that need no escaping in a URL.
    """

    text: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Make one of 256 random bits."""
        return cls(secrets.token_urlsafe(_TOKEN_BYTES))

    @property
    def hash(self) -> bytes:
        """The SHA-256 that is kept of it; no salt or stretching, since 256 bits cannot be guessed."""
        return hashlib.sha256(self.text.encode()).digest()


def people_named(asks: Iterable[Ask], ids: Ids, *, now: datetime) -> list[Person]:
    """Return one person for each distinct address in ``asks``, as it is written first."""
    emails: dict[str, str] = {}
    for ask in asks:
        for email in ask.emails:
            emails.setdefault(email_key(email), email)
    return [Person(ids.new(), email, key, now) for key, email in emails.items()]


def user_ids_of(ask: Ask, users: Mapping[str, UUID]) -> list[UUID]:
    """Return the users that an ask names, each once, in its order; ``users`` has the user of each `email_key`."""
    return list(dict.fromkeys(users[email_key(email)] for email in ask.emails))


def invitations_for(asks: Iterable[Ask], users: Mapping[str, UUID], ids: Ids) -> list[Invitation]:
    """Return an invitation for each pair of tenant and user in ``asks``; ``users`` has the user of each `email_key`."""
    named = {(ask.tenant_id, user_id): ask.customer_name for ask in asks for user_id in user_ids_of(ask, users)}
    return [
        Invitation(ids.new(), tenant_id, user_id, new_token_hash(), customer_name)
        for (tenant_id, user_id), customer_name in named.items()
    ]


def new_token_hash() -> bytes:
    """Return the hash of a fresh token that nobody is told: what stands for one until a mail is made, with its own."""
    return Token.new().hash


def status_of(*, accepted_at: datetime | None, expires_at: datetime, now: datetime) -> Status:
    """Return what an invitation's times mean ``now``; at ``expires_at`` itself it has expired."""
    if accepted_at is not None:
        return "accepted"
    return "open" if now < expires_at else "expired"


def next_attempt_after(attempts: int, *, now: datetime) -> datetime | None:
    """Return when a mail is tried again of which so many attempts have failed; None if it is given up."""
    return now + RETRY_DELAYS[attempts - 1] if attempts <= len(RETRY_DELAYS) else None
