"""A payment provider is asked for what is due of invoices, each once, whatever is interrupted and whoever is away.

What is asked is written down before; what is answered is written down after. In between nothing is locked: whoever does
it holds the bill for a while. Where no answer was written down, because there was none or because nobody was there any
more to write it, it is not known what became of the bill, so it is looked up before anything else is done about it. An
answer of somebody who has lost hold of the bill counts for nothing, but for money that has come in: that is booked by
whoever learns of it, and once.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.billing import queries
from services.billing.money import currency_of, rounded
from services.billing.numbers import invoice_number
from services.billing.payments.port import (
    Charge,
    ChargeRefusedError,
    Collector,
    Customer,
    Paid,
    ProviderUnavailableError,
)
from services.billing.payments.steps import (
    Answer,
    Bill,
    Made,
    Result,
    Step,
    answered,
    dropped,
    next_step,
    rested,
)
from services.billing.receivables import Incoming, ReferenceTakenError, receive
from shared.contracts.base import Fact
from shared.contracts.billing import PaymentFailed
from shared.messaging import outbox
from shared.messaging.event import Outgoing
from shared.postgres import Connection, transaction
from shared.repeating import repeat_rounds
from shared.service import Kernel

log = structlog.get_logger(__name__)

HELD: Final = timedelta(minutes=10)
"""How long nobody else looks at a bill that somebody has taken; far longer than a round takes."""

_LIMIT = 500
_HELD_AT_ONCE = 64
_AT_ONCE = 8
_STEP_SECONDS = 60.0
_POLL_SECONDS = 5.0
_LONGEST_CODE = 100


@dataclass(frozen=True, slots=True)
class _Taken:
    """A step that was taken.

    Attributes:
        customer: by which the provider knows who pays, if that is new.
    """

    bill: Bill
    step: Step
    answer: Answer | None
    customer: str | None = None


class Collecting:
    """Has a provider collect what is due.

    Args:
        retries: when after the issue of an invoice the money is asked for again, in order; first it is at once.
        registry: has ``tenure_billing_provider_outages_total``: how often the provider gave no answer.
    """

    def __init__(
        self,
        kernel: Kernel,
        provider: Collector,
        *,
        retries: Sequence[timedelta],
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._kernel = kernel
        self._provider = provider
        self._retries = retries
        self._outages = Counter(
            "tenure_billing_provider_outages",
            "How often a payment provider gave no answer.",
            registry=registry,
        )

    async def run(self) -> None:
        """Collect for ever; an outage of the database is waited out, and one of the provider holds up nothing else."""
        clock = self._kernel.ports.clock
        await repeat_rounds("collecting", self.round, lambda: clock.sleep(_POLL_SECONDS), clock=clock)

    async def round(self) -> int:
        """Make the bills that are missing, take the next step of those that are due, and return how many those were."""
        made = await self._make_bills()
        held = await self._hold()
        taken = await self._take(held)
        if taken:
            await self._settle(taken)
        return made + len(taken)

    async def _make_bills(self) -> int:
        now = self._kernel.ports.clock.now()
        async with transaction(self._kernel.pool) as connection:
            found = await queries.bills.unbilled(connection, now=now, limit=_LIMIT)
            if found:
                await queries.bills.lock(connection, [row["tenant_id"] for row in found])
                invoice_ids = [row["invoice_id"] for row in found]
                await queries.bills.make(connection, self._provider.name, invoice_ids, now=now)
        return len(found)

    async def _hold(self) -> Sequence[tuple[Bill, Step]]:
        """Hold bills, decide what to do about each, and write down for which the money is asked for."""
        now = self._kernel.ports.clock.now()
        name = self._provider.name
        async with transaction(self._kernel.pool) as connection:
            found = await queries.bills.to_look_at(connection, name, now=now, limit=_HELD_AT_ONCE)
            if not found:
                return []
            await queries.bills.lock(connection, [row["tenant_id"] for row in found])
            invoice_ids = [row["invoice_id"] for row in found]
            rows = await queries.bills.hold(connection, name, invoice_ids, now=now, until=now + HELD)
            steps = [_decided(Bill(**row), now=now) for row in rows]
            asked = [(bill.invoice_id, bill.edition) for bill, step in steps if step is Step.COLLECT]
            await queries.bills.ask(connection, asked, now=now)
        return steps

    async def _take(self, steps: Sequence[tuple[Bill, Step]]) -> Sequence[_Taken]:
        """Take steps, a few at once, and those of one tenant one after the other."""
        by_tenant: dict[str, list[tuple[Bill, Step]]] = {}
        for bill, step in steps:
            by_tenant.setdefault(bill.tenant_id, []).append((bill, step))
        places = asyncio.Semaphore(_AT_ONCE)
        done = await asyncio.gather(*(self._take_in_turn(each, places) for each in by_tenant.values()))
        return [each for of_tenant in done for each in of_tenant]

    async def _take_in_turn(self, steps: Sequence[tuple[Bill, Step]], places: asyncio.Semaphore) -> Sequence[_Taken]:
        taken = []
        async with places:
            customer: str | None = None
            for bill, step in steps:
                done = await self._step(bill, step, customer or bill.customer)
                customer = customer or done.customer
                taken.append(done)
        return taken

    async def _step(self, bill: Bill, step: Step, customer: str | None) -> _Taken:
        if step in {Step.REST, Step.DROP}:
            return _Taken(bill, step, None)
        known = customer
        answer: Answer
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                if step is Step.MAKE:
                    known = customer or await self._provider.ensure_customer(
                        Customer(bill.tenant_id, bill.customer_name), key=f"tenure-{bill.tenant_id}-{bill.failures}"
                    )
                answer = await self._ask(bill, step, known)
        except (ProviderUnavailableError, ChargeRefusedError) as error:
            answer = error
        except TimeoutError:
            answer = ProviderUnavailableError("It took too long.")
        except Exception as error:
            log.exception("a provider's answer is not understood", action="provider_confused", **_named(bill))
            answer = ProviderUnavailableError(repr(error))
        if isinstance(answer, ProviderUnavailableError):
            self._outages.inc()
            log.warning("a provider gives no answer", action="provider_unavailable", error=str(answer), **_named(bill))
        return _Taken(bill, step, answer, None if known == bill.customer else known)

    async def _ask(self, bill: Bill, step: Step, customer: str | None) -> Answer:
        provider = self._provider
        if step is Step.MAKE:
            assert customer is not None
            return Made(await provider.bill(_charge(bill, customer), key=bill.key))
        assert bill.reference is not None
        if step is Step.LOOK_UP:
            answer = await provider.look_up(bill.reference)
        elif step is Step.WITHDRAW:
            answer = await provider.withdraw(bill.reference, key=bill.key)
        else:
            answer = await provider.collect(bill.reference, key=bill.key)
        if isinstance(answer, Paid) and answer.currency != bill.currency:
            raise ProviderUnavailableError(f"It says that it has taken {answer.currency}.")
        return answer

    async def _settle(self, taken: Sequence[_Taken]) -> None:
        """Write down what became of steps; where the books refuse a payment, the others are not kept from theirs."""
        try:
            outgoing = await self._commit(taken)
        except (LookupError, ReferenceTakenError) as error:
            if len(taken) > 1:
                for each in taken:
                    await self._settle([each])
                return
            log.exception("a payment cannot be booked", action="payment_refused", **_named(taken[0].bill))
            refused = _Taken(taken[0].bill, taken[0].step, ProviderUnavailableError(repr(error)))
            outgoing = await self._commit([refused])
        await self._kernel.relay.send(outgoing)

    async def _commit(self, taken: Sequence[_Taken]) -> Sequence[Outgoing]:
        now = self._kernel.ports.clock.now()
        results = [self._result(each) for each in taken]
        async with transaction(self._kernel.pool) as connection:
            await queries.bills.lock(connection, [each.bill.tenant_id for each in taken])
            facts = await self._book(connection, results)
            held = await queries.bills.let_go(connection, [_row(each) for each in results], now=now)
            still = [each for each in results if (each.bill.invoice_id, each.bill.edition) in held]
            await queries.bills.count(
                connection,
                {each.bill.invoice_id: each.bill.attempts for each in still},
                again=[each.bill.invoice_id for each in still if each.bills_again],
                now=now,
            )
            customers = {each.bill.tenant_id: each.customer for each in taken if each.customer is not None}
            await queries.bills.know_customers(connection, self._provider.name, customers, now=now)
            outgoing = [self._kernel.dispatch.tell(fact) for fact in (*facts, *_failures(still))]
            await outbox.insert(connection, outgoing, now=now)
        return outgoing

    def _result(self, taken: _Taken) -> Result:
        now = self._kernel.ports.clock.now()
        if taken.step is Step.DROP:
            return dropped(taken.bill)
        if taken.answer is None:
            return rested(taken.bill, now=now)
        bill = taken.bill
        return answered(bill, taken.step, taken.answer, now=now, retries=self._retries)

    async def _book(self, connection: Connection, results: Iterable[Result]) -> Sequence[Fact]:
        incoming = [_incoming(self._provider.name, each.bill, each.paid) for each in results if each.paid is not None]
        if not incoming:
            return []
        return await receive(connection, incoming, now=self._kernel.ports.clock.now(), ids=self._kernel.ports.ids)


def _decided(bill: Bill, *, now: datetime) -> tuple[Bill, Step]:
    step = next_step(bill, now=now)
    if step is not Step.COLLECT:
        return bill, step
    return replace(bill, asked_at=bill.asked_at or now, is_known=False), step


def _charge(bill: Bill, customer: str) -> Charge:
    return Charge(
        customer=customer,
        invoice_id=bill.invoice_id,
        number=invoice_number(bill.number),
        currency=bill.currency,
        amount=rounded(bill.amount, currency_of(bill.currency).digits),
    )


def _incoming(provider: str, bill: Bill, paid: Paid) -> Incoming:
    assert bill.reference is not None
    return Incoming(
        invoice_id=bill.invoice_id,
        provider=provider,
        reference=bill.reference,
        amount=paid.amount,
        received_at=paid.received_at,
    )


def _row(result: Result) -> Mapping[str, Any]:
    bill = result.bill
    return {
        "invoice_id": bill.invoice_id,
        "edition": bill.edition,
        "held_until": bill.held_until,
        "news": bill.news,
        "reference": bill.reference,
        "state": bill.state,
        "is_known": bill.is_known,
        "ask_at": bill.ask_at,
        "asked_at": bill.asked_at,
        "failures": bill.failures,
        "look_at": result.look_at,
    }


def _failures(results: Iterable[Result]) -> list[Fact]:
    return [
        PaymentFailed(
            tenant_id=each.bill.tenant_id,
            invoice_id=str(each.bill.invoice_id),
            attempt=each.failure.attempt,
            code=each.failure.code[:_LONGEST_CODE],
            next_attempt_at=each.failure.next_at,
        )
        for each in results
        if each.failure is not None
    ]


def _named(bill: Bill) -> Mapping[str, str]:
    return {"tenant_id": bill.tenant_id, "invoice_id": str(bill.invoice_id)}
