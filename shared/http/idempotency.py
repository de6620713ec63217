"""The ``Idempotency-Key`` header (draft-ietf-httpapi-idempotency-key-header-07) and what tells two bodies apart."""

import hashlib
import json
import re
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from shared.http.problems import FieldError, Problem

_QUOTED = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])+)"', re.ASCII)
_BARE = re.compile(r"[!#-~][!-~]*", re.ASCII)
_ESCAPE = re.compile(r'\\(["\\])')
_MAXIMUM_KEY = 255
_FORM = rf"^({_BARE.pattern[:-1]}{{0,{_MAXIMUM_KEY - 1}}}|{_QUOTED.pattern.replace('+', f'{{1,{_MAXIMUM_KEY}}}')})$"
_HEADER = "Idempotency-Key"


async def idempotency_key(
    request: Request,
    _documented: Annotated[
        str | None,
        Header(
            alias=_HEADER,
            description="Makes repeating safe: the same key and body replay the first answer. Quoted or bare.",
            json_schema_extra={"pattern": _FORM},
        ),
    ] = None,
) -> str | None:
    """Read the key, written as a structured-field string (``"abc"``, RFC 9651) or bare; None when there is none.

    Raises:
        Problem: 400 when it is not 1 to 255 visible ASCII characters, or given twice.
    """
    values = request.headers.getlist(_HEADER)
    if not values:
        return None
    key = _parsed(values[0].strip())
    if len(values) > 1 or key is None or len(key) > _MAXIMUM_KEY:
        detail = f"`{_HEADER}` must be given once, with 1 to {_MAXIMUM_KEY} visible ASCII characters."
        raise Problem(
            400, code="malformed_idempotency_key", detail=detail, errors=[FieldError(f"header/{_HEADER}", detail)]
        )
    return key


IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
"""A route's parameter for the client's idempotency key."""


def fingerprint(body: BaseModel | bytes, *, scope: str = "") -> bytes:
    """Hash what a request means: SHA-256 of the canonical JSON, without the order of keys, spaces or defaults.

    Args:
        body: a validated model, or the bytes of a body; bytes that are no JSON count as they are.
        scope: what distinguishes a model that means different things in different places.
    """
    if isinstance(body, BaseModel):
        document = body.model_dump(mode="json", by_alias=True)
        return _hash([scope, document] if scope else document)
    try:
        return _hash(json.loads(body))
    except ValueError:
        return hashlib.sha256(body).digest()


def _parsed(value: str) -> str | None:
    if quoted := _QUOTED.fullmatch(value):
        return _ESCAPE.sub(r"\1", quoted[1])
    return value if _BARE.fullmatch(value) else None


def _hash(document: object) -> bytes:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).digest()
