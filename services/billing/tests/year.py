"""A year of many tenants on a clock that the test moves: what happens to them, and what they owe for it in the end."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from services.billing.money import Currency
from services.billing.price_models import model_of
from services.billing.statement import Account
from services.billing.stretch import Stretch
from services.billing.terms import Charge, Terms
from services.billing.tests.invoicing_kit import House
from services.billing.tests.oracle import Used
from services.billing.tests.payers import Payers
from shared.contracts.base import Ask, Message, Refusal
from shared.contracts.billing import (
    AccountClosed,
    ChangeLicences,
    ChangePlan,
    CloseAccount,
    Licence,
    Overdue,
    PauseBilling,
    PurgeAccount,
    RestorePlan,
    ResumeBilling,
    UnpauseBilling,
    UsageRequested,
)
from shared.messaging.event import decode
from shared.messaging.subscriptions import Changed, Restoration
from shared.postgres import Pool, transaction

OPENS, ENDS = datetime(2026, 1, 1, 9, tzinfo=UTC), datetime(2027, 1, 3, 12, tzinfo=UTC)
LAST_CLOSE = datetime(2027, 1, 1)  # noqa: DTZ001 - in the zone of each tenant
USD = Currency("USD", 2)

_QUIET = datetime(2026, 12, 30, tzinfo=UTC)
"""From then on nothing happens any more, but for invoices."""

_SLOTS = 450
_METERS = ("calls", "bytes")
_PLANS = ("solo", "team", "metered", "flow")
_PRODUCTS = {"chess": "seat", "go": "metered"}
_ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland")

_UNDO: Mapping[type[Ask], type[Ask]] = {ChangePlan: RestorePlan, PauseBilling: UnpauseBilling}
_UNDONE = 0.2

_EACH = {"model": "per_unit", "unitAmount": "0.013"}
_STEPS = {
    "model": "graduated",
    "tiers": [{"upTo": "900.5", "unitAmount": "0.02", "flatAmount": "1"}, {"unitAmount": "0.007"}],
}
_BULK = {"model": "volume", "tiers": [{"upTo": "1500", "unitAmount": "0.11"}, {"unitAmount": "0.05"}]}


@dataclass(frozen=True)
class _Version:
    """A version of a plan as it is published.

    Attributes:
        charges: meter, price model, included units, minimum.
    """

    terms: Terms
    charges: Sequence[tuple[str, Mapping[str, Any], int, str | None]] = ()

    @property
    def complete(self) -> Terms:
        return replace(
            self.terms,
            charges=[
                Charge(meter, model_of(price), Decimal(included), None if minimum is None else Decimal(minimum))
                for meter, price, included, minimum in self.charges
            ],
        )


def _on(month: int, day: int = 1) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


_CATALOG = (
    _Version(Terms("solo", 1, Decimal("29.00"))),
    _Version(Terms("solo", 2, Decimal("35.50"), starts_at=_on(4), reaches_at=_on(6, 11))),
    _Version(Terms("team", 1, Decimal("99.99"), pays_in_advance=True, trial_days=14)),
    _Version(Terms("team", 2, Decimal("120.00"), pays_in_advance=True, starts_at=_on(5, 15))),
    _Version(Terms("metered", 1, Decimal("10.00")), [("calls", _EACH, 500, "7.50")]),
    _Version(
        Terms("metered", 2, Decimal(0), starts_at=_on(7), reaches_at=_on(9)),
        [("bytes", _BULK, 0, None), ("calls", _STEPS, 100, "3.10")],
    ),
    _Version(Terms("flow", 1, Decimal("61.37"), pays_in_advance=True, by_second=True), [("bytes", _BULK, 0, "9")]),
    _Version(Terms("seat", 1, Decimal("7.77"), pays_in_advance=True)),
)
VERSIONS = {
    plan: [each.complete for each in _CATALOG if each.terms.plan == plan] for plan in {v.terms.plan for v in _CATALOG}
}


async def publish(pool: Pool) -> None:
    """Have the plans of the year in the catalog."""
    async with transaction(pool) as connection:
        for rank, each in enumerate(_CATALOG, start=100):
            terms = each.terms
            await connection.execute(
                "INSERT INTO plan VALUES ($1, $2, 'month', 'USD') ON CONFLICT DO NOTHING", terms.plan, rank
            )
            await connection.execute(
                "INSERT INTO plan_price VALUES ($1, 'USD', $2) ON CONFLICT DO NOTHING", terms.plan, terms.amount
            )
            await connection.execute(
                """
                INSERT INTO plan_version (plan, version, pays, trial_days, proration, starts_at, reaches_at)
                VALUES ($1, $2, $3, $4, $5, coalesce($6, '-infinity'::timestamptz), $7)
                """,
                terms.plan,
                terms.version,
                "advance" if terms.pays_in_advance else "arrears",
                terms.trial_days,
                "second" if terms.by_second else "day",
                terms.starts_at,
                terms.reaches_at,
            )
            await connection.execute(
                "INSERT INTO plan_version_price VALUES ($1, $2, 'USD', $3)", terms.plan, terms.version, terms.amount
            )
            await connection.executemany(
                """
                INSERT INTO plan_charge (plan, version, currency, meter, price, included, minimum)
                VALUES ($1, $2, 'USD', $3, $4, $5, $6)
                """,
                [
                    (terms.plan, terms.version, meter, price, Decimal(included), minimum and Decimal(minimum))
                    for meter, price, included, minimum in each.charges
                ],
            )


@dataclass
class Tenant:
    """A tenant, and what it was charged for by what it was told.

    Attributes:
        next_slot: when something happens to it next.
        used: how much of which meter, when, and when that was stored.
        taken: the version by which it takes each product now.
        since: when what runs began, by product.
        stretches: those that are over.
        to_undo: what was done of a kind and is to be undone next.
        is_unpaid: whether it is paused because it has not paid.
    """

    tenant_id: str
    zone: ZoneInfo
    next_slot: int
    used: list[tuple[str, Decimal, datetime, datetime]] = field(default_factory=list)
    taken: dict[str, Terms] = field(default_factory=dict)
    since: dict[str, datetime] = field(default_factory=dict)
    stretches: list[Stretch] = field(default_factory=list)
    state: str = "none"
    closed_at: datetime | None = None
    to_undo: tuple[type[Ask], Changed] | None = None
    is_unpaid: bool = False

    def stop(self, product: str, now: datetime) -> None:
        """Let what runs of a product be over."""
        since, terms = self.since.pop(product, None), self.taken[product]
        if since is not None and since < now:
            self.stretches.append(Stretch(terms.plan, terms.amount, since, now, product, terms.version))

    def take(self, product: str, plan: str, now: datetime) -> None:
        """Take a product by what its plan costs whoever takes it now."""
        if product in self.taken and self.taken[product].plan == plan:
            return
        if product in self.taken:
            self.stop(product, now)
        self.taken[product] = next(
            each for each in reversed(VERSIONS[plan]) if each.starts_at is None or each.starts_at <= now
        )
        if self.state == "active":
            self.since[product] = now

    def license(self, wanted: Mapping[str, str], now: datetime) -> None:
        """Take exactly these products by these plans."""
        for product in self.taken.keys() - {"", *wanted}:
            self.stop(product, now)
            del self.taken[product]
        for product, plan in wanted.items():
            self.take(product, plan, now)

    def rest(self, state: str, now: datetime) -> None:
        """Let all that runs be over."""
        self.state = state
        for product in list(self.since):
            self.stop(product, now)

    @property
    def account(self) -> Account:
        """What it was charged for."""
        running = [
            Stretch(
                self.taken[product].plan, self.taken[product].amount, since, None, product, self.taken[product].version
            )
            for product, since in self.since.items()
        ]
        return Account(USD, self.zone, [*self.stretches, *running], VERSIONS, is_closed=self.closed_at is not None)

    @property
    def closes_at(self) -> datetime:
        """When its last invoice was closed."""
        return self.closed_at or LAST_CLOSE.replace(tzinfo=self.zone).astimezone(UTC)

    def usage(self) -> Used:
        """Return what it had used by its last invoice, by month."""
        found: dict[str, dict[str, Fraction]] = {}
        for meter, quantity, at, stored_at in self.used:
            if stored_at <= (self.closed_at or ENDS):
                of_month = found.setdefault(f"{at.astimezone(self.zone):%Y-%m}", {})
                of_month[meter] = of_month.get(meter, Fraction()) + Fraction(quantity)
        return found


class Year:
    """The year.

    Args:
        count: how many tenants.
        seed: of everything that happens.

    Attributes:
        payers: who pay for it, or do not.
        refused: how often a plan stayed because something was past due.
    """

    def __init__(self, pool: Pool, *, count: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self._pool = pool
        self._house = House(pool, start=OPENS)
        self.payers = Payers(self._house, seed=seed)
        self.refused = 0
        self.tenants = [self._tenant(f"t{number:04}") for number in range(count)]
        self._by_id = {each.tenant_id: each for each in self.tenants}

    def _tenant(self, tenant_id: str) -> Tenant:
        chance = self._chance
        tenant = Tenant(tenant_id, ZoneInfo(chance.choice(_ZONES)), chance.randrange(_SLOTS * 3 // 5))
        for month in range(1, 13):
            for _ in range(chance.randrange(5)):
                at = _on(month) + timedelta(seconds=chance.randrange(28 * 86_400))
                late = timedelta(days=35) if chance.random() < 0.3 else timedelta(hours=1)
                stored_at = min(at + chance.random() * late, datetime(2026, 12, 31, tzinfo=UTC))
                quantity = Decimal(chance.randrange(4000)) / 2
                tenant.used.append((chance.choice(_METERS), quantity, at, max(stored_at, at)))
        return tenant

    async def run(self) -> None:
        """Let it all happen."""
        await publish(self._pool)
        whole = (_QUIET - OPENS).total_seconds()
        moments = sorted(OPENS + timedelta(seconds=self._chance.uniform(1, whole)) for _ in range(_SLOTS))
        for slot, moment in enumerate(moments):
            await self._house.move_to(moment)
            await self._happen(slot, self._house.clock.now())
            await self._settle()
        for kind in _UNDO.values():
            await self._undo(kind, [each for each in self.tenants if each.to_undo and each.to_undo[0] is kind])
        while self._house.clock.now() < ENDS:
            await self._house.move_to(min(ENDS, self._house.clock.now() + timedelta(hours=13)))
            await self._settle()

    async def _happen(self, slot: int, now: datetime) -> None:
        due = [each for each in self.tenants if each.next_slot == slot]
        asks: dict[type[Ask], list[Ask]] = {}
        undos: dict[type[Ask], list[Tenant]] = {}
        for tenant in due:
            tenant.next_slot = slot + self._chance.randrange(1, 70)
            if tenant.to_undo is not None:
                undos.setdefault(tenant.to_undo[0], []).append(tenant)
            elif tenant.state != "none" and (asked := self._ask(tenant)) is not None:
                asks.setdefault(type(asked), []).append(asked)
        await self._open([each for each in due if each.state == "none"], now)
        for kind, tenants in undos.items():
            await self._undo(kind, tenants)
        for kind, of_kind in asks.items():
            await self._do(kind, of_kind, now)

    async def _open(self, tenants: Sequence[Tenant], now: datetime) -> None:
        for tenant in tenants:
            plan = self._chance.choice(_PLANS)
            products = self._products()
            await self._house.open_only(
                tenant.tenant_id,
                plan=plan,
                currency="USD",
                time_zone=tenant.zone.key,
                licences=[{"product": product, "plan": _PRODUCTS[product]} for product in products],
            )
            tenant.state = "active"
            for product, wanted in {"": plan, **{each: _PRODUCTS[each] for each in products}}.items():
                tenant.take(product, wanted, now)
        if tenants:
            await self._house.activate(*(each.tenant_id for each in tenants))

    def _products(self) -> Sequence[str]:
        return self._chance.sample(sorted(_PRODUCTS), self._chance.choice([0, 0, 1, 2]))

    def _ask(self, tenant: Tenant) -> Ask | None:
        """Return what is asked next of a tenant."""
        tenant_id, chance = tenant.tenant_id, self._chance
        if tenant.state == "closed":
            tenant.next_slot = _SLOTS
            return PurgeAccount(tenant_id=tenant_id)
        if tenant.state == "paused" and not tenant.is_unpaid and chance.random() < 0.6:
            return ResumeBilling(tenant_id=tenant_id)
        what = chance.random()
        if what < 0.4:
            return ChangePlan(tenant_id=tenant_id, plan=chance.choice(_PLANS))
        if what < 0.65:
            wanted = tuple(Licence(product=each, plan=_PRODUCTS[each]) for each in self._products())
            return ChangeLicences(tenant_id=tenant_id, licences=wanted)
        if what < 0.85:
            return PauseBilling(tenant_id=tenant_id)
        return CloseAccount(tenant_id=tenant_id)

    async def _undo(self, kind: type[Ask], tenants: Sequence[Tenant]) -> None:
        befores = [
            Restoration(each.tenant_id, orjson.loads(orjson.dumps(each.to_undo[1].before)))
            for each in tenants
            if each.to_undo is not None
        ]
        await self._house._handle(kind, befores)
        for each in tenants:
            each.to_undo = None

    async def _do(self, kind: type[Ask], asks: Sequence[Ask], now: datetime, *, undone: float = _UNDONE) -> None:
        done = await self._house._handle(kind, asks)
        if kind is CloseAccount:
            await self._tell([told for each in done if isinstance(each, Changed) for told in each.tells])
            done = await self._house._handle(kind, asks)
            assert all(isinstance(each, Changed) and isinstance(each.answer, AccountClosed) for each in done)
        for asked, answered in zip(asks, done, strict=True):
            tenant = self._by_id[asked.tenant_id]
            if isinstance(answered, Changed) and isinstance(answered.answer, Refusal):
                assert answered.answer.code == "past_due"
                self.refused += 1
                continue
            undo = _UNDO.get(kind)
            if undo and isinstance(answered, Changed) and answered.before and self._chance.random() < undone:
                tenant.to_undo = undo, answered
            else:
                _follow(tenant, asked, now)

    async def _settle(self) -> None:
        """Make the invoices that are due, have metrics answer what it is asked, and see who pays."""
        while await self._house.invoicing.round() or await self.payers.round() or await self._report():
            pass
        await self._follow_up(self._house.clock.now())

    async def _follow_up(self, now: datetime) -> None:
        """Do to tenants what onboarding does to those that do not pay, and to those that have paid then."""
        overdue = self.payers.overdue
        free = [each for each in self.tenants if each.to_undo is None and each.tenant_id in overdue]
        for tenant in free:
            asked = _due(tenant, overdue[tenant.tenant_id])
            if asked is not None:
                await self._do(type(asked), [asked], now, undone=0)
                tenant.is_unpaid = isinstance(asked, PauseBilling)

    async def _report(self) -> bool:
        rows = await self._pool.fetch("DELETE FROM outbox RETURNING id, event")
        return await self._tell(
            decode(orjson.loads(row["event"])).message for row in sorted(rows, key=itemgetter("id"))
        )

    async def _tell(self, messages: Iterable[Message]) -> bool:
        """Have metrics say what was used by whom it is asked of; return whether it was asked."""
        said = list(messages)
        self.payers.hear(said)
        requests = [each for each in said if isinstance(each, UsageRequested)]
        for each in requests:
            self._house.metrics.used = [(each.tenant_id, *one) for one in self._by_id[each.tenant_id].used]
            await self._house.report(each)
        return bool(requests)


def _due(tenant: Tenant, overdue: Overdue) -> Ask | None:
    """Return what is to be done to a tenant that is so far behind."""
    if overdue == "termination" and tenant.state in {"active", "paused"}:
        return CloseAccount(tenant_id=tenant.tenant_id)
    if overdue == "past_due" and tenant.state == "active":  # who hears that would like something cheaper, in vain
        return ChangePlan(tenant_id=tenant.tenant_id, plan="solo" if tenant.taken[""].plan != "solo" else "team")
    if overdue == "suspension" and tenant.state == "active":
        return PauseBilling(tenant_id=tenant.tenant_id)
    if overdue in {"clear", "past_due"} and tenant.state == "paused" and tenant.is_unpaid:
        return ResumeBilling(tenant_id=tenant.tenant_id)
    return None


def _follow(tenant: Tenant, asked: Ask, now: datetime) -> None:
    """Have a tenant charged as it was asked."""
    match asked:
        case ChangePlan(plan=plan):
            tenant.take("", plan, now)
        case ChangeLicences(licences=licences):
            tenant.license({each.product: each.plan for each in licences}, now)
        case PauseBilling():
            tenant.rest("paused", now)
        case ResumeBilling():
            tenant.state, tenant.since = "active", dict.fromkeys(tenant.taken, now)
        case CloseAccount():
            tenant.closed_at = now
            tenant.rest("closed", now)
