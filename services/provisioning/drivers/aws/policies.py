"""Who may do what, in Amazon's words: pure functions that return policies.

A tenant's keys are all named one by one and its paths end with a slash: nothing of ``a`` is anything of ``a-b``, and
nothing of a tenant's own environment anything of ``a:b``, that of a product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.provisioning.drivers.aws import names
from services.provisioning.drivers.aws.terms import BOOTSTRAP_ROLE

Policy = Mapping[str, Any]

ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
LEAST_POLICY = "tenure-least"
WORK_POLICY = "tenure-work"

_ITEMS = (
    "dynamodb:BatchGetItem",
    "dynamodb:BatchWriteItem",
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:UpdateItem",
)
_OBJECTS = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject")
_SENDING = ("ses:SendEmail", "ses:SendRawEmail")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tenant keeps what it keeps.

    Attributes:
        sends_mail: whether it is an account of the tenant's own from which it sends mail.
    """

    account_id: str
    region: str
    table: str
    bucket: str
    sends_mail: bool = False

    @property
    def table_arn(self) -> str:
        """The table."""
        return f"arn:aws:dynamodb:{self.region}:{self.account_id}:table/{self.table}"


def of_session(place: Place, tenant_id: str) -> Policy:
    """Return what a tenant's session may do: reach its items by their keys and its objects by their paths.

    Scans, indexes and PartiQL are not part of it: they reach items without naming keys.
    """
    prefix = names.prefix(tenant_id)
    statements: list[Policy] = [
        {
            "Effect": "Allow",
            "Action": list(_ITEMS),
            "Resource": place.table_arn,
            "Condition": {
                "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": list(names.partitions(tenant_id))},
                "Null": {"dynamodb:LeadingKeys": "false"},  # without any key, the line above would hold
            },
        },
        {"Effect": "Allow", "Action": list(_OBJECTS), "Resource": f"arn:aws:s3:::{place.bucket}/{prefix}*"},
        {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{place.bucket}",
            "Condition": {"StringLike": {"s3:prefix": f"{prefix}*"}},
        },
    ]
    return _policy(statements + _mail_of(place) if place.sends_mail else statements)


def of_tenants(place: Place) -> Policy:
    """Return what the role may do of which sessions are lent; each session may do less, see `of_session`."""
    statements: list[Policy] = [
        {"Effect": "Allow", "Action": list(_ITEMS), "Resource": place.table_arn},
        {"Effect": "Allow", "Action": list(_OBJECTS), "Resource": f"arn:aws:s3:::{place.bucket}/*"},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{place.bucket}"},
    ]
    return _policy(statements + _mail_of(place) if place.sends_mail else statements)


def of_smtp(mail_domain: str) -> Policy:
    """Return what whoever has a tenant's SMTP password may do: send, from addresses of its domain."""
    condition = {"StringLike": {"ses:FromAddress": f"*@{mail_domain}"}}
    return _policy([{"Effect": "Allow", "Action": "ses:SendRawEmail", "Resource": "*", "Condition": condition}])


def of_bootstrap(account_id: str, region: str) -> Policy:
    """Return what is left to the bootstrap role: to look, to stop mail, and to write down which products run.

    It can give nothing to anybody, itself included.
    """
    itself = f"arn:aws:iam::{account_id}:role/{BOOTSTRAP_ROLE}"
    products = f"arn:aws:ssm:{region}:{account_id}:parameter{names.PRODUCTS.rstrip('/')}"
    reading = ("iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies")
    looking = (
        "ses:DescribeConfigurationSet",
        "ses:GetIdentityDkimAttributes",
        "ses:GetIdentityVerificationAttributes",
    )
    stopping = ("ses:UpdateAccountSendingEnabled",)
    writing = ("ssm:DeleteParameters", "ssm:GetParametersByPath", "ssm:PutParameter")
    return _policy(
        [
            {"Effect": "Allow", "Action": list(reading), "Resource": itself},
            {"Effect": "Allow", "Action": [*looking, *stopping], "Resource": "*"},
            {"Effect": "Allow", "Action": list(writing), "Resource": [products, f"{products}/*"]},
        ]
    )


def of_trust(role_arn: str) -> Policy:
    """Return who may take on a role: another one."""
    return _policy([{"Effect": "Allow", "Principal": {"AWS": role_arn}, "Action": "sts:AssumeRole"}])


def of_closed_account() -> Policy:
    """Return what nobody in an account may do at all, but for us through the bootstrap role: a service control policy.

    It holds for sessions that are open already, and for SMTP passwords.
    """
    but_us = {"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::*:role/{BOOTSTRAP_ROLE}"}}
    return _policy([{"Sid": "Closed", "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": but_us}])


def of_closed_tenant(tenant_id: str, *, written: datetime, before: datetime | None = None) -> Policy:
    """Return what makes sessions of a tenant useless that are open already, as part of the role that they are of.

    Args:
        written: kept in it.
        before: sessions that began later are not meant; without it, all are.
    """
    condition: dict[str, Any] = {"StringEquals": {f"aws:PrincipalTag/{names.TENANT}": names.checked(tenant_id)}}
    if before is not None:
        condition["DateLessThan"] = {"aws:TokenIssueTime": before.strftime("%Y-%m-%dT%H:%M:%SZ")}
    sid = f"Closed{int(written.timestamp())}"
    return _policy([{"Sid": sid, "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}])


def written_at(policy: Policy) -> int:
    """Return when `of_closed_tenant` was written, in seconds since 1970."""
    return int(policy["Statement"][0]["Sid"].removeprefix("Closed"))


def _mail_of(place: Place) -> list[Policy]:
    parameter = f"arn:aws:ssm:{place.region}:{place.account_id}:parameter{names.SMTP_PARAMETER}"
    return [
        {"Effect": "Allow", "Action": list(_SENDING), "Resource": "*"},
        {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": parameter},
    ]


def _policy(statements: Sequence[Policy]) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}
