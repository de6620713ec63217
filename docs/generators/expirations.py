"""What the end of a contract does, found by asking `review` about accounts on the days that matter."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from docs.generators.catalogue import outside_key
from docs.generators.markdown import link, table
from services.onboarding.expiration import Review, Terms, review
from services.onboarding.settings import OnboardingSettings
from shared.contracts.onboarding import TenantExpiring

_END = date(2001, 1, 1)
_SUSPENDED_FOR = {None: "active", "expiration": "suspended, because it expired", "operator": "suspended by an operator"}


def _default(name: str) -> int:
    default = OnboardingSettings.model_fields[name].default
    assert isinstance(default, int)
    return default


def _variable(name: str) -> str:
    return f"`{OnboardingSettings.model_config['env_prefix']}{name.upper()}`"


_WARNING_DAYS, _GRACE_DAYS = _default("warning_days"), _default("grace_days")
_TERMS = Terms(warning=timedelta(days=_WARNING_DAYS), grace=timedelta(days=_GRACE_DAYS))
_MOMENTS: Mapping[str, int] = {
    "earlier": -_WARNING_DAYS - 1,
    f"{_WARNING_DAYS} days before": -_WARNING_DAYS,
    "when the day begins, in UTC": 0,
    f"{_GRACE_DAYS} days after": _GRACE_DAYS,
}

_PROSE = f"""\
A contract ends on the day of its `expiration`; one without has no end. Everybody outside is warned
{_variable("warning_days")} days before ({_WARNING_DAYS} unless set otherwise), once for each date, by
{link(TenantExpiring, page="messages.md")} on the routing key `{outside_key(TenantExpiring)}`. When the day begins the
tenant is suspended, and {_variable("grace_days")} days later ({_GRACE_DAYS} unless set otherwise) it is off-boarded,
with an export of its data and without a further grace period. Both are ordinary workflows: they can be followed,
cancelled and undone like any other.

What is done depends on the moment and on the tenant:
"""

_RENEWAL = """\
A contract is renewed by `PUT /v1/accounts` with a later `expiration`: a tenant that was suspended because it expired
is let in again, one that an operator has suspended is not. A tenant that a workflow is at work on is looked at again
a little later, and what came to nothing, or was cancelled, is ordered again: only a renewal keeps the tenant.

[Unpaid invoices](billing.md#dunning) suspend and off-board in the same way. Of the two the contract comes first, and
nobody is let in again by one of them who is kept out by the other.
"""


def end_of_contract() -> str:
    """Return the section about the end of a contract."""
    header = ["moment", *(f"of a tenant that is {state}" for state in _SUSPENDED_FOR.values())]
    rows = [
        [moment, *(_done(_review(days, suspended_for)) for suspended_for in _SUSPENDED_FOR)]
        for moment, days in _MOMENTS.items()
    ]
    return f"## The end of a contract\n\n{_PROSE}\n{table(header, rows)}\n{_RENEWAL}"


def ordered_by_expiration() -> set[str]:
    """Return the kinds of workflows that the end of a contract, or its renewal, orders."""
    reviews = [_review(days, suspended_for) for days in _MOMENTS.values() for suspended_for in _SUSPENDED_FOR]
    return {made.order.definition.kind for made in reviews if made.order}


def _review(days: int, suspended_for: str | None) -> Review:
    account: Mapping[str, Any] = {
        "tenant_id": "tenant",
        "expiration": _END,
        "suspended_for": suspended_for,
        "warned_for": None,
        "is_busy": False,
        "is_onboarded": True,
    }
    now = datetime.combine(_END, time(), tzinfo=UTC) + timedelta(days=days)
    return review(account, now=now, terms=_TERMS)


def _done(made: Review) -> str:
    done: Sequence[str] = [
        *(["a warning"] if made.warns else []),
        *([f"[{made.order.definition.name}](#{made.order.definition.name})"] if made.order else []),
    ]
    return ", ".join(done) or "nothing"
