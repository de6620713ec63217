"""Lists in pages that neither skip nor repeat while rows come and go: keyset paging behind an opaque cursor."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator

from shared.http.models import Resource
from shared.http.problems import FieldError, Problem

DEFAULT_LIMIT = 50
"""The number of items of a page when the client names none."""

MAXIMUM_LIMIT = 200
"""The most items of a page; asking for more is asking for this many (AIP-158)."""

_CHECKSUM_BYTES = 6
_BEYOND_BIGINT = 2**63

Item = TypeVar("Item")
Row = TypeVar("Row")

Limit = Annotated[
    int,
    Query(ge=1, description=f"The most items to answer with; more than {MAXIMUM_LIMIT} means {MAXIMUM_LIMIT}."),
    AfterValidator(lambda limit: min(limit, MAXIMUM_LIMIT)),
]
"""The query parameter ``limit``; give it the default `DEFAULT_LIMIT`."""

Cursor = Annotated[str | None, Query(max_length=2000, description="The `nextCursor` of the page before.")]
"""The query parameter ``cursor``; give it the default None."""


class Page(Resource, Generic[Item]):
    """Some items of a list, and where the next ones begin; without ``nextCursor`` there are none."""

    items: list[Item]
    next_cursor: str | None = None

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Name the page of tenants ``TenantPage`` in the OpenAPI document."""
        return f"{getattr(params[0], '__name__', params[0])}Page"


def page(
    rows: Sequence[Row], *, limit: int, item: Callable[[Row], Item], key: Callable[[Row], Sequence[Any]]
) -> Page[Item]:
    """Make a page of rows that were fetched with one more than the limit, which tells whether another page follows.

    Args:
        rows: in the order of their keys, at most ``limit + 1``.
        limit: the most items of the page.
        item: turns a row into what the client gets.
        key: the values that the rows are ordered by, together unique.
    """
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(items=[item(row) for row in shown], next_cursor=encode_cursor(*key(shown[-1])) if more else None)


def encode_cursor(*values: Any) -> str:
    """Write a key as an opaque cursor. Values are text, integers, moments or UUIDs."""
    keyset = json.dumps(values, separators=(",", ":"), default=_text).encode()
    return base64.urlsafe_b64encode(_checksum(keyset) + keyset).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, *kinds: type[Any]) -> tuple[Any, ...] | None:
    """Read a cursor back.

    The checksum finds cursors that were shortened, mixed up or edited. It is no signature and need not be: whoever
    makes one up gets another position in a list that is open to them anyway.

    Args:
        cursor: what the client sent; None gives None, the beginning.
        kinds: the types of the values: ``str``, ``int``, ``datetime`` or ``UUID``.

    Raises:
        Problem: 422 when no such cursor was ever made.
    """
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        checksum, keyset = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
        if checksum != _checksum(keyset):
            raise _foreign_cursor()
        return tuple(_value(kind, text) for kind, text in zip(kinds, json.loads(keyset), strict=True))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _foreign_cursor() from None


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"a cursor cannot hold {type(value).__name__}")


def _value(kind: type[Any], value: Any) -> Any:
    if kind is int and type(value) is int and -_BEYOND_BIGINT <= value < _BEYOND_BIGINT:
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind is datetime:
        return datetime.fromisoformat(value).astimezone(UTC)  # raises where the moment is beyond all dates
    if kind is UUID and isinstance(value, str):
        return UUID(value)
    raise TypeError(kind)


def _checksum(keyset: bytes) -> bytes:
    return hashlib.blake2b(keyset, digest_size=_CHECKSUM_BYTES).digest()


def _foreign_cursor() -> Problem:
    detail = "`cursor` must be the `nextCursor` of an earlier page of this list."
    return Problem(422, code="invalid_cursor", detail=detail, errors=[FieldError("query/cursor", detail)])
