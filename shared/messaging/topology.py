"""Every name on the broker, and the manifest from which exchanges, queues, bindings and permissions follow.

Each service publishes to an exchange of its own and reads a queue of its own, with a login that may do nothing else.
The exchange therefore names the publisher and cannot be lied about. A failed message goes through the service's private
retry exchange into a queue whose messages expire back into its work queue alone, or into its parking queue, where they
wait for an operator.

Applications may publish what tenants use to an exchange that no service publishes to, and one service reads it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.contracts import CATALOGUE
from shared.contracts.base import Message

STATUS_EXCHANGE = "tenure.status"
"""For everybody outside: what becomes of each workflow."""

USAGE_EXCHANGE = "tenure.usage"
"""For applications, with logins of their own: what tenants use. Who may publish here is believed of every tenant."""

USAGE_QUEUE = "metrics.usage"
"""What has come through `USAGE_EXCHANGE` and is not counted yet."""

USAGE_READER = "metrics"
"""The service that reads `USAGE_QUEUE`."""

RETRY_DELAYS = (1, 5, 30)
"""Seconds a failed message waits before its second, third and fourth attempt; then it is parked."""

DELIVERY_LIMIT = 20
"""How often the broker delivers one message that is never settled. 3.10 has no limit of its own, 4.x this one."""

_STATUS_SPEAKER = "onboarding"
_LOOKS = 1_000_000_000
"""How often parked messages may be looked at: each look returns them, which 4.x allows 20 times unless it is told."""

_MANIFEST = Path(__file__).with_name("manifest.json")


def exchange_of(service: str) -> str:
    """Return the exchange that a service publishes to."""
    return f"tenure.{service}"


def retry_exchange_of(service: str) -> str:
    """Return the private exchange through which a service retries and parks what it received."""
    return f"tenure.{service}.retry"


def work_queue_of(service: str) -> str:
    """Return the queue that a service reads."""
    return f"{service}.work"


def retry_queue_of(service: str, delay: int) -> str:
    """Return the queue in which messages wait ``delay`` seconds before they return to the work queue."""
    return f"{service}.retry.{delay}s"


def parking_queue_of(service: str) -> str:
    """Return the queue of messages that a service could not handle."""
    return f"{service}.parking"


def written_by(service: str) -> list[str]:
    """List the exchanges that a service may publish to."""
    return [
        exchange_of(service),
        retry_exchange_of(service),
        *([STATUS_EXCHANGE] if service == _STATUS_SPEAKER else []),
    ]


def read_by(service: str) -> list[str]:
    """List the queues that a service may read."""
    return [work_queue_of(service), parking_queue_of(service), *([USAGE_QUEUE] if service == USAGE_READER else [])]


def publisher_of(exchange: str) -> str:
    """Return the service that owns an exchange."""
    return exchange.removeprefix("tenure.")


@dataclass(frozen=True)
class Manifest:
    """Who says what and who hears what, as routing keys, for the whole system.

    It is generated from the ``PUBLISHES`` and ``SUBSCRIPTIONS`` of the services (`make docs`), because a service that
    runs alone cannot import the others' tables.
    """

    publishes: Mapping[str, frozenset[str]]
    subscribes: Mapping[str, frozenset[str]]

    @classmethod
    def load(cls, path: Path = _MANIFEST) -> "Manifest":
        """Read the manifest that the repository carries."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            publishes={service: frozenset(entry["publishes"]) for service, entry in raw.items()},
            subscribes={service: frozenset(entry["subscribes"]) for service, entry in raw.items()},
        )

    @classmethod
    def of(
        cls,
        publishes: Mapping[str, Iterable[type[Message]]],
        subscribes: Mapping[str, Iterable[type[Message]]],
    ) -> "Manifest":
        """Build the manifest from the services' tables."""
        return cls(
            publishes={
                service: frozenset(m.routing_key() for m in messages) for service, messages in publishes.items()
            },
            subscribes={
                service: frozenset(m.routing_key() for m in messages) for service, messages in subscribes.items()
            },
        )

    def dump(self) -> str:
        """Render the manifest as the JSON that `load` reads."""
        services = {
            service: {"publishes": sorted(self.publishes[service]), "subscribes": sorted(self.subscribes[service])}
            for service in self.publishes
        }
        return json.dumps(services, indent=2) + "\n"

    @property
    def services(self) -> tuple[str, ...]:
        """Every service."""
        return tuple(self.publishes)

    def may_say(self, publisher: str, routing_key: str) -> bool:
        """Tell whether a service is known to publish messages of this type."""
        return routing_key in self.publishes.get(publisher, frozenset())

    def is_heard(self, routing_key: str) -> bool:
        """Tell whether any service listens to this type; if none does, that it reaches no queue is no mistake."""
        return any(routing_key in heard for heard in self.subscribes.values())

    def bindings(self) -> list[tuple[str, str, str]]:
        """List (exchange, queue, routing key) of every message that one service says and another hears."""
        return [
            (exchange_of(publisher), work_queue_of(listener), routing_key)
            for listener, heard in self.subscribes.items()
            for routing_key in sorted(heard)
            for publisher, said in self.publishes.items()
            if routing_key in said
        ]

    def unsaid(self) -> set[str]:
        """List the types that somebody listens to and nobody says."""
        said = frozenset().union(*self.publishes.values())
        return set(frozenset().union(*self.subscribes.values()) - said)

    def unknown(self) -> set[str]:
        """List the types that are in no contract."""
        named = frozenset().union(*self.publishes.values(), *self.subscribes.values())
        return set(named - CATALOGUE.keys())


def exchanges(manifest: Manifest) -> list[dict[str, Any]]:
    """List every exchange in the form of a RabbitMQ definitions file."""
    names = [(STATUS_EXCHANGE, "topic"), (USAGE_EXCHANGE, "topic")]
    for service in manifest.services:
        names += [(exchange_of(service), "topic"), (retry_exchange_of(service), "direct")]
    return [
        {
            "name": name,
            "vhost": "/",
            "type": kind,
            "durable": True,
            "auto_delete": False,
            "internal": False,
            "arguments": {},
        }
        for name, kind in names
    ]


def queues(manifest: Manifest) -> list[dict[str, Any]]:
    """List every queue in the form of a RabbitMQ definitions file. All are quorum queues."""
    found: list[dict[str, Any]] = []
    for service in manifest.services:
        found.append(_queue(work_queue_of(service), _work_arguments(service)))
        found += [_queue(retry_queue_of(service, delay), _retry_arguments(service, delay)) for delay in RETRY_DELAYS]
        found.append(_queue(parking_queue_of(service), {"x-delivery-limit": _LOOKS}))
        if service == USAGE_READER:
            found.append(_queue(USAGE_QUEUE, _work_arguments(service)))
    return found


def bindings(manifest: Manifest) -> list[dict[str, Any]]:
    """List every binding in the form of a RabbitMQ definitions file."""
    found = [_binding(*binding) for binding in manifest.bindings()]
    for service in manifest.services:
        private = retry_exchange_of(service)
        found += [_binding(private, retry_queue_of(service, delay), f"retry.{delay}s") for delay in RETRY_DELAYS]
        found.append(_binding(private, parking_queue_of(service), "parking"))
        found.append(_binding(private, work_queue_of(service), "work"))
        if service == USAGE_READER:
            found.append(_binding(USAGE_EXCHANGE, USAGE_QUEUE, "#"))
            found.append(_binding(private, USAGE_QUEUE, "usage"))
    return found


def _work_arguments(service: str) -> dict[str, Any]:
    return {
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": retry_exchange_of(service),
        "x-dead-letter-routing-key": "parking",
        "x-dead-letter-strategy": "at-least-once",
        # At-least-once dead lettering demands it; and a full queue must refuse, never drop what it has confirmed.
        "x-overflow": "reject-publish",
    }


def _retry_arguments(service: str, delay: int) -> dict[str, Any]:
    return {
        "x-message-ttl": delay * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": work_queue_of(service),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _queue(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    arguments = {"x-queue-type": "quorum"} | arguments
    return {"name": name, "vhost": "/", "durable": True, "auto_delete": False, "arguments": arguments}


def _binding(exchange: str, queue: str, routing_key: str) -> dict[str, Any]:
    return {
        "source": exchange,
        "vhost": "/",
        "destination": queue,
        "destination_type": "queue",
        "routing_key": routing_key,
        "arguments": {},
    }
