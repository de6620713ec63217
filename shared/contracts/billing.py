"""All one can ask of the billing service, and all it tells."""

from shared.contracts.base import Ask, Fact, KeysUsed, Part, Refusal


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
    """

    customer_name: str
    plan: str
    currency: str | None = None
    billing_address: str | None = None
    licences: tuple[Licence, ...] = ()


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
    """No account was opened; codes ``unknown_plan``, ``unsupported_currency``."""

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
    """The plan stays; codes ``unknown_account``, ``unknown_plan``, ``unsupported_currency``."""

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
    """The licences stay; codes ``unknown_account``, ``unknown_plan``, ``unsupported_currency``."""

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
    """Nothing was changed; codes ``unknown_account``."""

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


class ApiKeysUsed(KeysUsed):
    """These API keys were used at the billing service."""
