"""What is asked of an identity provider: to say who somebody is, by what that somebody shows."""

from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID


class ProviderUnavailableError(Exception):
    """A provider does not answer, or not with what its protocol has it answer; nothing is known of the proof."""


@dataclass(frozen=True, slots=True)
class Password:
    """An address and a password that somebody has typed.

    Attributes:
        user_id: the user of the address; None where we know nobody by it, and then the answer takes as long.
    """

    user_id: UUID | None
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Return:
    """What a browser brings back from its tenant's provider (OpenID Connect Core 1.0, 3.1.2.5), and what we sent along.

    Attributes:
        code: good once, at the provider.
        verifier: that the code challenge was made of (RFC 7636).
        nonce: that the ID token has to repeat.
    """

    code: str = field(repr=False)
    verifier: str = field(repr=False)
    nonce: str = field(repr=False)


Proof = Password | Return


@dataclass(frozen=True, slots=True)
class Recognised:
    """Whom a provider has recognised.

    Attributes:
        subject: the provider's own name for it, never given to anybody else.
        email: the address, which the provider has verified.
    """

    subject: str
    email: str


class IdentityProvider(Protocol):
    """Tells who somebody is: among all users for the built-in one, among the people of one tenant for any other."""

    async def recognise(self, proof: Proof) -> Recognised | None:
        """Return who shows this proof; None for a wrong one and for nobody alike.

        Raises:
            Problem: 503 when too much is being asked at this moment.
            ProviderUnavailableError: the provider does not answer in time.
        """
        ...


class Directory(IdentityProvider, Protocol):
    """A provider whose accounts are ours to keep, each with a password. What is asked twice is done once."""

    async def enrol(self, user_id: UUID, email: str, password: str) -> None:
        """Let somebody be recognised by this password, and by none that it had before.

        Raises:
            ProviderUnavailableError: the provider does not answer in time; it may have been done.
        """
        ...

    async def forget(self, user_id: UUID) -> None:
        """Let somebody be recognised no more and keep nothing of it; nobody is no error.

        Raises:
            ProviderUnavailableError: the provider does not answer in time; it may have been done.
        """
        ...
