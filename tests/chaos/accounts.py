"""What has to be in a tenant's account on Amazon's infrastructure, as its operator sees it."""

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from services.provisioning.drivers.aws.terms import BOOTSTRAP_ROLE
from services.provisioning.tests.cloud import OWN_ACCOUNT, TOPIC, Cloud

_LEAST = "tenure-least"

Resources = Mapping[str, Any]


def lacks_of(cloud: Cloud, tenant_id: str, resources: Resources) -> Sequence[str]:
    """Return what is missing in the account of a tenant that has mail, a quota and a product."""
    if not resources.get("accountId"):
        return ["account"]
    account = _Account(cloud, tenant_id, resources)
    return [name for name, is_there in account.parts().items() if not _holds(is_there)]


def _holds(is_there: Callable[[], bool]) -> bool:
    try:
        return is_there()
    except (ClientError, KeyError):
        return False


def orphans_of(cloud: Cloud, recorded: Mapping[str, str | None]) -> list[str]:
    """Return the accounts that can be used and that nobody has a record of.

    Args:
        recorded: the addresses under which accounts are looked for, by the environments' ids.
    """
    used = [(account, tags) for account, tags in _made(cloud) if account["Status"] == "ACTIVE"]
    return [account["Id"] for account, tags in used if recorded.get(tags["tenure:environment"]) != account["Email"]]


def made_for(cloud: Cloud) -> Counter[str]:
    """Return how many accounts were made for each tenant, those that were closed included."""
    return Counter(tags["tenure:tenant"] for _, tags in _made(cloud))


def _made(cloud: Cloud) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Return all accounts of tenants, with their tags."""
    client = cloud.open("organizations")
    listed = [each for page in client.get_paginator("list_accounts").paginate() for each in page["Accounts"]]
    return [(each, _tags(client, each["Id"])) for each in listed if each["Id"] != OWN_ACCOUNT]


def _tags(client: Any, account_id: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in client.list_tags_for_resource(ResourceId=account_id)["Tags"]}


class _Account:
    """One account, and what our records say of it."""

    def __init__(self, cloud: Cloud, tenant_id: str, resources: Resources) -> None:
        self._cloud = cloud
        self._tenant_id = tenant_id
        self._resources = resources
        self._account_id: str = resources["accountId"]
        self._organization = cloud.open("organizations")
        self._within = functools.cache(cloud.entered(self._account_id))

    def parts(self) -> Mapping[str, Callable[[], bool]]:
        return {
            "account": self._is_there,
            "place": self._is_in_its_unit,
            "least rights": self._is_reduced,
            "network": self._has_network,
            "storage": self._has_storage,
            "sessions": self._has_role,
            "identity": self._has_identity,
            "DKIM": self._has_dkim,
            "topic": self._has_topic,
            "SMTP": self._has_smtp,
            "quota": self._has_quota,
            "product": self._has_product,
        }

    def _is_there(self) -> bool:
        account = self._organization.describe_account(AccountId=self._account_id)["Account"]
        is_ours = _tags(self._organization, self._account_id)["tenure:tenant"] == self._tenant_id
        return bool(is_ours and account["Status"] == "ACTIVE" and account["Email"] == self._resources["email"])

    def _is_in_its_unit(self) -> bool:
        parents = self._organization.list_parents(ChildId=self._account_id)["Parents"]
        return [parent["Id"] for parent in parents] == [self._cloud.unit_id]

    def _is_reduced(self) -> bool:
        iam = self._within("iam")
        attached = iam.list_attached_role_policies(RoleName=BOOTSTRAP_ROLE)["AttachedPolicies"]
        return not attached and iam.list_role_policies(RoleName=BOOTSTRAP_ROLE)["PolicyNames"] == [_LEAST]

    def _has_network(self) -> bool:
        ec2 = self._within("ec2")
        ours = [{"Name": "tag:tenure:tenant", "Values": [self._tenant_id]}]
        vpcs = [vpc["VpcId"] for vpc in ec2.describe_vpcs(Filters=ours)["Vpcs"]]
        subnets = {subnet["SubnetId"] for subnet in ec2.describe_subnets(Filters=ours)["Subnets"]}
        return vpcs == [self._resources["vpcId"]] and subnets == set(self._resources["subnetIds"]) and len(subnets) == 2

    def _has_storage(self) -> bool:
        self._within("s3").head_bucket(Bucket=self._resources["bucket"])
        table = self._within("dynamodb").describe_table(TableName=self._resources["table"])["Table"]
        return bool(table["TableStatus"] == "ACTIVE")

    def _has_role(self) -> bool:
        name = self._resources["roleArn"].rpartition("/")[2]
        return bool(self._within("iam").list_role_policies(RoleName=name)["PolicyNames"])

    def _has_identity(self) -> bool:
        return bool(self._within("ses").list_identities()["Identities"] == [self._resources["mailDomain"]])

    def _has_dkim(self) -> bool:
        domain = self._resources["mailDomain"]
        found = self._within("ses").get_identity_dkim_attributes(Identities=[domain])["DkimAttributes"][domain]
        told = {each["name"] for each in self._resources["dnsRecords"] if each["type"] == "CNAME"}
        return bool(told) and told == {f"{token}._domainkey.{domain}" for token in found["DkimTokens"]}

    def _has_topic(self) -> bool:
        described = self._within("ses").describe_configuration_set(
            ConfigurationSetName=self._resources["configurationSet"],
            ConfigurationSetAttributeNames=["eventDestinations"],
        )
        return [each["SNSDestination"]["TopicARN"] for each in described["EventDestinations"]] == [TOPIC]

    def _has_smtp(self) -> bool:
        parameter = self._within("ssm").get_parameter(Name="/tenure/smtp", WithDecryption=True)["Parameter"]
        listed = self._within("iam").list_access_keys(UserName="tenure-smtp")["AccessKeyMetadata"]
        kept = json.loads(parameter["Value"])
        is_ours = parameter["ARN"] == self._resources["smtpParameterArn"] and parameter["Type"] == "SecureString"
        has_key = [each["AccessKeyId"] for each in listed] == [kept["username"]] and bool(kept["password"])
        return bool(is_ours and has_key)

    def _has_quota(self) -> bool:
        return self._account_id in {account_id for account_id, _, _ in self._cloud.plan.quotas}

    def _has_product(self) -> bool:
        value = self._within("ssm").get_parameter(Name="/tenure/products/notes")["Parameter"]["Value"]
        return bool(value == "1")
