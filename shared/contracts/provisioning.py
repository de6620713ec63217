"""All one can ask of the provisioning service, and all it tells."""

from shared.contracts.base import Ask, Fact, Refusal
from shared.contracts.tenant import ProductVersion


class ProvisionEnvironment(Ask):
    """Create the environment in which the tenant's application runs.

    Attributes:
        isolation: ``pool``, ``bridge`` or ``silo``.
        region: where, or None for the default region.
        products: what is installed there.
    """

    isolation: str
    region: str | None = None
    products: tuple[ProductVersion, ...] = ()


class DeprovisionEnvironment(Ask):
    """Remove the environment with all its data and logins."""

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
