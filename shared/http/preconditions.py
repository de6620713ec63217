"""Changes that must not overwrite somebody else's: ``ETag`` and ``If-Match`` (RFC 9110, sections 8.8.3 and 13.1.1)."""

import re
from typing import Annotated

from fastapi import Depends, Header

from shared.http.problems import FieldError, Problem

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


async def if_match(
    if_match: Annotated[
        str | None, Header(alias="If-Match", description="The `ETag` of the version that is to be changed.")
    ] = None,
) -> str | None:
    """Read the header as it is; `require_match` judges it once the row is known."""
    return if_match


IfMatch = Annotated[str | None, Depends(if_match)]
"""A route's parameter for the client's ``If-Match``."""


def etag(version: int) -> str:
    """Write a row's version as a strong entity tag."""
    return f'"{version}"'


def require_match(if_match: str | None, version: int) -> None:
    """Go on only when the client has seen the version that it is about to change.

    Args:
        if_match: the header; ``*`` matches every version.
        version: the row's own, read under its lock.

    Raises:
        Problem: 428 without the header (RFC 6585), 412 when it names other versions.
    """
    if if_match is None:
        raise _refused(428, "precondition_required", "`If-Match` is required: send the `ETag` you have seen.", version)
    if if_match.strip() != "*" and etag(version) not in _TAG.findall(if_match):
        raise _refused(412, "precondition_failed", "`If-Match` names another version: read it again.", version)


def _refused(status: int, code: str, detail: str, version: int) -> Problem:
    errors = [FieldError("header/If-Match", detail)]
    return Problem(status, code=code, detail=detail, errors=errors, headers={"ETag": etag(version)})
