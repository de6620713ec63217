"""From the bytes of a request to the documents in it, with every number as it was written."""

import json
from decimal import Decimal
from typing import Any

import orjson

from services.metrics.recording.refusal import RefusedError
from shared.http.body import check_json
from shared.http.problems import Problem

LARGEST_DATA = 64 * 1024
"""The most bytes that an event's data may have as JSON: what CloudEvents (size limits) has everybody carry."""

_LONGEST_NUMBER, _LEAST_EXPONENT = 1_000, -10_000  # well within Postgres' 16383 digits behind the point
_LEAST_INT8, _GREATEST_INT8 = -(2**63), 2**63 - 1


def read(body: bytes) -> Any:
    """Return what a checked body says; a number that neither a double nor 64 bits can hold is a `Decimal`."""
    return _EXACT.decode(body.decode())


def read_line(line: bytes) -> Any:
    """Return what a line of NDJSON says, which nobody has looked at before.

    Raises:
        RefusedError: it is not strict JSON.
    """
    try:
        check_json(line)
    except Problem as problem:
        raise RefusedError("unreadable", problem.detail.replace("The body", "The line", 1)) from None
    return read(line)


def written(value: Any) -> bytes:
    """Return canonical JSON: keys in order, no spaces; the inverse of `read`."""
    return orjson.dumps(value, default=_exactly, option=orjson.OPT_SORT_KEYS)


def _exactly(value: Any) -> orjson.Fragment:
    assert isinstance(value, Decimal), "nothing else comes out of `read`"
    return orjson.Fragment(str(value))


def _fraction(digits: str) -> float | Decimal:
    """Read a number with a point or an exponent; of one that nobody can have measured the nearest double will do."""
    number = float(digits)
    if len(digits) > _LONGEST_NUMBER:
        return number
    exact = Decimal(digits)
    return number if Decimal(repr(number)) == exact or exact.adjusted() < _LEAST_EXPONENT else exact


def _whole(digits: str) -> int | Decimal:
    number = int(digits)
    return number if _LEAST_INT8 <= number <= _GREATEST_INT8 else Decimal(number)


_EXACT = json.JSONDecoder(parse_float=_fraction, parse_int=_whole)
