"""Signatures of webhooks, both ways, as Standard Webhooks 1.0 has them, so that any of its libraries will do.

A message has an id and a time, and is signed together with both: HMAC-SHA256 of ``<id>.<seconds>.<body>``. Each of
several keys makes a signature, and one that is right is enough, so that keys can be exchanged while all goes on.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
"""The names of the headers."""

TOLERANCE = timedelta(minutes=5)
"""How far a message's time may be from ours."""

_PREFIX = "whsec_"
_VERSION = "v1"
_SHORTEST, _LONGEST = 24, 64
_LONGEST_ID = 200
_MOST_SIGNATURES = 10


class WrongSignatureError(Exception):
    """A message is not proven to be from whoever has a key; the text says why and gives nothing away."""


class Keys:
    """The keys that a message may be signed with.

    Args:
        keys: bytes, the newest first.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._keys)} keys)"

    @classmethod
    def of(cls, text: str) -> Self:
        """Read keys such as ``whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw``, with a comma between.

        Raises:
            ValueError: there is none, or one of them is none; the text does not show it.
        """
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise ValueError("there must be at least one key")
        return cls([_key(part) for part in parts])

    def headers(self, identity: str, body: bytes, *, now: datetime) -> dict[str, str]:
        """Return the headers that a message is sent with."""
        seconds = str(int(now.timestamp()))
        signatures = [f"{_VERSION},{base64.b64encode(each).decode()}" for each in self._sign(identity, seconds, body)]
        return {ID: identity, TIMESTAMP: seconds, SIGNATURE: " ".join(signatures)}

    def check(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> str:
        """Return the id of a message that was signed with one of the keys, and not long ago.

        Args:
            headers: their names in lower case.

        Raises:
            WrongSignatureError: it was not.
        """
        identity, seconds = headers.get(ID, ""), headers.get(TIMESTAMP, "")
        if not 0 < len(identity) <= _LONGEST_ID or not _is_about(seconds, now):
            raise WrongSignatureError(f"{ID} and {TIMESTAMP} must be there, and the time not far from now.")
        given = list(_signatures(headers.get(SIGNATURE, "")))
        # All are compared, so that the time it takes tells nothing of which was right.
        right = [hmac.compare_digest(each, own) for own in self._sign(identity, seconds, body) for each in given]
        if not any(right):
            raise WrongSignatureError(f"{SIGNATURE} is not right for this message.")
        return identity

    def _sign(self, identity: str, seconds: str, body: bytes) -> list[bytes]:
        message = b".".join((identity.encode(), seconds.encode(), body))
        return [hmac.new(key, message, hashlib.sha256).digest() for key in self._keys]


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(_PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(f"a key must be {_PREFIX} and {_SHORTEST} to {_LONGEST} bytes in base64")
    return key


def _is_about(seconds: str, now: datetime) -> bool:
    if not seconds.isascii() or not seconds.isdecimal() or len(seconds) > len("99999999999"):
        return False
    return abs(int(seconds) - now.timestamp()) <= TOLERANCE.total_seconds()


def _signatures(text: str) -> Iterator[bytes]:
    for each in text.split(" ")[:_MOST_SIGNATURES]:
        version, _, signature = each.partition(",")
        if version == _VERSION:
            try:
                yield base64.b64decode(signature, validate=True)
            except (binascii.Error, ValueError):
                continue
