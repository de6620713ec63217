"""All one can ask of the provisioning service, and all it tells."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from shared.contracts.base import Ask, Decision, Fact, KeysUsed, Refusal
from shared.contracts.tenant import PlacedProduct


class ProvisionEnvironment(Ask):
    """Create the environment in which the tenant's application runs, and those that products have of their own.

    Attributes:
        isolation: ``pool``, ``bridge`` or ``silo``.
        region: where, or None for the default region.
        products: what runs there, or in environments of its own; each product at most once.
        connections: how many connections each login may hold, or None for the default.
        driver: what makes it.
        parameters: what the tier says for the driver, in the driver's own words.
    """

    isolation: str
    region: str | None = None
    products: tuple[PlacedProduct, ...] = ()
    connections: int | None = None
    driver: str = "postgres"
    parameters: dict[str, Any] = Field(default_factory=dict)


class DeprovisionEnvironment(Ask):
    """Remove the environment, and those of products, with all data and logins."""

    undoes = ProvisionEnvironment


class EnvironmentProvisioned(Fact):
    """The environment is ready to be used.

    Attributes:
        environment_id: provisioning's name for it.
        isolation: what was made; a higher tier may get a stronger one than it asked for.
        region: where it was made.
    """

    answers = ProvisionEnvironment

    environment_id: str
    isolation: str
    region: str


class EnvironmentRefused(Refusal):
    """Nothing was made; codes ``unknown_region``, ``unsupported_isolation``."""

    answers = ProvisionEnvironment


class EnvironmentDeprovisioned(Fact):
    """Nothing of the environment is left."""

    answers = DeprovisionEnvironment


class MoveEnvironment(Ask):
    """Turn the tenant's environment into what another tier is entitled to.

    Attributes:
        isolation: ``pool``, ``bridge`` or ``silo``.
        connections: how many connections each login may hold, or None for the default.
        driver: what makes it.
        parameters: what the tier says for the driver, in the driver's own words.
    """

    isolation: str
    connections: int | None = None
    driver: str = "postgres"
    parameters: dict[str, Any] = Field(default_factory=dict)


class MoveEnvironmentBack(Ask):
    """Turn the environment into what it was found as."""

    undoes = MoveEnvironment


class EnvironmentMoved(Fact):
    """The environment is as it was asked for.

    Attributes:
        isolation: what it is now.
        frozen_milliseconds: how long nobody could work in it, where data was carried.
    """

    answers = MoveEnvironment

    isolation: str
    frozen_milliseconds: int | None = None


class EnvironmentMoveRefused(Refusal):
    """The environment stays; codes ``unknown_environment``, ``unsupported_isolation``."""

    answers = MoveEnvironment


class EnvironmentMovedBack(Fact):
    """The environment is not changed by that ask any more."""

    answers = MoveEnvironmentBack


class DeployProducts(Ask):
    """Let exactly these products run, in the tenant's environment or in environments of their own.

    An environment is made where a product has none. One whose product is not among them is throttled, and kept.

    Attributes:
        products: each product at most once.
    """

    products: tuple[PlacedProduct, ...]


class RestoreDeployments(Ask):
    """Let the products run again that were found."""

    undoes = DeployProducts


class ProductsDeployed(Fact):
    """Exactly the products that were asked for run."""

    answers = DeployProducts


class DeploymentRefused(Refusal):
    """What runs stays.

    Codes ``unknown_environment``, ``unknown_region``, ``unknown_driver``, ``unsupported_isolation``, or a driver's own.
    """

    answers = DeployProducts


class DeploymentsRestored(Fact):
    """Nothing else runs by that ask any more."""

    answers = RestoreDeployments


class RemoveProducts(Ask):
    """Remove the environments of products that the tenant has no more, with all data. Final: nothing brings them back.

    Attributes:
        products: the names of those that it has.
    """

    products: tuple[str, ...]


class ProductsRemoved(Fact):
    """No environment is left of any other product.

    Attributes:
        deleted: how many ``environments``, ``deployments`` and rows, by table.
    """

    answers = RemoveProducts

    deleted: dict[str, int]


class ThrottleEnvironment(Ask):
    """Let nobody work in the environment: logins end, and none is issued. Everything in it is kept.

    Attributes:
        reason: why, for those who ask for a login.
    """

    reason: str | None = None


class UnthrottleEnvironment(Ask):
    """Take the throttle back: the environment is as open as it was found."""

    undoes = ThrottleEnvironment


class EnvironmentThrottled(Fact):
    """Nobody works in the environment."""

    answers = ThrottleEnvironment


class EnvironmentThrottlingRefused(Refusal):
    """Nothing was changed; codes ``unknown_environment``."""

    answers = ThrottleEnvironment


class EnvironmentUnthrottled(Fact):
    """The environment is not throttled by that ask any more."""

    answers = UnthrottleEnvironment


class ReleaseEnvironment(Ask):
    """Let the tenant work in its environment again."""


class RethrottleEnvironment(Ask):
    """Take the release back: the environment is as throttled as it was found."""

    undoes = ReleaseEnvironment


class EnvironmentReleased(Fact):
    """Logins are issued again."""

    answers = ReleaseEnvironment


class EnvironmentReleaseRefused(Refusal):
    """Nothing was changed; codes ``unknown_environment``."""

    answers = ReleaseEnvironment


class EnvironmentRethrottled(Fact):
    """The environment is not released by that ask any more."""

    answers = RethrottleEnvironment


class ExportData(Ask):
    """Make an export of everything that the tenant keeps in its environment."""


class DiscardExport(Ask):
    """Delete the export that was made."""

    undoes = ExportData


class DataExported(Fact):
    """The export can be fetched until it expires.

    Attributes:
        export_id: provisioning's name for it.
        rows: how many, by table.
        sha256: of the export, hexadecimal.
    """

    answers = ExportData

    export_id: str
    rows: dict[str, int]
    sha256: str


class DataExportRefused(Refusal):
    """No export was made; codes ``unknown_environment``."""

    answers = ExportData


class ExportDiscarded(Fact):
    """Nothing of an export made by that ask is left."""

    answers = DiscardExport


class RemoveEnvironment(Ask):
    """Remove the environment with all its data and logins. Final: nothing brings them back."""


class EnvironmentRemoved(Fact):
    """Nothing of the environment is left, but an export, if one was made.

    Attributes:
        deleted: how many ``environments``, ``deployments`` and rows, by table.
    """

    answers = RemoveEnvironment

    deleted: dict[str, int]


_LONGEST_WORDS = 200


def _shown(text: str) -> str:
    """Make one line of whatever a driver says: without what no screen should show, and not too long."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:_LONGEST_WORDS]


Words = Annotated[str, AfterValidator(_shown)]
"""One line for people, at most 200 characters: what does not fit is left out, and nothing is refused."""


class StepProgressed(Fact):
    """What was asked on behalf of a workflow is being worked on, and will be answered later.

    It travels with the workflow and the step of the ask, as an answer does, and may be repeated to say that the work
    goes on. Nobody waits for it; whoever waits for the answer goes on waiting.

    Attributes:
        stage: how far it is, stable within one driver.
        detail: the same in a few words for people, without secrets.
    """

    stage: Words
    detail: Words | None = None


class MailReported(Fact):
    """So much has happened to the tenant's mails that was not told before.

    Attributes:
        hour: in which it happened: the hour's beginning, in UTC.
        counts: how much, by event: ``send``, ``delivery``, ``permanent_bounce``, ``transient_bounce``, ``complaint``,
            ``suppression``, ``reject``, ``rendering_failure``, ``delivery_delay``, ``open``, ``click``,
            ``subscription``.
        product: from whose own account they are sent; None for the tenant's.
    """

    hour: datetime
    counts: dict[str, int]
    product: str | None = None


class MailSendingPaused(Fact):
    """What came of the tenant's mails was over a limit: it can send none until an operator lets it again.

    Attributes:
        code: what was over it: ``bounce_rate`` or ``complaint_rate``.
        sends: to how many recipients mail was sent in the time that was looked at.
        bounces: how many of these bounced for good.
        complaints: how many complained.
        limit_percent: of sends, for what the code names.
        hours: how far back was looked.
        occurred_at: when it was decided; the account follows within moments.
        product: from whose own account they are sent; None for the tenant's.
    """

    code: str
    sends: int
    bounces: int
    complaints: int
    limit_percent: float
    hours: int
    occurred_at: datetime
    product: str | None = None


class MailSendingResumed(Fact):
    """An operator lets the tenant send mail again.

    Attributes:
        occurred_at: when it was decided; the account follows within moments.
        product: from whose own account they are sent; None for the tenant's.
    """

    occurred_at: datetime
    product: str | None = None


class ApiKeysUsed(KeysUsed):
    """These API keys were used at the provisioning service."""


class DecisionRecorded(Decision):
    """Somebody has decided something at the provisioning service."""
