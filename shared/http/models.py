"""The two bases of everything that travels in a body: camelCase outside, snake_case inside."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class RequestBody(BaseModel):
    """What a client sends. An unknown field is refused by name: most are typing mistakes that would go unnoticed."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


class Resource(BaseModel):
    """What a client gets. Built with the Python names, written with the JSON names."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True)
