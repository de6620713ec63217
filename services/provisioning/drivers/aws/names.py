"""What things of tenants are called on Amazon's infrastructure: pure functions."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from services.provisioning.drivers.aws.terms import AwsTerms, SiloTerms
from services.provisioning.drivers.port import Environment

TENANT, PRODUCT = "tenure:tenant", "tenure:product"
"""The tags that say whose all is which is made, and for which product where it is in an environment of a product's own;
to see costs by tenant and product, activate them as cost allocation tags.

Sessions have the first one alone, with all that sets their environment apart; see `Environment.tenant_id`.
"""

ENVIRONMENT, INSTALLATION = "tenure:environment", "tenure:installation"
"""More tags that all has which is made."""

DELIMITER = "#"
"""Ends a tenant's id in keys; no id can hold it, so that no id is the beginning of another one's keys."""

SHARDS = 8
"""How many partitions of a table each environment has, ``<tenant>#0`` to ``<tenant>#7``."""

RECORD = "environment"
"""The sort key of our own record of an environment, in a partition of its own that no tenant reaches."""

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

CLOSED_SESSIONS = "closed-"
"""How the names of policies begin that close sessions."""

_LONGEST_EMAIL = 64
_LONGEST_NAME = 50
_LONGEST_SESSION_NAME = 64
_LONGEST_POLICY_NAME = 128
_LONGEST_KEY = 64
_DIGEST = 12
_LONG_DIGEST = 32
_TENANCY = re.compile(r"[A-Za-z0-9_-]+(:[a-z0-9][a-z0-9._-]{0,62})?")
_NO_TAG = re.compile(r"[^\w.:/=+@-]", re.ASCII)
_NO_MAILBOX = re.compile(r"[^A-Za-z0-9_-]+")


def checked(tenant_id: str) -> str:
    """Return what sets an environment apart (see `Environment.tenant_id`), which can be part of keys and policies.

    Raises:
        ValueError: it cannot; no such environment exists.
    """
    if not _TENANCY.fullmatch(tenant_id):
        raise ValueError("a tenant's id has a character that none has")
    return tenant_id


def partitions(tenant_id: str) -> Sequence[str]:
    """Return the partition keys of all that is kept in an environment."""
    return [f"{_key(tenant_id)}{DELIMITER}{shard}" for shard in range(SHARDS)]


def record_partition(tenant_id: str) -> str:
    """Return the partition key of our own record of an environment."""
    return f"{_key(tenant_id)}{DELIMITER}"


def prefix(tenant_id: str) -> str:
    """Return what the names of all objects of an environment begin with."""
    return f"tenants/{_key(tenant_id)}/"


def _key(tenant_id: str) -> str:
    """Return what stands for an environment in keys: a session's policy names nine of them and has 2,048 characters."""
    return _fitting(checked(tenant_id), _LONGEST_KEY, "!")


def tags(terms: AwsTerms, environment: Environment) -> Mapping[str, str]:
    """Return the tags of all that is made for an environment."""
    product = {} if environment.product is None else {PRODUCT: environment.product}
    return {
        TENANT: environment.owner,
        **product,
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
    told = _NO_MAILBOX.sub("-", environment.tenant_id)
    return f"{terms.mail_prefix}+{told}"[: _LONGEST_EMAIL - len(rest)] + rest


def account_name(environment: Environment) -> str:
    """Return the name of an account, by which it can be found as long as Amazon has not made it."""
    rest = f" {_digest(environment)}"
    return f"tenure {environment.tenant_id}"[: _LONGEST_NAME - len(rest)] + rest


def bucket(account_id: str, region: str) -> str:
    """Return the name of a silo's bucket; all buckets of the world have different ones."""
    return f"tenure-{account_id}-{region}"


def session_name(tenant_id: str) -> str:
    """Return what sessions in an environment are called where Amazon logs what they do."""
    return _fitting(f"tenure-{_plain(tenant_id)}", _LONGEST_SESSION_NAME, "=")


def closing_policy(tenant_id: str) -> str:
    """Return the name of the policy that closes sessions in an environment."""
    return _fitting(CLOSED_SESSIONS + _plain(tenant_id), _LONGEST_POLICY_NAME, "=")


def _plain(tenant_id: str) -> str:
    """Write what sets an environment apart without a colon, which names have not; no id and no product has an @."""
    return checked(tenant_id).replace(":", "@")


def _fitting(text: str, longest: int, mark: str) -> str:
    """Return a text; of one that is too long its beginning, a mark that no other text holds, and a digest of it all."""
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_LONG_DIGEST]
    return f"{text[: longest - len(mark) - len(digest)]}{mark}{digest}"


def _digest(environment: Environment) -> str:
    made_of = f"{environment.environment_id} {environment.resources.get(GENERATION, 0)}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:_DIGEST]
