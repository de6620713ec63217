"""How a service says what it hears: a table from message class to handler, and how dependencies get into handlers.

A handler takes a batch and is set-based by nature. It runs inside the kernel's transaction, sees each message once, and
answers with messages of its own; it never publishes, commits or acknowledges. An exception means a bug or an outage:
the kernel tries again and finally parks the message. A domain refusal is an answer.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from shared.contracts.base import Fact, Message
from shared.messaging.event import Event, Outgoing


class NewerCodeNeededError(Exception):
    """A handler's way to say that only code of a newer release can handle a message, which waits for that.

    While a release is deployed, replicas of both are at work. What no code has come for is parked after minutes.
    """


class Kind(Enum):
    """What the kernel does around a handler."""

    DO = "do"
    """An ask: the barrier lets it through once per workflow step, and never after its undo."""
    UNDO = "undo"
    """The undo of an ask: once, whether the ask came before, comes later, or never comes."""
    CHANGE = "change"
    """An ask like `DO` that changes what is there; the barrier keeps what that was."""
    RESTORE = "restore"
    """The undo of a `CHANGE`, given what was there before."""
    BEGIN = "begin"
    """An ask like `DO` that may take long: the answer may come in a later transaction."""
    TURN_BACK = "turn back"
    """The undo of a `BEGIN`, which may take as long."""
    HEAR = "hear"
    """A fact: once per message."""
    FOLLOW = "follow"
    """A fact with its envelope: once per message; for handlers that need to know what it answers."""


@dataclass(frozen=True)
class Subscription:
    """A handler and how the kernel treats it."""

    kind: Kind
    handler: Callable[..., Awaitable[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, for a handler that has more to tell than that.

    Attributes:
        answer: the fact that answers the ask.
        tells: what else has happened, for whoever listens.
    """

    answer: Fact
    tells: Sequence[Fact] = field(default=(), kw_only=True)


def do(handler: Callable[..., Awaitable[Sequence[Fact | Answered]]]) -> Subscription:
    """Answer each ask of a batch with one fact, in the order of the asks.

    Args:
        handler: ``(connection, asks, *, dependencies) -> answers``.
    """
    return Subscription(Kind.DO, handler)


def undo(handler: Callable[..., Awaitable[Sequence[Fact | Answered]]]) -> Subscription:
    """Take back what each ask of a batch names and answer with one fact each; finding nothing is no error.

    Args:
        handler: ``(connection, asks, *, dependencies) -> answers``.
    """
    return Subscription(Kind.UNDO, handler)


@dataclass(frozen=True, slots=True)
class Changed(Answered):
    """What an ask that changes something came to.

    Attributes:
        before: what was found and changed, as JSON, for the undo; None where nothing was changed.
    """

    before: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Restoration:
    """What an undo has to bring back.

    Attributes:
        tenant_id: whose it is.
        before: what the ask had found and changed; None where it changed nothing, or that was brought back already.
    """

    tenant_id: str
    before: Mapping[str, Any] | None


def change(handler: Callable[..., Awaitable[Sequence[Changed]]]) -> Subscription:
    """Answer each ask of a batch, in order, with a fact and with what it found and changed.

    Args:
        handler: ``(connection, asks, *, dependencies) -> changes``.
    """
    return Subscription(Kind.CHANGE, handler)


def restore(handler: Callable[..., Awaitable[Sequence[Fact | Answered]]]) -> Subscription:
    """Bring back what each undo of a batch names and answer with one fact each, in order.

    Args:
        handler: ``(connection, restorations, *, dependencies) -> answers``.
    """
    return Subscription(Kind.RESTORE, handler)


@dataclass(frozen=True, slots=True)
class Reversal:
    """What an undo is about that may take long.

    Attributes:
        undo: with the envelope that the later answer needs.
        before: what was found and changed, of an ask that was answered as a `CHANGE`; None for any other.
    """

    undo: Event
    before: Mapping[str, Any] | None


def begin(handler: Callable[..., Awaitable[Sequence[Fact | Answered | None]]]) -> Subscription:
    """Begin what each ask of a batch wants, and answer at once only where there is nothing to be done.

    Whoever ends it answers with `Dispatch.answer`, in the transaction in which the barrier remembers that.

    Args:
        handler: ``(connection, events, *, dependencies) -> answers``, None for each that is answered later.
    """
    return Subscription(Kind.BEGIN, handler)


def turn_back(handler: Callable[..., Awaitable[Sequence[Fact | Answered | None]]]) -> Subscription:
    """Begin to take back what each undo of a batch names, and answer at once only where there is nothing to be done.

    An undo that is repeated comes here again.

    Args:
        handler: ``(connection, reversals, *, dependencies) -> answers``, None for each that is answered later.
    """
    return Subscription(Kind.TURN_BACK, handler)


def hear(handler: Callable[..., Awaitable[Sequence[Fact]]]) -> Subscription:
    """React to a batch of facts with any number of facts of one's own.

    Args:
        handler: ``(connection, facts, *, dependencies) -> facts``.
    """
    return Subscription(Kind.HEAR, handler)


def follow(handler: Callable[..., Awaitable[Sequence[Outgoing]]]) -> Subscription:
    """React to a batch of events, envelopes included, with messages whose envelopes the handler makes.

    Args:
        handler: ``(connection, events, *, dependencies) -> outgoing``.
    """
    return Subscription(Kind.FOLLOW, handler)


Subscriptions = Mapping[type[Message], Subscription]


def bind(subscriptions: Subscriptions, **dependencies: Any) -> Subscriptions:
    """Give each handler the dependencies that its keyword-only parameters name.

    Raises:
        LookupError: a handler names one that is not offered.
    """
    # One bound handler per function: what `follow` shares between types is handled as one batch.
    handlers = {each.handler: _bind(each.handler, dependencies) for each in subscriptions.values()}
    return {message: Subscription(each.kind, handlers[each.handler]) for message, each in subscriptions.items()}


def _bind(handler: Callable[..., Any], dependencies: Mapping[str, Any]) -> Callable[..., Any]:
    wanted = [
        parameter.name
        for parameter in inspect.signature(handler).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    if missing := [name for name in wanted if name not in dependencies]:
        raise LookupError(f"{handler.__name__} needs {', '.join(missing)}")
    return functools.partial(handler, **{name: dependencies[name] for name in wanted})
