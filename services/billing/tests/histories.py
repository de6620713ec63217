"""Random accounts: what they were charged for and by which terms, and what was used."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from services.billing.money import Currency
from services.billing.pricing import Flat, Graduated, Model, Packages, PerUnit, Tier, Volume
from services.billing.statement import Account
from services.billing.stretch import Stretch
from services.billing.terms import Charge, Terms
from services.billing.tests.oracle import Used

BEGINNING = datetime(2026, 1, 20, tzinfo=UTC)
"""Nothing happens before it to a random account."""

_CURRENCIES = [Currency("USD", 2), Currency("JPY", 0), Currency("KWD", 3)]
_METERS = ["api", "bytes"]
_PLANS = ["basic", "team", "large"]
_ZONES = [
    ZoneInfo(name)
    for name in ("UTC", "Europe/Berlin", "America/New_York", "Africa/Cairo", "Asia/Beirut", "Australia/Lord_Howe")
]
"""With clocks that are changed by an hour or half of one, at night or at midnight."""

steps = st.one_of(st.integers(0, 24 * 45).map(lambda hours: 3600 * hours), st.integers(1, 40 * 86_400)).map(
    lambda seconds: timedelta(seconds=seconds)
)
moments = steps.map(lambda step: BEGINNING + 3 * step)
amounts = st.integers(0, 10**7).map(lambda number: Decimal(number).scaleb(-4))
quantities = st.integers(0, 3000).map(lambda number: Fraction(number, 2))
usages: st.SearchStrategy[Used] = st.dictionaries(
    st.sampled_from([f"2026-{month:02}" for month in range(1, 10)]),
    st.dictionaries(st.sampled_from(_METERS), quantities),
)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Draw a price model of any kind."""
    tiers = [
        Tier(Decimal(10), draw(amounts), draw(amounts)),
        Tier(Decimal("200.5"), draw(amounts)),
        Tier(None, draw(amounts), draw(amounts)),
    ]
    drawn: list[Model] = [
        Flat(draw(amounts)),
        PerUnit(draw(amounts)),
        Graduated(tiers, draw(st.booleans())),
        Volume(tiers, draw(st.booleans())),
        Packages(Decimal(7), draw(amounts), Decimal(draw(st.integers(0, 20)))),
    ]
    return draw(st.sampled_from(drawn))


@st.composite
def versions(draw: st.DrawFn, plan: str) -> Sequence[Terms]:
    """Draw the versions of a plan. A minimum needs all of them to prorate alike, that its share has one meaning."""
    proration = draw(st.sampled_from([[False], [True], [False, True]]))
    minima = st.none() | amounts if len(proration) == 1 else st.none()
    return [
        Terms(
            plan,
            version,
            draw(amounts),
            pays_in_advance=draw(st.booleans()),
            trial_days=draw(st.sampled_from([0, 0, 0, 3, 10, 40])),
            by_second=draw(st.sampled_from(proration)),
            reaches_at=draw(st.none() | moments) if version > 1 else None,
            charges=[
                Charge(meter, draw(models()), Decimal(draw(st.sampled_from([0, 0, 100]))), draw(minima))
                for meter in sorted(draw(st.sets(st.sampled_from(_METERS))))
            ],
        )
        for version in range(1, draw(st.integers(2, 4)))
    ]


@st.composite
def accounts(draw: st.DrawFn, *, is_closed: bool | None = None) -> Account:
    """Draw an account with a history of changes, pauses, and licences."""
    closed = draw(st.booleans()) if is_closed is None else is_closed
    catalog = {plan: draw(versions(plan)) for plan in _PLANS}
    stretches: list[Stretch] = []
    for product in ["", *draw(st.lists(st.sampled_from(["chess", "go"]), unique=True, max_size=2))]:
        moment = BEGINNING + draw(steps)
        number = draw(st.integers(1, 5))
        for index in range(number):
            plan, runs = draw(st.sampled_from(_PLANS)), index == number - 1 and not closed and draw(st.booleans())
            began, moment = moment, moment + (draw(steps) or timedelta(seconds=1))
            stretches.append(
                Stretch(
                    plan,
                    draw(amounts),
                    began,
                    None if runs else moment,
                    product,
                    draw(st.sampled_from(catalog[plan])).version,
                )
            )
            moment += draw(st.just(timedelta()) | st.just(timedelta(hours=2)) | steps)
    return Account(
        draw(st.sampled_from(_CURRENCIES)), draw(st.sampled_from(_ZONES)), stretches, catalog, is_closed=closed
    )
