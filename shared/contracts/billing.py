"""All one can ask of the billing service, and all it tells."""

from datetime import datetime
from typing import Literal

from shared.contracts.base import Ask, Decision, Fact, KeysUsed, Part, Refusal


class Licence(Part):
    """What a customer pays for one product, beside the plan of the account.

    Attributes:
        product: its name.
        plan: the name of a plan in billing's catalog.
    """

    product: str
    plan: str


class OpenAccount(Ask):
    """Open a billing account on a plan. Nothing is charged before the tenant is activated.

    Attributes:
        customer_name: whom invoices are made out to.
        plan: the name of a plan in billing's catalog.
        currency: ISO 4217, or None for the plan's own.
        billing_address: where invoices go, as the customer writes it.
        licences: subscriptions of products, each product at most once; charged like the account's plan.
        time_zone: in whose days and months the account is charged.
    """

    customer_name: str
    plan: str
    currency: str | None = None
    billing_address: str | None = None
    licences: tuple[Licence, ...] = ()
    time_zone: str = "UTC"


class VoidAccount(Ask):
    """Remove an account that was never charged."""

    undoes = OpenAccount


class AccountOpened(Fact):
    """The account stands on its plan and waits for the activation.

    Attributes:
        account_id: billing's name for it.
    """

    answers = OpenAccount

    account_id: str


class AccountRefused(Refusal):
    """No account was opened; codes ``unknown_plan``, ``unsupported_currency``, ``unknown_time_zone``."""

    answers = OpenAccount


class AccountVoided(Fact):
    """No account of the tenant is left."""

    answers = VoidAccount


class SubscriptionStarted(Fact):
    """The tenant is charged from now on.

    Attributes:
        plan: the plan that is charged.
    """

    plan: str


class ChangePlan(Ask):
    """Charge an account by another plan from now on, in the account's currency.

    Attributes:
        plan: the name of a plan in billing's catalog.
    """

    plan: str


class RestorePlan(Ask):
    """Charge by the plan again that the account was found on, as if it had never been another."""

    undoes = ChangePlan


class PlanChanged(Fact):
    """The account is on the plan."""

    answers = ChangePlan


class PlanChangeRefused(Refusal):
    """The plan stays; codes ``unknown_account``, ``unknown_plan``, ``unsupported_currency``, ``past_due``."""

    answers = ChangePlan


class PlanRestored(Fact):
    """The account is on no other plan by that ask any more."""

    answers = RestorePlan


class ChangeLicences(Ask):
    """Charge an account for exactly these products from now on, beside its plan and in its currency.

    Attributes:
        licences: each product at most once; one that is licensed by the same plan already stays as it is.
    """

    licences: tuple[Licence, ...]


class RestoreLicences(Ask):
    """Charge for the products again that were found, as if there had never been others."""

    undoes = ChangeLicences


class LicencesChanged(Fact):
    """The account is charged for exactly these products."""

    answers = ChangeLicences


class LicencesChangeRefused(Refusal):
    """The licences stay; codes ``unknown_account``, ``unknown_plan``, ``unsupported_currency``, ``past_due``."""

    answers = ChangeLicences


class LicencesRestored(Fact):
    """The account is charged for no other products by that ask any more."""

    answers = RestoreLicences


class PauseBilling(Ask):
    """Charge nothing from now on, until billing is resumed.

    Attributes:
        reason: why, for those who ask.
    """

    reason: str | None = None


class UnpauseBilling(Ask):
    """Take the pause back, as if there had been none."""

    undoes = PauseBilling


class BillingPaused(Fact):
    """Nothing is charged."""

    answers = PauseBilling


class BillingPauseRefused(Refusal):
    """Nothing was changed; codes ``unknown_account``, ``wrong_state``."""

    answers = PauseBilling


class BillingUnpaused(Fact):
    """Billing is not paused by that ask any more."""

    answers = UnpauseBilling


class ResumeBilling(Ask):
    """Charge a paused account again from now on."""


class WithdrawResumption(Ask):
    """Take the resumption back, as if the pause had gone on."""

    undoes = ResumeBilling


class BillingResumed(Fact):
    """The account is charged again."""

    answers = ResumeBilling


class BillingResumptionRefused(Refusal):
    """Nothing was changed; codes ``unknown_account``, ``wrong_state``."""

    answers = ResumeBilling


class ResumptionWithdrawn(Fact):
    """The account is not charged by that ask any more."""

    answers = WithdrawResumption


class UpdateAccount(Ask):
    """Make invoices out to another name.

    Attributes:
        customer_name: whom invoices are made out to.
    """

    customer_name: str


class RestoreAccount(Ask):
    """Make invoices out to the name again that was found."""

    undoes = UpdateAccount


class AccountUpdated(Fact):
    """Invoices are made out to the name."""

    answers = UpdateAccount


class AccountUpdateRefused(Refusal):
    """Nothing was changed; codes ``unknown_account``."""

    answers = UpdateAccount


class AccountRestored(Fact):
    """The account is not changed by that ask any more."""

    answers = RestoreAccount


class CloseAccount(Ask):
    """End all charging and draft the final invoice for what is owed until now."""


class ReopenAccount(Ask):
    """Take the closing back with its draft, as if charging had gone on."""

    undoes = CloseAccount


class AccountClosed(Fact):
    """Nothing is charged any more.

    Attributes:
        invoice_id: of the draft of the final invoice.
        currency: ISO 4217.
        total: what is owed, a decimal in the digits of the currency.
    """

    answers = CloseAccount

    invoice_id: str
    currency: str
    total: str


class AccountClosingRefused(Refusal):
    """Nothing was changed; codes ``unknown_account``, and ``usage_pending`` until it is known what was used."""

    answers = CloseAccount


class AccountReopened(Fact):
    """The account is not closed by that ask any more."""

    answers = ReopenAccount


class PurgeAccount(Ask):
    """Issue the final invoice and forget the account; only issued invoices remain, as the law wants. Final."""


class AccountPurged(Fact):
    """Nothing of the account is left but its issued invoices.

    Attributes:
        invoice_id: of the final invoice; None if the account was never closed with one.
        deleted: how many ``accounts`` and ``subscriptions``.
    """

    answers = PurgeAccount

    invoice_id: str | None = None
    deleted: dict[str, int]


class UsagePeriod(Part):
    """A stretch of time whose usage is wanted.

    Attributes:
        since: its first moment, on a full hour of the tenant's time zone.
        until: the first moment that is not part of it, likewise.
    """

    since: datetime
    until: datetime


class UsageRequested(Fact):
    """What a tenant has used is wanted for its next invoice; metrics tells it with `UsageReported`.

    Attributes:
        periods: what was used in each of them.
        requested_at: by the clock of billing.
    """

    periods: tuple[UsagePeriod, ...]
    requested_at: datetime


class InvoiceIssued(Fact):
    """An invoice is final and has its number.

    Attributes:
        number: without gaps, over all tenants.
        currency: ISO 4217.
        total: a decimal in the digits of the currency; below zero where more is given back than charged.
        issued_at: by the clock of billing.
    """

    invoice_id: str
    number: str
    currency: str
    total: str
    issued_at: datetime


class InvoiceSettled(Fact):
    """Of an invoice nothing is due any more: it was paid, credited, or both.

    Attributes:
        invoice_id: of the invoice.
        number: of it.
        settled_at: by the clock of billing.
    """

    invoice_id: str
    number: str
    settled_at: datetime


class PaymentReceived(Fact):
    """Money has come in.

    Attributes:
        payment_id: billing's name for it.
        invoice_id: what it is for; what was not due of it becomes credit.
        provider: who took it: ``manual`` or a payment provider.
        currency: ISO 4217.
        amount: a decimal in the digits of the currency, above zero.
        received_at: when it came in.
    """

    payment_id: str
    invoice_id: str
    provider: str
    currency: str
    amount: str
    received_at: datetime


class PaymentFailed(Fact):
    """A payment provider was asked for what is due of an invoice and did not get it.

    Attributes:
        invoice_id: of the invoice.
        attempt: how often it was asked, this time included.
        code: why, in the provider's words; such as ``card_declined``.
        next_attempt_at: when it is asked again; None for never.
    """

    invoice_id: str
    attempt: int
    code: str
    next_attempt_at: datetime | None


class CreditIssued(Fact):
    """A tenant owes less, or has more credit, than its invoices say.

    Attributes:
        credit_id: of the grant, or of the credit note.
        invoice_id: what a credit note is about; None for a grant.
        currency: ISO 4217.
        amount: a decimal in the digits of the currency, above zero.
    """

    credit_id: str
    invoice_id: str | None
    currency: str
    amount: str


Overdue = Literal["clear", "past_due", "suspension", "termination"]


class OverdueChanged(Fact):
    """A tenant is further behind with its payments than before, or not behind any more.

    Attributes:
        overdue: ``clear``; ``past_due``: it is told, and its plan stays; ``suspension``: it is to be suspended until it
            has paid; ``termination``: it is to be off-boarded.
        edition: grows with every change, so that an older one that comes late is known.
        changed_at: by the clock of billing.
    """

    overdue: Overdue
    edition: int
    changed_at: datetime


class SpendingLimitReached(Fact):
    """What a tenant has spent this month comes near its limit, or has reached it.

    Attributes:
        currency: ISO 4217.
        spent: what the invoice at the end of the month would say, with what was invoiced early of it; a decimal in the
            digits of the currency.
        limit: likewise.
        percent: of the limit: 80 or 100.
        action: what is done at 100: ``alert``, ``invoice_now`` or ``block``.
        month: as in ``2026-03``, in the tenant's time zone.
    """

    currency: str
    spent: str
    limit: str
    percent: int
    action: Literal["alert", "invoice_now", "block"]
    month: str


class SpendingBlockChanged(Fact):
    """A tenant's usage is to be refused, because it has spent what it may; or is to be taken again.

    Attributes:
        is_blocked: whether.
        edition: grows with every change, so that an older one that comes late is known.
    """

    is_blocked: bool
    edition: int


class RecurringRevenueChanged(Fact):
    """A tenant is charged another amount a month, by all that it is subscribed to.

    Attributes:
        currency: ISO 4217.
        amount: of base fees a month, a decimal in the digits of the currency; 0 where nothing is charged.
        changed_at: since when, by the clock of billing.
        edition: grows with every change, so that an older one that comes late is known.
    """

    currency: str
    amount: str
    changed_at: datetime
    edition: int


class DecisionRecorded(Decision):
    """Somebody has decided something at the billing service, and it is done."""


class ApiKeysUsed(KeysUsed):
    """These API keys were used at the billing service."""
