"""The applications that may send people here to sign in, and where they may be sent back."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints

_LOOPBACK = frozenset({"127.0.0.1", "[::1]", "localhost"})


def _redirect_uri(value: str) -> str:
    """Refuse what nobody should be sent to: no fragment, no credentials, and in clear only on the same machine."""
    parts = urlsplit(value)
    host = parts.netloc.rpartition(":")[0] or parts.netloc
    if not parts.scheme or not parts.netloc or parts.fragment or "@" in parts.netloc or not value.isascii():
        raise ValueError("must be an absolute URI without fragment and user")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError("must begin with https, except on the same machine")
    if parts.scheme in {"javascript", "data", "file"}:
        raise ValueError("must name a place that answers")
    return value


RedirectUri = Annotated[
    str,
    StringConstraints(strict=True, min_length=8, max_length=500, pattern=r"^[!-~]+$"),
    AfterValidator(_redirect_uri),
]


def is_registered(uri: str, registered: Sequence[str]) -> bool:
    """Return whether somebody may be sent there: as registered, to the letter.

    An application on a person's own machine takes whichever port is free, so there the port may differ (RFC 8252, 7.3).
    """
    return uri in registered or any(_is_same_but_port(uri, each) for each in registered)


def _is_same_but_port(uri: str, registered: str) -> bool:
    given, known = urlsplit(uri), urlsplit(registered)
    if known.scheme != "http" or known.hostname not in {"127.0.0.1", "::1"} or "@" in given.netloc:
        return False
    return (given.scheme, given.hostname, given.path, given.query, given.fragment) == (
        known.scheme,
        known.hostname,
        known.path,
        known.query,
        known.fragment,
    )
