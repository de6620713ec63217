"""All one can ask of the billing service, and all it tells."""

from shared.contracts.base import Ask, Fact, Refusal


class OpenAccount(Ask):
    """Open a billing account on a plan. Nothing is charged before the tenant is activated.

    Attributes:
        customer_name: whom invoices are made out to.
        plan: the name of a plan in billing's catalog.
        currency: ISO 4217, or None for the plan's own.
        billing_address: where invoices go, as the customer writes it.
    """

    customer_name: str
    plan: str
    currency: str | None = None
    billing_address: str | None = None


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
