"""What the contracts say about themselves: kinds, sentences and schemas of messages."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from shared.contracts import CATALOGUE, Ask, Fact, Message, Refusal
from shared.messaging.topology import STATUS_EXCHANGE

Schema = dict[str, Any]

_ATTRIBUTE = re.compile(r"^ {4}(?P<name>\w+): (?P<text>.*(?:\n {8}.*)*)", re.MULTILINE)
_FIRST_SENTENCE = re.compile(r".+?[.](?=\s|$)")
_OUTSIDE_KEY = re.compile(rf"Routing key on `{re.escape(STATUS_EXCHANGE)}`: `(?P<key>[^`]+)`")


@dataclass(frozen=True)
class Described:
    """The schemas of one message.

    Attributes:
        schema: of the message's data, as it is on the wire.
        parts: of the values inside it, by name.
    """

    schema: Schema
    parts: Mapping[str, Schema]


def kind_of(message: type[Message]) -> str:
    """Return ``ask``, ``undo``, ``refusal`` or ``fact``."""
    if issubclass(message, Ask):
        return "undo" if message.undoes else "ask"
    return "refusal" if issubclass(message, Refusal) else "fact"


def answers_to(ask: type[Message]) -> list[type[Fact]]:
    """List the facts that answer an ask, refusals last."""
    facts = [each for each in CATALOGUE.values() if issubclass(each, Fact) and each.answers is ask]
    return sorted(facts, key=lambda fact: issubclass(fact, Refusal))


def undo_of(ask: type[Message]) -> type[Ask] | None:
    """Return the ask that takes back what another one does."""
    undoes = (each for each in CATALOGUE.values() if issubclass(each, Ask) and each.undoes is ask)
    return next(undoes, None)


def title_of(message: type[Message]) -> str:
    """Return a message's name, and whose it is where several services have one of that name."""
    namesakes = [each for each in CATALOGUE.values() if each.__name__ == message.__name__]
    return message.__name__ if len(namesakes) == 1 else f"{message.__name__} of {message.owner}"


def prose(docstring: str) -> str:
    """Return a docstring without its sections, its paragraphs on one line each, in Markdown."""
    text = re.split(r"^Attributes:$", inspect.cleandoc(docstring), flags=re.MULTILINE)[0].strip()
    return "\n\n".join(" ".join(each.split()) for each in re.split(r"\n\s*\n", text)).replace("``", "`")


def first_sentence(message: type[Message]) -> str:
    """Return the sentence that a message's docstring begins with."""
    text = prose(message.__doc__ or "")
    found = _FIRST_SENTENCE.match(text)
    return found.group() if found else text


def described(message: type[Message], *, reference: str) -> Described:
    """Return the schemas of a message, with the sentences of its docstring.

    Args:
        reference: how a schema refers to that of a part; ``{model}`` stands for the part's name.
    """
    schema = message.model_json_schema(mode="serialization", ref_template=reference)
    parts = {name: _with_sentences(part, {}) for name, part in schema.pop("$defs", {}).items()}
    inherited: dict[str, str] = {}
    for ancestor in reversed(message.__mro__[1:]):
        if issubclass(ancestor, Message) and ancestor is not Message:
            inherited |= _attributes(ancestor.__doc__ or "")
    return Described(_with_sentences(schema, inherited), parts)


def _with_sentences(schema: Schema, inherited: Mapping[str, str]) -> Schema:
    docstring = schema.get("description", "")
    sentences = {to_camel(name): text for name, text in {**inherited, **_attributes(docstring)}.items()}
    return schema | {
        "description": prose(docstring),
        "properties": dict(_properties(schema.get("properties", {}), sentences)),
    }


def _properties(properties: Schema, sentences: Mapping[str, str]) -> Iterator[tuple[str, Schema]]:
    for name, schema in properties.items():
        kept = {key: value for key, value in schema.items() if key != "title"}
        yield name, kept | ({"description": sentences[name]} if name in sentences else {})


def _attributes(docstring: str) -> dict[str, str]:
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    return {found["name"]: _sentence(found["text"]) for found in _ATTRIBUTE.finditer(section)}


def _sentence(text: str) -> str:
    """Return the description of an attribute as a sentence about JSON."""
    words = re.sub(r"\bNone\b", "`null`", " ".join(text.split()).replace("``", "`"))
    return words[0].upper() + words[1:]


def outside_key(message: type[Message]) -> str | None:
    """Return the routing key on ``tenure.status`` that a contract names, such as ``status.<kind>.<status>.<tenantId>``.

    None for a message between services, whose routing key is its type.
    """
    found = _OUTSIDE_KEY.search(prose(message.__doc__ or ""))
    return found["key"] if found else None
