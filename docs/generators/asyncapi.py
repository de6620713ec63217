"""Everything that travels over the broker as an AsyncAPI 3.0 document."""

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

import yaml

from deploy.manifest import manifest
from docs.generators.catalogue import Schema, answers_to, described, first_sentence, outside_key, title_of
from services.metrics.api.recording import EVENT_SCHEMA
from services.metrics.recording.body import MOST_EVENTS
from services.onboarding.lifecycles import DEFINITIONS
from shared.contracts import CATALOGUE, SERVICES, Ask, Fact, Message
from shared.contracts.onboarding import WorkflowState
from shared.messaging.event import BATCH, SOURCE_PREFIX
from shared.messaging.topology import (
    STATUS_EXCHANGE,
    USAGE_EXCHANGE,
    USAGE_QUEUE,
    USAGE_READER,
    Manifest,
    exchange_of,
    exchanges,
    work_queue_of,
)
from shared.service import VERSION

Document = dict[str, Any]
Family = TypeVar("Family", Ask, Fact)

_PERSISTENT = 2
_BINDING_VERSION = "0.3.0"
_SCHEMAS = "#/components/schemas/"
_USAGE = "usage"
_DESCRIPTION = f"""\
Six services talk to each other, and to everybody outside, through events on RabbitMQ. Every message is a CloudEvent,
version 1.0.

Between services, each publishes to an exchange of its own (`{exchange_of("<service>")}`) and reads a queue of its own
(`{work_queue_of("<service>")}`). Events that leave together for the same routing key travel in one AMQP message in the
CloudEvents JSON batch format; a batch of one is common. An ask is answered with one of its answers, or with none when
its undo has come first; the answer carries the ask's `id` as its `causationid` and repeats its `correlationid` and
`workflowstep`.

Everybody outside binds a queue to `{STATUS_EXCHANGE}`. There, one AMQP message is one event in CloudEvents binary mode:
attributes in `ce-` headers, data in the body. The first word of the routing key says what it is: `status`, `error` and
`retry` of a workflow, `warning` of a contract's end, of mails that bounce or of a quota that is used up, `mail` of what
becomes of mails.

Applications with a login for it publish what tenants use to `{USAGE_EXCHANGE}`: `docs/metering.md`.

Delivery is at least once: a repeated delivery has the same `id`. Within a major version, the `v1` at the end of a
type, messages only gain optional fields; ignore those that you do not know.
"""

_ATTRIBUTES: dict[str, Schema] = {
    "specversion": {"const": "1.0"},
    "id": {"type": "string", "format": "uuid", "description": "The same in every delivery of this event."},
    "type": {"type": "string", "description": "The message, as `<owner>.<name>.v<major>`."},
    "source": {
        "enum": [SOURCE_PREFIX + service for service in SERVICES],
        "description": "Who says it; the broker's `user_id` proves it.",
    },
    "subject": {"type": "string", "description": "The `tenantId` of the data."},
    "time": {"type": "string", "format": "date-time", "description": "When it was made."},
    "datacontenttype": {"const": "application/json"},
    "correlationid": {
        "type": "string",
        "format": "uuid",
        "description": "The workflow on whose behalf it travels.",
    },
    "workflowstep": {"type": "string", "description": "The step of that workflow."},
    "causationid": {
        "type": "string",
        "format": "uuid",
        "description": "The event that caused this one; for an answer, the ask.",
    },
    "traceparent": {
        "type": "string",
        "description": "The span of its making, where that is traced: CloudEvents' extension for distributed tracing.",
    },
}
_REQUIRED = ("specversion", "id", "type", "source", "subject", "time", "datacontenttype")


def asyncapi_document() -> str:
    """Return the document as YAML."""
    system = manifest()
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tenure",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": BATCH,
        "servers": {"broker": _server()},
        "channels": {**_service_channels(system), **_outside_channels(), _USAGE: _usage_channel()},
        "operations": {**_asking(system), **_telling(system), f"{USAGE_READER}.takes.usage": _taking_usage()},
        "components": {
            "messages": {key: _message(message) for key, message in CATALOGUE.items()} | {_USAGE: _usage_message()},
            "schemas": _schemas(),
            "securitySchemes": {"login": {"type": "userPassword", "description": "A broker login of one's own."}},
        },
    }
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return "# Written by `make docs`; change the code instead.\n" + text


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, and everything as often as it occurs."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is the library's
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _server() -> Document:
    return {
        "host": "{host}:{port}",
        "protocol": "amqp",
        "protocolVersion": "0.9.1",
        "description": "The RabbitMQ of the installation, 3.10 or newer, virtual host `/`.",
        "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "5672"}},
        "security": [{"$ref": "#/components/securitySchemes/login"}],
    }


# Channels


def _service_channels(system: Manifest) -> Document:
    return {
        service: {
            "address": "{type}",
            "title": f"What {service} says",
            "description": f"The routing key is the type of the events. Only {service} may publish here.",
            "parameters": {"type": {"description": "The type.", "enum": _said(service, system)}},
            "messages": {key: _reference("components", "messages", key) for key in _said(service, system)},
            "bindings": _exchange_binding(exchange_of(service)),
        }
        for service in SERVICES
    }


def _said(service: str, system: Manifest) -> list[str]:
    """List what a service says to the others, in the order of the catalogue."""
    return [
        key
        for key, message in CATALOGUE.items()
        if system.may_say(service, key) and (not outside_key(message) or _hearers(key, system))
    ]


def _outside_channels() -> Document:
    return {
        _topic(message): {
            "address": key.replace("<", "{").replace(">", "}"),
            "title": f"What everybody outside is told: {_topic(message)}",
            "description": f"{first_sentence(message)} Bind a queue with `*` for any word of the routing key.",
            "parameters": {name: _parameter(name) for name in _parameters(key)},
            "messages": {message.routing_key(): _reference("components", "messages", message.routing_key())},
            "bindings": _exchange_binding(STATUS_EXCHANGE),
        }
        for message in CATALOGUE.values()
        if (key := outside_key(message))
    }


def _usage_channel() -> Document:
    return {
        "address": "{application}",
        "title": "What tenants use",
        "description": "Applications publish here, each with a login of its own; no service does. The routing key is "
        "theirs to choose.",
        "parameters": {"application": {"description": "Such as the name of the application."}},
        "messages": {_USAGE: _reference("components", "messages", _USAGE)},
        "bindings": _exchange_binding(USAGE_EXCHANGE),
    }


def _topic(message: type[Message]) -> str:
    """Return the words of the routing key outside that stay the same, which also name the channel."""
    return "-".join(word for word in (outside_key(message) or "").split(".") if not word.startswith("<"))


def _parameters(key: str) -> list[str]:
    return [word.strip("<>") for word in key.split(".") if word.startswith("<")]


def _parameter(name: str) -> Document:
    """Describe a word of a routing key outside; each repeats a field of the data."""
    kinds = dict.fromkeys(definition.kind for definition in DEFINITIONS.values())
    steps = dict.fromkeys(step.name for definition in DEFINITIONS.values() for step in definition.plan)
    words: dict[str, Document] = {
        "kind": {"description": "The kind of workflow.", "enum": list(kinds)},
        "status": {"description": "The workflow's new status.", "enum": list(get_args(WorkflowState))},
        "step": {"description": "The step of the workflow.", "enum": list(steps)},
        "event": {"description": "What happened to mails, such as `send` or `permanent_bounce`."},
        "tenantId": {"description": "The tenant."},
    }
    return {**words[name], "location": f"$message.payload#/{name}"}


def _exchange_binding(name: str) -> Document:
    declared = next(each for each in exchanges(Manifest.load()) if each["name"] == name)
    exchange = {
        "name": name,
        "type": declared["type"],
        "durable": declared["durable"],
        "autoDelete": declared["auto_delete"],
        "vhost": declared["vhost"],
    }
    return {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": _BINDING_VERSION}}


# Operations


def _asking(system: Manifest) -> Document:
    """Describe every ask twice, as who asks and as who is asked, with what may be answered."""
    operations: Document = {}
    for key, ask in _all(Ask):
        answers = [_in_channel(ask.owner, answer) for answer in answers_to(ask)]
        reply = {"channel": _reference("channels", ask.owner), "messages": answers}
        for asker in _sayers(key, system):
            operations[f"{asker}.asks.{ask.__name__}"] = _send(asker, asker, ask) | {"reply": reply}
            operations[f"{ask.owner}.isAsked.{ask.__name__}"] = _receive(ask.owner, asker, ask) | {"reply": reply}
    return operations


def _telling(system: Manifest) -> Document:
    """Describe every fact that is told to others than whoever has asked for it."""
    operations: Document = {}
    for key, fact in _all(Fact):
        askers = _sayers(fact.answers.routing_key(), system) if fact.answers else []
        hearers = [service for service in _hearers(key, system) if service not in askers]
        for sayer in _sayers(key, system):
            if hearers or not fact.answers:
                operations[f"{sayer}.tells.{fact.__name__}"] = _send(sayer, _channel(sayer, fact), fact)
            if hearers and outside_key(fact):
                operations[f"{sayer}.tellsServices.{fact.__name__}"] = _send(sayer, sayer, fact)
            for hearer in hearers:
                operations[f"{hearer}.hears.{title_of(fact).replace(' ', '.')}"] = _receive(hearer, sayer, fact)
    return operations


def _all(base: type[Family]) -> Iterator[tuple[str, type[Family]]]:
    return ((key, message) for key, message in CATALOGUE.items() if issubclass(message, base))


def _hearers(key: str, system: Manifest) -> list[str]:
    return [service for service in SERVICES if key in system.subscribes[service]]


def _sayers(key: str, system: Manifest) -> list[str]:
    return [service for service in SERVICES if system.may_say(service, key)]


def _channel(sayer: str, message: type[Message]) -> str:
    return _topic(message) if outside_key(message) else sayer


def _send(sayer: str, channel: str, message: type[Message]) -> Document:
    return {
        "action": "send",
        "channel": _reference("channels", channel),
        "summary": first_sentence(message),
        "tags": [{"name": sayer}],
        "messages": [_in_channel(channel, message)],
        "bindings": {
            "amqp": {"deliveryMode": _PERSISTENT, "userId": sayer, "ack": True, "bindingVersion": _BINDING_VERSION}
        },
    }


def _receive(hearer: str, channel: str, message: type[Message]) -> Document:
    return {
        "action": "receive",
        "channel": _reference("channels", channel),
        "summary": first_sentence(message),
        "description": f"It is read from the queue `{work_queue_of(hearer)}`.",
        "tags": [{"name": hearer}],
        "messages": [_in_channel(channel, message)],
    }


def _taking_usage() -> Document:
    return {
        "action": "receive",
        "channel": _reference("channels", _USAGE),
        "summary": "Count what tenants use, each event once.",
        "description": f"It is read from the queue `{USAGE_QUEUE}`; what is refused is parked with the reasons.",
        "tags": [{"name": USAGE_READER}],
        "messages": [_reference("channels", _USAGE, "messages", _USAGE)],
    }


def _in_channel(channel: str, message: type[Message]) -> Document:
    return _reference("channels", channel, "messages", message.routing_key())


def _reference(*path: str) -> Document:
    return {"$ref": "#/" + "/".join(path)}


# Messages and their schemas


def _message(message: type[Message]) -> Document:
    key = message.routing_key()
    about = {"name": key, "title": title_of(message), "summary": first_sentence(message)}
    if outside_key(message):
        headers = _reference("components", "schemas", "CloudEventHeaders")
        return about | {"contentType": "application/json", "headers": headers, "payload": _data(key)}
    return about | {"contentType": BATCH, "payload": {"type": "array", "minItems": 1, "items": _event(message)}}


def _usage_message() -> Document:
    event = {"allOf": [EVENT_SCHEMA, {"required": ["subject"]}]}
    return {
        "name": _USAGE,
        "title": "Usage events",
        "summary": "What `POST /v1/usage` takes: one event, an array of them, or NDJSON, as its content type says.",
        "contentType": BATCH,
        "payload": {"type": "array", "maxItems": MOST_EVENTS, "items": event},
    }


def _event(message: type[Message]) -> Schema:
    key = message.routing_key()
    attributes = ["correlationid", "workflowstep"] if issubclass(message, Ask) else []
    own = {
        "type": "object",
        "required": [*attributes, "data"],
        "properties": {"type": {"const": key}, "data": _data(key)},
    }
    return {"allOf": [_reference("components", "schemas", "CloudEvent"), own]}


def _data(key: str) -> Schema:
    return _reference("components", "schemas", key)


def _schemas() -> Document:
    schemas: Document = {
        "CloudEvent": {
            "type": "object",
            "description": "One event of a batch, in the CloudEvents JSON format 1.0.",
            "required": list(_REQUIRED),
            "properties": _ATTRIBUTES,
        },
        "CloudEventHeaders": {
            "type": "object",
            "description": "The attributes of one event in binary mode. Its `id` is the AMQP `message_id` as well.",
            "required": [f"ce-{name}" for name in _REQUIRED if name != "datacontenttype"],
            "properties": {f"ce-{name}": schema for name, schema in _ATTRIBUTES.items() if name != "datacontenttype"},
        },
    }
    for key, message in CATALOGUE.items():
        found = described(message, reference=_SCHEMAS + "{model}")
        schemas |= {**found.parts, key: found.schema}
    return schemas
