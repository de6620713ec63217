"""In which forms an invoice can be had, and which one somebody gets who says what is acceptable (RFC 9110, 12.5.1)."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from fastapi import Depends, Query
from starlette.requests import Request

from shared.http import FieldError, Problem

Format = Literal["json", "html", "pdf"]

MEDIA_TYPES: Mapping[Format, str] = {"json": "application/json", "html": "text/html", "pdf": "application/pdf"}
"""Of each form; who has no preference gets the first that is acceptable."""

_OFFERED = "application/json, text/html or application/pdf"
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


async def wanted_format(
    request: Request,
    form: Annotated[
        Format | None,
        Query(alias="format", description="For links: as if `Accept` named it. Without it `Accept` decides."),
    ] = None,
) -> Format:
    """Return the form in which somebody wants an invoice: by the query, else by ``Accept``, else JSON.

    Raises:
        Problem: 406 when nothing that there is is acceptable.
    """
    found = form or preferred(",".join(request.headers.getlist("accept")))
    if found is None:
        raise Problem(
            406,
            code="not_acceptable",
            detail=f"`Accept` allows none of the forms that an invoice has: {_OFFERED}.",
            errors=[FieldError("header/Accept", f"`Accept` should allow {_OFFERED}.")],
        )
    return found


WantedFormat = Annotated[Format, Depends(wanted_format)]
"""The form in which whoever asks wants an invoice."""


def preferred(accept: str) -> Format | None:
    """Return the form of the highest quality that an ``Accept`` gives; None if it rules out all.

    Parameters of a range count for nothing, nor does a range that cannot be read; an empty header accepts all.
    """
    if not accept.strip(", \t"):
        return "json"
    ranges = list(_ranges(accept))
    qualities = {form: _quality(media_type, ranges) for form, media_type in MEDIA_TYPES.items()}
    best = max(qualities, key=lambda form: qualities[form])
    return best if qualities[best] > 0 else None


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Yield each media range, in lower case, with its quality; what has no quality that can be read is left out."""
    for element in accept.split(","):
        media_range, *parameters = (part.strip(" \t") for part in element.split(";"))
        quality = next((each[2:] for each in parameters if each[:2].lower() == "q="), "1")
        if _QUALITY.fullmatch(quality):
            yield media_range.lower(), float(quality)


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Return what the most specific range says of a media type; 0 where none does."""
    for media_range in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        given = [quality for each, quality in ranges if each == media_range]
        if given:
            return max(given)
    return 0.0
