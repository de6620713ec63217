"""What every message is: an ask (imperative, owned by the receiver) or a fact (past tense, owned by the teller).

The module a message is defined in names its owner, the class names the message, and both together are its routing
key: ``shared.contracts.tenant.RegisterTenant`` travels as ``tenant.register_tenant.v1``. Within a major version
messages only gain optional fields; anything else is a second class with the next ``version``.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, StringConstraints
from pydantic.alias_generators import to_camel

TenantId = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
"""A tenant's identity: made first, never changed, the only key that all services share."""

INSTALLATION = "_"
"""Stands in place of a tenant's identity where something concerns the installation and no one tenant."""


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


class KeyUse(Part):
    """When an API key was used.

    Attributes:
        used_at: the last time that the teller knows of.
    """

    key_id: str
    used_at: datetime


class KeysUsed(Fact):
    """What every service but identity tells of API keys; each has a fact of its own, since only its owner says one.

    Attributes:
        uses: those keys that were used since this was told last.
    """

    tenant_id: TenantId = INSTALLATION
    uses: tuple[KeyUse, ...]


_LARGEST_EXACT = 2**53


def _without_fractions(details: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Let numbers be whole and exact, so that everybody writes the same digits and an entry has one canonical form."""

    def check(value: JsonValue) -> None:
        if isinstance(value, float) or (type(value) is int and abs(value) >= _LARGEST_EXACT):
            raise ValueError("numbers must be whole and below 2^53; write others as text")
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(part)

    check(dict(details))
    return details


Details = Annotated[Mapping[str, JsonValue], AfterValidator(_without_fractions)]
"""What something was or has become: text, truth values, whole numbers, and lists and objects of these."""


class Decision(Fact):
    """Somebody has decided something, and it is done; metrics keeps the trail of all decisions.

    Each service that decides has a fact of its own, since only its owner says one. What it says outlives the tenant,
    so it tells no secret, and of a person no more than an id.

    Attributes:
        decision_id: the same however often it is told.
        decided_at: when it was done.
        actor: who decided: ``user:<id>``, ``key:<id>``, ``system-administrator``, or what decides by itself.
        role: what it was then; None for what has none.
        reason: why, where somebody said so.
        action: what was done, as in ``api_key.rotated``.
        subject: with what, as in ``api-key:<id>``.
        before: what of it was changed, as it was; None for what was not there.
        after: the same, as it has become; None for what is not there any more.
    """

    tenant_id: TenantId = INSTALLATION
    decision_id: UUID
    decided_at: datetime
    actor: str
    role: str | None = None
    reason: str | None = None
    action: str
    subject: str
    before: Details | None = None
    after: Details | None = None
