"""What all changes have in common: they are judged, made, told, and remembered so that they can be taken back.

A before-image says what was found and what it was changed to. Taking back brings the first where the second still is,
so it never undoes what somebody else has changed since.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import asyncpg

from services.tenant.lifecycle import State, Transition
from services.tenant.queries import tenants as queries
from services.tenant.queries.tenants import Terms
from services.tenant.refusals import why_not, why_not_now
from services.tenant.turns import in_turn
from shared.clock import Clock
from shared.contracts import Ask, Fact, Refusal
from shared.messaging.subscriptions import Changed, Restoration
from shared.postgres import Connection

AskT = TypeVar("AskT", bound=Ask)


@dataclass(frozen=True)
class Move:
    """A transition as a handler takes it.

    Attributes:
        transition: of the tenant's state.
        done: says that the tenant has taken it.
        refused: says that it cannot.
        participle: what it cannot be.
    """

    transition: Transition
    done: type[Fact]
    refused: type[Refusal]
    participle: str


async def take(connection: Connection, asks: Sequence[Ask], move: Move, *, clock: Clock) -> Sequence[Changed]:
    """Take a transition with each tenant that is in one of its sources; of two asks the second finds it taken."""
    tenant_ids = [ask.tenant_id for ask in asks]
    outcomes = await queries.move(connection, tenant_ids, move.transition, now=clock.now())
    return [_taken(ask.tenant_id, outcome, move) for ask, outcome in zip(asks, outcomes, strict=True)]


def _taken(tenant_id: str, outcome: asyncpg.Record, move: Move) -> Changed:
    state, transition = outcome["state"], move.transition
    if outcome["moved"]:
        return Changed(move.done(tenant_id=tenant_id), _before({"state": state}, {"state": transition.target}))
    if transition.may_be_there and state == transition.target:
        return Changed(move.done(tenant_id=tenant_id))
    code, detail = why_not_now(state, move.participle)
    return Changed(move.refused(tenant_id=tenant_id, code=code, detail=detail))


@dataclass(frozen=True)
class Wish(Generic[AskT]):
    """A change of a tenant's terms as a handler makes it.

    Attributes:
        wanted: returns those terms that an ask gives a new value.
        states: those in which a tenant may be changed so.
        done: makes the fact of it, given the ask and a row of `queries.judge`.
        refused: says that the tenant stays as it is.
        participle: what it cannot be where its state forbids it.
    """

    wanted: Callable[[AskT], Terms]
    states: Sequence[State]
    done: Callable[[AskT, asyncpg.Record], Fact]
    refused: type[Refusal]
    participle: str


async def grant(connection: Connection, asks: Sequence[AskT], wish: Wish[AskT], *, clock: Clock) -> Sequence[Changed]:
    """Give each tenant what is wanted for it, all of it or nothing; of two that want one name the first gets it."""

    async def turn(asks: Sequence[AskT]) -> Sequence[Changed]:
        wanted = {ask.tenant_id: wish.wanted(ask) for ask in asks}
        await queries.lock_tenants(connection, list(wanted))
        verdicts = await _judge_and_write(connection, wanted, wish.states, now=clock.now())
        return [
            _granted(ask, wanted[ask.tenant_id], verdict, wish) for ask, verdict in zip(asks, verdicts, strict=True)
        ]

    return await in_turn(asks, turn)


async def _judge_and_write(
    connection: Connection, wanted: Mapping[str, Terms], states: Sequence[State], *, now: datetime
) -> Sequence[asyncpg.Record]:
    while True:
        verdicts = await queries.judge(connection, wanted, states=states)
        granted = {
            tenant_id: verdict["terms"] | verdict["wanted"]
            for tenant_id, verdict in zip(wanted, verdicts, strict=True)
            if verdict["refusal"] is None
        }
        try:
            async with connection.transaction():
                await queries.write_terms(connection, granted, now=now)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "tenant_name":
                raise
            continue  # somebody else was given a name after we had looked; the next look sees it
        return verdicts


def _granted(ask: AskT, wanted: Terms, verdict: asyncpg.Record, wish: Wish[AskT]) -> Changed:
    code = verdict["refusal"]
    if code is None:
        return Changed(wish.done(ask, verdict), _before(verdict["terms"], verdict["wanted"]))
    if code in {"unknown_tenant", "wrong_state"}:
        code, detail = why_not_now(verdict["state"], wish.participle)
    else:
        detail = why_not(code, wanted)
    return Changed(wish.refused(tenant_id=ask.tenant_id, code=code, detail=detail))


def _before(terms: Terms, changed_to: Terms) -> dict[str, Any]:
    return {"found": {name: terms[name] for name in changed_to}, "changed_to": changed_to}


async def bring_back(
    connection: Connection, restorations: Sequence[Restoration], undone: type[Fact], *, clock: Clock
) -> Sequence[Fact]:
    """Give each tenant back what was found, unless it was changed further, or archived, which is final.

    Raises:
        asyncpg.UniqueViolationError: another tenant has the name that one was found with.
    """

    async def turn(restorations: Sequence[Restoration]) -> Sequence[Restoration]:
        befores = {each.tenant_id: each.before for each in restorations if each.before is not None}
        await queries.lock_tenants(connection, list(befores))
        present = await queries.terms(connection, list(befores))
        restored = {
            tenant_id: terms | befores[tenant_id]["found"]
            for tenant_id, terms in present.items()
            if terms | befores[tenant_id]["changed_to"] == terms and terms["state"] != State.ARCHIVED
        }
        await queries.write_terms(connection, restored, now=clock.now())
        return restorations

    await in_turn([each for each in restorations if each.before is not None], turn)
    return [undone(tenant_id=each.tenant_id) for each in restorations]
