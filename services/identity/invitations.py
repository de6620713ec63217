"""Who is invited, and what has become of the invitation."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from shared.contracts.identity import AddAdministrators, CreateAdministrators, SetAdministrators
from shared.ids import Ids
from shared.text import email_key

Status = Literal["open", "accepted", "expired"]
Ask = CreateAdministrators | AddAdministrators | SetAdministrators
"""What names administrators by their addresses."""

_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Person:
    """A user to be made, unless somebody with this address is known already.

    Attributes:
        user_id: the identity of the user if it is new.
        email: as it was first written.
        email_key: what all spellings of the address have in common.
        created_at: when the user was made, or is if it is new.
    """

    user_id: UUID
    email: str
    email_key: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Invitation:
    """A user's way into a tenant.

    Attributes:
        token_hash: SHA-256 of the token that lets the user in.
    """

    invitation_id: UUID
    tenant_id: str
    user_id: UUID
    token_hash: bytes


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
    pairs = dict.fromkeys((ask.tenant_id, user_id) for ask in asks for user_id in user_ids_of(ask, users))
    return [Invitation(ids.new(), tenant_id, user_id, new_token_hash()) for tenant_id, user_id in pairs]


def new_token_hash() -> bytes:
    """Return the SHA-256 of a fresh random token; no salt or stretching, since 256 bits cannot be guessed.

    The token is dropped: nobody could be told it here, and what is kept nowhere cannot leak.
    """
    return hashlib.sha256(secrets.token_bytes(_TOKEN_BYTES)).digest()


def status_of(*, accepted_at: datetime | None, expires_at: datetime, now: datetime) -> Status:
    """Return what an invitation's times mean ``now``; at ``expires_at`` itself it has expired."""
    if accepted_at is not None:
        return "accepted"
    return "open" if now < expires_at else "expired"
