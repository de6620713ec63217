"""What tiers and products say for whatever makes environments: JSON of a bounded size, in the driver's own words."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from shared.http.problems import token

MOST_BYTES = 16 * 1024
"""The most bytes of all parameters together, as Postgres writes them."""

DEEPEST = 8
"""The most objects and lists inside each other, the outermost included."""

_LARGEST_EXACT = 2**53
"""From here on not every reader of JSON can tell a number from the next."""


def _checked(parameters: dict[str, Any]) -> dict[str, Any]:
    _check(parameters, place="", depth=1)
    size = len(json.dumps(parameters, ensure_ascii=False).encode())
    if size > MOST_BYTES:
        raise PydanticCustomError(
            "too_large", "must have at most {most} bytes, not {size}", {"most": MOST_BYTES, "size": size}
        )
    return parameters


def _check(value: Any, *, place: str, depth: int) -> None:
    if isinstance(value, float) or (type(value) is int and abs(value) >= _LARGEST_EXACT):
        raise PydanticCustomError(
            "inexact_number",
            "must have no numbers but whole ones below 2^53; write the one at {place} as text",
            {"place": place},
        )
    if not isinstance(value, Mapping | list):
        return
    if depth > DEEPEST:
        raise PydanticCustomError("too_deep", "must be nested at most {most} levels deep", {"most": DEEPEST})
    for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        _check(part, place=f"{place}/{token(str(name))}", depth=depth + 1)


Parameters = Annotated[
    dict[str, Any],
    AfterValidator(_checked),
    Field(
        description="For the driver, in its own words: text, whole numbers below 2^53, `true`, `false`, `null`, and "
        "lists and objects of these; at most 16 KiB and 8 levels deep."
    ),
]
