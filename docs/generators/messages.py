"""The page of all messages: who says what, who hears it, what answers it and what is in it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from deploy.manifest import manifest
from docs.generators.catalogue import (
    Schema,
    answers_to,
    described,
    first_sentence,
    kind_of,
    outside_key,
    prose,
    title_of,
    undo_of,
)
from docs.generators.markdown import GENERATED, link, mermaid, table
from shared.contracts import CATALOGUE, SERVICES, Ask, Fact, Message
from shared.messaging.topology import Manifest, exchange_of

_INTRODUCTION = f"""\
# Messages

{GENERATED}

Services talk through messages alone, and every message belongs to one service, its *owner*:

- an **ask** is imperative and belongs to the service that is asked; one fact answers it, the same however often it
  arrives, and none if its undo has come first;
- an **undo** is an ask that takes back what another one did, or would still do if it came later; an ask without one is
  final, and asked only from the [point of no return](lifecycles.md#all-lifecycles) of a workflow on;
- a **fact** is in the past tense and belongs to the service that tells it;
- a **refusal** is a fact: what was asked will not be done, and nothing has changed.

The type of a message is also its routing key, save for what everybody outside is told. A service publishes to an
exchange of its own, such as `{exchange_of("tenant")}`, which names the sender and cannot be lied about. Every message
has a `tenantId`, the only key that all services share; the tables of fields leave it out. How all this looks on the
wire, with every schema, is in [asyncapi.yaml](asyncapi.yaml).
"""

_EVERYBODY = "everybody outside"
_NOBODY = "nobody yet"
_ARROWS = {"asks": "-->", "facts": "-.->"}
_REFERENCE = "#{model}"


def messages_page() -> str:
    """Return the page."""
    system = manifest()
    sections = [_INTRODUCTION, _overview(system)]
    for owner, owned in _by_owner():
        sections += [_owner_table(owner, owned, system), *(_details(each, system) for each in owned)]
    return "\n".join([*sections, _parts()])


def _by_owner() -> Iterator[tuple[str, list[type[Message]]]]:
    """Yield each service and its messages, in the order of the contracts."""
    for owner, owned in groupby(CATALOGUE.values(), key=lambda message: message.owner):
        yield owner, list(owned)


def _overview(system: Manifest) -> str:
    rows = [
        [
            f"[{service}](../services/{service}/handlers.py)",
            _links(CATALOGUE[key] for key in CATALOGUE if key in system.publishes[service]),
            _links(CATALOGUE[key] for key in CATALOGUE if key in system.subscribes[service]),
        ]
        for service in SERVICES
    ]
    return f"## Who says what\n\n{_flow(system)}\n" + table(["service", "says", "hears"], rows)


def _flow(system: Manifest) -> str:
    """Draw which service says how much to which."""
    counts: dict[tuple[str, str, str], int] = {}
    for key, message in CATALOGUE.items():
        for sayer in _sayers(key, system):
            for hearer in _hearers(message, system):
                what = "asks" if issubclass(message, Ask) else "facts"
                counts[sayer, hearer, what] = counts.get((sayer, hearer, what), 0) + 1
    arrows = [
        f'    {sayer} {_ARROWS[what]}|"{number} {what if number > 1 else what[:-1]}"| {_node(hearer)}'
        for (sayer, hearer, what), number in counts.items()
        if hearer != _NOBODY
    ]
    return mermaid("flowchart LR", *arrows)


def _node(hearer: str) -> str:
    return f'outside["{hearer}"]' if hearer == _EVERYBODY else hearer


def _owner_table(owner: str, owned: Sequence[type[Message]], system: Manifest) -> str:
    header = ["message", "kind", "routing key", "said by", "heard by", "goes with"]
    rows = [
        [
            f"{link(message)}<br>{first_sentence(message)}",
            kind_of(message),
            f"`{outside_key(message) or message.routing_key()}`",
            ", ".join(_sayers(message.routing_key(), system)),
            ", ".join(_hearers(message, system)),
            "<br>".join(_relations(message)),
        ]
        for message in owned
    ]
    contract = f"[shared/contracts/{owner}.py](../shared/contracts/{owner}.py)"
    return f"## {owner.capitalize()}\n\nThe contract is {contract}.\n\n" + table(header, rows)


def _sayers(routing_key: str, system: Manifest) -> list[str]:
    return [service for service in system.services if system.may_say(service, routing_key)] or [_NOBODY]


def _hearers(message: type[Message], system: Manifest) -> list[str]:
    if outside_key(message):
        return [_EVERYBODY]
    key = message.routing_key()
    return [service for service in system.services if key in system.subscribes[service]] or [_NOBODY]


def _relations(message: type[Message]) -> Iterator[str]:
    if issubclass(message, Ask):
        yield f"answered by {_links(answers_to(message))}"
        if message.undoes:
            yield f"undoes {link(message.undoes)}"
        elif undo := undo_of(message):
            yield f"undone by {link(undo)}"
        else:
            yield "never undone"
    elif issubclass(message, Fact) and message.answers:
        yield f"answers {link(message.answers)}"


def _links(several: Iterable[type[Message]]) -> str:
    return ", ".join(link(message) for message in several)


def _details(message: type[Message], system: Manifest) -> str:
    schema = described(message, reference=_REFERENCE).schema
    key = message.routing_key()
    said = f"said by {', '.join(_sayers(key, system))}, heard by {', '.join(_hearers(message, system))}"
    facts = [f"`{key}`", kind_of(message), said, *_relations(message)]
    sentences = f"{prose(message.__doc__ or '')}\n\n{'; '.join(facts)}."
    return f"### {title_of(message)}\n\n{sentences}\n\n{_fields(schema, leaving_out='tenantId')}"


def _parts() -> str:
    """Describe the values that messages have in common."""
    found: dict[str, Schema] = {}
    for message in CATALOGUE.values():
        found |= described(message, reference=_REFERENCE).parts
    sections = [f"### {name}\n\n{part['description']}\n\n{_fields(part)}" for name, part in found.items()]
    return "\n".join(["## Values inside messages\n", *sections])


def _fields(schema: Schema, *, leaving_out: str = "") -> str:
    """Make the table of fields; one of ``leaving_out`` is shown only where it has a sentence of its own."""
    required = schema.get("required", ())
    rows = [
        [f"`{name}`", _type(field), "yes" if name in required else "no", field.get("description", "")]
        for name, field in schema["properties"].items()
        if name != leaving_out or "description" in field
    ]
    return table(["field", "type", "required", "description"], rows) if rows else "It has no other field.\n"


def _type(schema: Schema) -> str:
    """Say in words what a JSON schema allows."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#")
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema["type"] == "object":
        values = schema["additionalProperties"]
        return "any object" if values is True else f"map of {_type(values)}"
    return str(schema.get("format", schema["type"]))
