"""Where in an event's data something is: singular queries of JSONPath (RFC 9535, 2.3.5.1), of one place at most."""

import json

from jsonpath import CompoundJSONPath, JSONPathEnvironment
from jsonpath.exceptions import JSONPathError
from jsonpath.selectors import IndexSelector, NameSelector

Path = tuple[str | int, ...]
"""What a path goes through: members of objects by name, elements of arrays by number, those below zero from the end."""

LONGEST = 200
"""The most characters of a path."""

DEEPEST = 10
"""The most steps of a path."""

_RFC_9535 = JSONPathEnvironment(strict=True)


def parse_path(text: str) -> Path:
    """Return the steps of a path such as ``$.tokens.input``, which begins at the event's ``data``.

    Raises:
        ValueError: it is no singular query, or names all of the data; the message follows the name of the field.
    """
    if len(text) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters")
    try:
        query = _RFC_9535.compile(text)
    except (JSONPathError, ValueError, RecursionError) as error:
        raise ValueError("must be a JSONPath like $.tokens.input (RFC 9535)") from error
    if isinstance(query, CompoundJSONPath) or not query.singular_query():
        raise ValueError("must name one place, by names and numbers alone, like $.tokens.input or $.items[0].price")
    steps = tuple(_step(segment.selectors) for segment in query.segments)
    if not 0 < len(steps) <= DEEPEST:
        raise ValueError(f"must go from 1 to {DEEPEST} steps below $, the event's data")
    return steps


def _step(selectors: object) -> str | int:
    match selectors:
        case (NameSelector(name=name),):
            return str(name)
        case (IndexSelector(index=index),):
            return int(index)
    raise AssertionError(selectors)  # a segment of a singular query has one selector, a name or an index


def sql_path(path: Path) -> str:
    """Write a path as Postgres' ``jsonpath``; strictly, so that it finds the same place as here, or none."""
    return "strict $" + "".join(_accessor(step) for step in path)


def _accessor(step: str | int) -> str:
    if isinstance(step, str):
        return f".{json.dumps(step)}"
    return f"[{step}]" if step >= 0 else f"[last - {-step - 1}]"
