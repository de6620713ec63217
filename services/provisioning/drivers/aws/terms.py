"""What an operator has on Amazon's infrastructure, and what we may do there."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

BOOTSTRAP_ROLE = "OrganizationAccountAccessRole"
"""The role that Amazon makes in each new member account, with all rights, for the management account."""

_AMAZONS = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTerms:
    """What tenants share.

    Attributes:
        table: a DynamoDB table with the keys ``tenant`` (partition) and ``item`` (sort), both strings.
        bucket: an S3 bucket.
        role_arn: whose sessions tenants are lent, each narrowed to one tenant; it has the table's and the bucket's
            account. It trusts us with ``sts:AssumeRole`` and ``sts:TagSession``.
    """

    table: str
    bucket: str
    role_arn: str

    @property
    def account_id(self) -> str:
        """Whose the table and the role are."""
        return account_of(self.role_arn)

    @property
    def role(self) -> str:
        """The role's name."""
        return self.role_arn.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiloTerms:
    """Who makes accounts for tenants, and what all of these have.

    Attributes:
        management_role_arn: a role in the organization's management account that trusts us.
        mail_prefix: what the address of each account begins with; what follows is cut off at a plus sign by the server.
        mail_domain: where the mail of the accounts arrives; Amazon writes to whoever owns an account.
        organizational_unit_id: where accounts are whose tier names no other one.
        topic_arn: the one SNS topic that hears of all mails of all tenants.
        network: the addresses of each account's own network.
    """

    management_role_arn: str
    mail_prefix: str
    mail_domain: str
    organizational_unit_id: str
    topic_arn: str
    network: str = "10.0.0.0/16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long it takes until something can be seen, or is looked for again.

    Attributes:
        poll: until the next look at an account that is being made or closed.
        mail: until the next look at whether somebody has set the DNS records of a domain.
        settled: until whatever was asked for and not waited for has happened; longer than a call may take.
        spread: until all of Amazon knows of a policy.
        quota: until the next try of what there may be only so much of in a month.
    """

    poll: timedelta = timedelta(seconds=5)
    mail: timedelta = timedelta(seconds=60)
    settled: timedelta = timedelta(seconds=30)
    spread: timedelta = timedelta(seconds=10)
    quota: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsTerms:
    """Where environments are made.

    Attributes:
        installation: whose they are, among all that there may be with the same names: the origin's URL.
        region: Amazon's name of where environments are whose region Amazon does not know.
        regions: Amazon's names of regions that an installation calls otherwise.
        endpoint_url: of what is asked instead of Amazon's own endpoints.
        pool: None where tenants share nothing.
        silo: None where tenants get no accounts of their own.
    """

    installation: str
    region: str
    regions: Mapping[str, str] = field(default_factory=dict)
    endpoint_url: str | None = None
    pool: PoolTerms | None = None
    silo: SiloTerms | None = None
    waits: Waits = Waits()

    def region_of(self, name: str) -> str:
        """Return Amazon's name of a region of the installation."""
        return self.regions.get(name) or (name if _AMAZONS.fullmatch(name) else self.region)


def account_of(arn: str) -> str:
    """Return whose something is."""
    return arn.split(":")[4]
