"""What an API key looks like: ``tenure_<id>_<secret><checksum>``.

The id is for finding the key, the secret proves it, and the checksum lets a scanner for leaked secrets tell a key from
noise without asking anybody (as in GitHub's tokens). Only the SHA-256 of the whole text is kept: 256 random bits cannot
be guessed, so that neither salt nor stretching adds anything.
"""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass, field

PREFIX = "tenure_"

_ID_BYTES = 10
_SECRET_BYTES = 32
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_CHECKSUM_LENGTH = 7
_FORM = re.compile(r"tenure_(?P<id>[0-9a-z]{16})_(?P<secret>[0-9a-z]{50})(?P<checksum>[0-9a-z]{7})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its holder has it.

    Attributes:
        id: tells it from other keys; no secret.
        text: the whole key.
    """

    id: str
    text: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        """The SHA-256 that is kept of it."""
        return digest(self.text)


def digest(key: str) -> bytes:
    """Hash a key for comparing and keeping; keys are long and random, so one round suffices."""
    return hashlib.sha256(key.encode()).digest()


def new_id() -> str:
    """Return the id of a new key."""
    return _encoded(secrets.token_bytes(_ID_BYTES), 16)


def new_key(key_id: str) -> ApiKey:
    """Make a new secret for the key of this id."""
    body = f"{PREFIX}{key_id}_{_encoded(secrets.token_bytes(_SECRET_BYTES), 50)}"
    return ApiKey(key_id, body + _checksum(body))


def parse(text: str) -> ApiKey | None:
    """Read a key; None where it is none or was mistyped."""
    form = _FORM.fullmatch(text)
    if form is None or _checksum(text[:-_CHECKSUM_LENGTH]) != form["checksum"]:
        return None
    return ApiKey(form["id"], text)


def _checksum(body: str) -> str:
    return _encoded(zlib.crc32(body.encode()).to_bytes(4, "big"), _CHECKSUM_LENGTH)


def _encoded(data: bytes, length: int) -> str:
    """Write bytes with 36 characters, so that a double click selects all of it."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text.rjust(length, "0")
