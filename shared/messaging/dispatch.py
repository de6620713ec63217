"""From a batch of events to handlers and back: what surrounds a handler, by the kind of its subscription."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prometheus_client import CollectorRegistry

from shared.clock import Clock
from shared.contracts import UNDONE
from shared.contracts.base import Fact, Message
from shared.ids import Ids
from shared.messaging import barrier
from shared.messaging.event import Event, Outgoing
from shared.messaging.measured import Handling
from shared.messaging.subscriptions import (
    Answered,
    Changed,
    Kind,
    Restoration,
    Reversal,
    Subscription,
    Subscriptions,
)
from shared.messaging.topology import exchange_of
from shared.postgres import Connection


class Dispatch:
    """Hands events to the handlers of one service and wraps what they say.

    Args:
        subscriptions: bound, see `shared.messaging.subscriptions.bind`.
        registry: where is kept how long handlers take, and how many messages they took.
    """

    def __init__(
        self,
        *,
        service: str,
        subscriptions: Subscriptions,
        clock: Clock,
        ids: Ids,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._service = service
        self._subscriptions = {message.routing_key(): each for message, each in subscriptions.items()}
        self._clock = clock
        self._ids = ids
        self._handling = Handling(registry)

    @property
    def heard(self) -> Collection[str]:
        """The routing keys that have a handler."""
        return self._subscriptions.keys()

    async def handle(self, connection: Connection, events: Sequence[Event]) -> list[Outgoing]:
        """Run the handlers of a batch, grouped by type, in the caller's transaction; return all that was said."""
        groups: dict[Hashable, list[Event]] = {}
        for event in events:
            groups.setdefault(self._group_of(event), []).append(event)
        outgoing: list[Outgoing] = []
        for group in groups.values():
            with self._handling.of(group):
                outgoing += await self._handle_group(connection, self._subscriptions[group[0].type], group)
        return outgoing

    def _group_of(self, event: Event) -> Hashable:
        """Batch by type; handlers that look at envelopes take all their types together, in the order of arrival."""
        subscription = self._subscriptions[event.type]
        return subscription.handler if subscription.kind is Kind.FOLLOW else event.type

    async def _handle_group(
        self, connection: Connection, subscription: Subscription, events: Sequence[Event]
    ) -> Sequence[Outgoing]:
        match subscription.kind:
            case Kind.DO | Kind.CHANGE | Kind.BEGIN:
                return await self._do(connection, subscription, events)
            case Kind.UNDO | Kind.RESTORE | Kind.TURN_BACK:
                return await self._undo(connection, subscription, events)
            case Kind.HEAR:
                said = await subscription.handler(connection, [event.message for event in events])
                return [self.tell(message) for message in said]
            case Kind.FOLLOW:
                followed: Sequence[Outgoing] = await subscription.handler(connection, events)
                return followed

    async def _do(
        self, connection: Connection, subscription: Subscription, asks: Sequence[Event]
    ) -> Sequence[Outgoing]:
        entered = await barrier.enter(connection, asks)
        answers = dict(entered.answered)
        told: list[Outgoing] = []
        if entered.fresh:
            await self._forget(connection, subscription, entered.fresh)
            given: Sequence[object] = entered.fresh
            if subscription.kind is not Kind.BEGIN:
                given = [ask.message for ask in entered.fresh]
            said = await subscription.handler(connection, given)
            fresh = {
                barrier.key_of(ask): _answered(each)
                for ask, each in zip(entered.fresh, said, strict=True)
                if each is not None
            }
            await barrier.remember(
                connection,
                {key: each.answer for key, each in fresh.items()},
                {key: before for key, each in fresh.items() if (before := _before(each)) is not None},
            )
            answers |= {key: each.answer for key, each in fresh.items()}
            told = self._tell_all(fresh.values())
        return [
            *(self._answer(ask, answers[barrier.key_of(ask)]) for ask in asks if barrier.key_of(ask) in answers),
            *told,
        ]

    async def _forget(self, connection: Connection, subscription: Subscription, asks: Sequence[Event]) -> None:
        """Forget what no undo can ask for any more: none comes after the next workflow's ask, or after a final one."""
        is_final = type(asks[0].message) not in UNDONE
        if is_final or subscription.kind in {Kind.CHANGE, Kind.BEGIN}:
            await barrier.forget(connection, asks, own=is_final)

    async def _undo(
        self, connection: Connection, subscription: Subscription, undos: Sequence[Event]
    ) -> Sequence[Outgoing]:
        befores = await barrier.close(connection, undos)
        given: Sequence[object] = [undo.message for undo in undos]
        if subscription.kind is Kind.RESTORE:
            given = [Restoration(undo.message.tenant_id, befores.pop(barrier.key_of(undo), None)) for undo in undos]
        elif subscription.kind is Kind.TURN_BACK:
            given = [Reversal(undo, befores.pop(barrier.key_of(undo), None)) for undo in undos]
        said = await subscription.handler(connection, given)
        pairs = [(undo, _answered(each)) for undo, each in zip(undos, said, strict=True) if each is not None]
        answers = [self._answer(undo, each.answer) for undo, each in pairs]
        return [*answers, *self._tell_all(each for _, each in pairs)]

    def _tell_all(self, said: Iterable[Answered]) -> list[Outgoing]:
        return [self.tell(fact) for each in said for fact in each.tells]

    def _answer(self, ask: Event, message: Message) -> Outgoing:
        return self.answer(message, to=barrier.key_of(ask), causation_id=ask.id)

    def answer(self, message: Message, *, to: barrier.Key, causation_id: UUID) -> Outgoing:
        """Wrap what is said of a workflow's step.

        Args:
            to: the operation.
            causation_id: the message that asked for it.
        """
        workflow_id, step = to
        return self.wrap(
            Event(
                id=self._ids.new(),
                publisher=self._service,
                time=self._clock.now(),
                message=message,
                workflow_id=workflow_id,
                step=step,
                causation_id=causation_id,
            )
        )

    def tell(self, message: Message) -> Outgoing:
        """Wrap a fact that answers nobody."""
        return self.wrap(Event(id=self._ids.new(), publisher=self._service, time=self._clock.now(), message=message))

    def wrap(self, event: Event) -> Outgoing:
        """Address an event to the service's own exchange."""
        return Outgoing(event.id, exchange_of(self._service), event.type, event.encode())


def _before(answered: Answered) -> Mapping[str, Any] | None:
    return answered.before if isinstance(answered, Changed) else None


def _answered(said: Fact | Answered) -> Answered:
    return said if isinstance(said, Answered) else Answered(said)
