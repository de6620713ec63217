"""What every message is: an ask (imperative, owned by the receiver) or a fact (past tense, owned by the teller).

The module a message is defined in names its owner, the class names the message, and both together are its routing
key: ``shared.contracts.tenant.RegisterTenant`` travels as ``tenant.register_tenant.v1``. Within a major version
messages only gain optional fields; anything else is a second class with the next ``version``.
"""

import re
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

TenantId = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
"""A tenant's identity: made first, never changed, the only key that all services share."""


@cache
def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Part(BaseModel):
    """A value inside a message. Unknown fields are ignored, so that a newer publisher can be heard."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Message(Part):
    """The common base of asks and facts; JSON names are camelCase.

    Attributes:
        owner: the service whose contract this is, taken from the module's name.
        version: the major version, the last part of the routing key.
    """

    owner: ClassVar[str]
    version: ClassVar[int] = 1

    tenant_id: TenantId

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take the owner from the module the message is defined in, unless the class names one itself."""
        super().__init_subclass__(**kwargs)
        if "owner" not in cls.__dict__:
            cls.owner = cls.__module__.rpartition(".")[2]

    @classmethod
    def routing_key(cls) -> str:
        """``<owner>.<name>.v<major>``: the AMQP routing key and the CloudEvents type alike."""
        return f"{cls.owner}.{_snake(cls.__name__)}.v{cls.version}"


class Ask(Message):
    """A request to the owner. One fact answers it, the same however often it is delivered, and none after its undo.

    Attributes:
        undoes: the ask whose effect this one takes back; None for an ask that does something.
    """

    undoes: ClassVar["type[Ask] | None"] = None


class Fact(Message):
    """Something that has happened, told by the owner to whoever listens.

    Attributes:
        answers: the ask that this fact reports as done; None for a fact nobody asked for.
    """

    answers: ClassVar[type[Ask] | None] = None


class Refusal(Fact):
    """The owner will not do what was asked, and nothing has changed.

    Attributes:
        code: stable, machine-readable, snake_case.
        detail: a sentence for people.
        retryable: whether asking again later may succeed.
    """

    code: str
    detail: str
    retryable: bool = False
