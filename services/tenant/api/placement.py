"""What tiers and products say for whatever makes environments, and who is told of it."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from shared.access import OPERATORS, Principal
from shared.text import Slug

Isolation: TypeAlias = Literal["pool", "bridge", "silo"]

Driver = Annotated[
    Slug, Field(description="What makes environments; an onboarding fails where there is no such driver.")
]

Told = Annotated[
    dict[str, Any] | None,
    Field(description="For the driver, in its own words. Null for whoever does not run the installation."),
]
"""The parameters as they are shown; only operators are shown any."""


def told(parameters: dict[str, Any], asker: Principal) -> dict[str, Any] | None:
    """Return the parameters for an operator, and None for anybody who is in a tenant."""
    return parameters if asker.acts_as in OPERATORS else None
