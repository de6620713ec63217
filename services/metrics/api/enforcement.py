"""How a limit is enforced, as clients write and read it."""

from typing import Annotated, Literal

from pydantic import Field

Enforcement = Annotated[
    Literal["soft", "hard"], Field(description="Of usage beyond a limit: `soft` accepts and reports it, `hard` denies.")
]
