"""The message catalogue: one file per owner, and the table from routing key to class."""

from collections.abc import Mapping
from types import MappingProxyType

from shared.contracts import billing, identity, metrics, onboarding, provisioning, tenant
from shared.contracts.base import Ask, Decision, Fact, KeysUsed, Message, Refusal

SERVICES = ("onboarding", "tenant", "identity", "billing", "metrics", "provisioning")
"""Every service, in the order of the story that a first tenant goes through."""

_OWNERS = (onboarding, tenant, identity, billing, metrics, provisioning)
_BASES = (Message, Ask, Fact, Refusal, KeysUsed, Decision)


def _messages() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for module in _OWNERS:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Message) and value not in _BASES:
                found[value.routing_key()] = value
    return found


CATALOGUE: Mapping[str, type[Message]] = MappingProxyType(_messages())
"""Routing key to message class, every message of the system."""

UNDONE = frozenset(
    message.undoes for message in CATALOGUE.values() if issubclass(message, Ask) and message.undoes is not None
)
"""The asks that can be taken back; any other is final."""

__all__ = ["CATALOGUE", "SERVICES", "UNDONE", "Ask", "Fact", "Message", "Refusal"]
