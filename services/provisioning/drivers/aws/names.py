"""What things of tenants are called on Amazon's infrastructure: pure functions."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from services.provisioning.drivers.aws.terms import AwsTerms, SiloTerms
from services.provisioning.drivers.port import Environment

TENANT, ENVIRONMENT, INSTALLATION = "tenure:tenant", "tenure:environment", "tenure:installation"
"""The tags that all has which is made; to see costs by tenant, activate them as cost allocation tags."""

DELIMITER = "#"
"""Ends a tenant's id in keys; no id can hold it, so that no id is the beginning of another one's keys."""

SHARDS = 8
"""How many partitions of a table each tenant has, ``<tenant>#0`` to ``<tenant>#7``."""

RECORD = "environment"
"""The sort key of our own record of a tenant, in a partition of its own that no tenant reaches."""

GENERATION = "generation"
"""What resources call the number of accounts that an environment has had before."""

TABLE = "tenure"
TENANT_ROLE = "tenure-tenant"
SMTP_USER = "tenure-smtp"
SMTP_PARAMETER = "/tenure/smtp"
PRODUCTS = "/tenure/products/"
CONFIGURATION_SET = "tenure"
EVENT_DESTINATION = "central"
CLOSED = "tenure-closed"

_LONGEST_EMAIL = 64
_LONGEST_NAME = 50
_DIGEST = 12
_TENANT_ID = re.compile(r"[A-Za-z0-9_-]+")
_NO_TAG = re.compile(r"[^\w.:/=+@-]", re.ASCII)


def checked(tenant_id: str) -> str:
    """Return a tenant's id, which can be part of keys, paths and policies.

    Raises:
        ValueError: it cannot; no such tenant exists.
    """
    if not _TENANT_ID.fullmatch(tenant_id):
        raise ValueError("a tenant's id has a character that none has")
    return tenant_id


def partitions(tenant_id: str) -> Sequence[str]:
    """Return the partition keys of all that a tenant keeps."""
    return [f"{checked(tenant_id)}{DELIMITER}{shard}" for shard in range(SHARDS)]


def record_partition(tenant_id: str) -> str:
    """Return the partition key of our own record of a tenant."""
    return f"{checked(tenant_id)}{DELIMITER}"


def prefix(tenant_id: str) -> str:
    """Return what the names of all of a tenant's objects begin with."""
    return f"tenants/{checked(tenant_id)}/"


def tags(terms: AwsTerms, environment: Environment) -> Mapping[str, str]:
    """Return the tags of all that is made for an environment."""
    return {
        TENANT: environment.tenant_id,
        ENVIRONMENT: str(environment.environment_id),
        INSTALLATION: _NO_TAG.sub("_", terms.installation),
    }


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as most of Amazon's services take them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def email(terms: SiloTerms, environment: Environment) -> str:
    """Return the address of an account.

    Each environment has one of its own, and another one for each account of it that was closed before: Amazon lets no
    account have the address of one that was.
    """
    rest = f".{_digest(environment)}@{terms.mail_domain}"
    return f"{terms.mail_prefix}+{environment.tenant_id}"[: _LONGEST_EMAIL - len(rest)] + rest


def account_name(environment: Environment) -> str:
    """Return the name of an account, by which it can be found as long as Amazon has not made it."""
    rest = f" {_digest(environment)}"
    return f"tenure {environment.tenant_id}"[: _LONGEST_NAME - len(rest)] + rest


def bucket(account_id: str, region: str) -> str:
    """Return the name of a silo's bucket; all buckets of the world have different ones."""
    return f"tenure-{account_id}-{region}"


def session_name(tenant_id: str) -> str:
    """Return what a tenant's sessions are called where Amazon logs what they do."""
    return f"tenure-{tenant_id}"[:64]


def _digest(environment: Environment) -> str:
    made_of = f"{environment.environment_id} {environment.resources.get(GENERATION, 0)}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:_DIGEST]
