"""What is made in a tenant's own account, each part as often as it is asked for and only once."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import islice
from typing import Any, TypeAlias

import orjson
import structlog

from services.provisioning.drivers.aws import names, policies
from services.provisioning.drivers.aws.calls import Caller, RefusedCallError
from services.provisioning.drivers.aws.policies import Place
from services.provisioning.drivers.aws.smtp import smtp_host, smtp_password
from services.provisioning.drivers.aws.terms import BOOTSTRAP_ROLE, AwsTerms, SiloTerms
from services.provisioning.drivers.aws.wanted import Quota, Wanted, products_of
from services.provisioning.drivers.port import Environment

log = structlog.get_logger(__name__)

Resources: TypeAlias = Mapping[str, Any]

EVENTS = ("send", "reject", "bounce", "complaint", "delivery", "open", "click", "renderingFailure")
"""What the central topic hears of every mail."""

_ZONES = 2
_SUBNET_BITS = 4
_SMTP_PORT = 587
_AT_A_TIME = 10
_NO_REGION = "us-east-1"
"""The region that S3 does not want to be named."""


@dataclass(frozen=True, slots=True)
class Member:
    """An account, and who asks in it."""

    caller: Caller
    terms: AwsTerms
    silo: SiloTerms
    environment: Environment
    wanted: Wanted
    account_id: str
    region: str

    @property
    def place(self) -> Place:
        """Where the tenant keeps what it keeps."""
        bucket = names.bucket(self.account_id, self.region)
        sends_mail = self.wanted.mail_domain is not None
        return Place(self.account_id, self.region, names.TABLE, bucket, sends_mail=sends_mail)

    @property
    def tags(self) -> list[dict[str, str]]:
        """What all is tagged with."""
        return names.tag_list(names.tags(self.terms, self.environment))


Part: TypeAlias = Callable[[Member], Awaitable[Resources | None]]
"""Makes something, and returns what there is then; None where it is not ready yet."""


async def network(member: Member) -> Resources:
    """Make a network with two subnets, each in a zone of its own, from which nothing leads out."""
    caller, tags = member.caller, member.tags
    ours = [{"Name": f"tag:{names.ENVIRONMENT}", "Values": [str(member.environment.environment_id)]}]
    found = (await caller.call("ec2", "describe_vpcs", Filters=ours))["Vpcs"]
    if not found:
        tagged = [{"ResourceType": "vpc", "Tags": tags}]
        made = await caller.call("ec2", "create_vpc", CidrBlock=member.silo.network, TagSpecifications=tagged)
        found = [made["Vpc"]]
    vpc_id = min(vpc["VpcId"] for vpc in found)
    return {"vpcId": vpc_id, "subnetIds": await _subnets(member, vpc_id)}


async def _subnets(member: Member, vpc_id: str) -> list[str]:
    inside = [{"Name": "vpc-id", "Values": [vpc_id]}]
    there = (await member.caller.call("ec2", "describe_subnets", Filters=inside))["Subnets"]
    known = {subnet["CidrBlock"]: subnet["SubnetId"] for subnet in there}
    zones = (await member.caller.call("ec2", "describe_availability_zones"))["AvailabilityZones"]
    blocks = islice(IPv4Network(member.silo.network).subnets(prefixlen_diff=_SUBNET_BITS), _ZONES)
    for block, zone in zip(map(str, blocks), sorted(zone["ZoneName"] for zone in zones), strict=False):
        if block not in known:
            made = await member.caller.call(
                "ec2",
                "create_subnet",
                VpcId=vpc_id,
                CidrBlock=block,
                AvailabilityZone=zone,
                TagSpecifications=[{"ResourceType": "subnet", "Tags": member.tags}],
            )
            known[block] = made["Subnet"]["SubnetId"]
    return [known[block] for block in sorted(known)]


async def storage(member: Member) -> Resources | None:
    """Make a table and a bucket that are like those that others share, so that the same code works in them."""
    await _bucket(member)
    table = member.place.table
    await member.caller.unless(
        "ResourceInUse",
        "dynamodb",
        "create_table",
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("tenant", "item")],
        KeySchema=[{"AttributeName": "tenant", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}],
        Tags=member.tags,
    )
    described = await member.caller.call("dynamodb", "describe_table", TableName=table)
    if described["Table"]["TableStatus"] != "ACTIVE":
        return None
    return {"table": table, "bucket": member.place.bucket}


async def _bucket(member: Member) -> None:
    bucket = member.place.bucket
    where = {} if member.region == _NO_REGION else {
        "CreateBucketConfiguration": {"LocationConstraint": member.region}
    }  # fmt: skip
    await member.caller.unless("BucketAlreadyOwnedByYou", "s3", "create_bucket", Bucket=bucket, **where)
    closed = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    await member.caller.call("s3", "put_public_access_block", Bucket=bucket, PublicAccessBlockConfiguration=closed)
    await member.caller.call("s3", "put_bucket_tagging", Bucket=bucket, Tagging={"TagSet": member.tags})


async def access(member: Member) -> Resources:
    """Make the role of which the tenant's sessions are lent, and whoever sends its mail over SMTP."""
    trust = _json(policies.of_trust(member.silo.management_role_arn))
    role = names.TENANT_ROLE
    await member.caller.unless(
        "EntityAlreadyExists",
        "iam",
        "create_role",
        RoleName=role,
        AssumeRolePolicyDocument=trust,
        Tags=member.tags,
    )
    work = _json(policies.of_tenants(member.place))
    await member.caller.call(
        "iam", "put_role_policy", RoleName=role, PolicyName=policies.WORK_POLICY, PolicyDocument=work
    )
    made = {"roleArn": f"arn:aws:iam::{member.account_id}:role/{role}"}
    if member.wanted.mail_domain is None:
        return made
    return {**made, "smtpParameterArn": await _smtp(member, member.wanted.mail_domain)}


async def _smtp(member: Member, mail_domain: str) -> str:
    """Make a user that can do nothing but send, and keep its password in the account, where we cannot read it later."""
    user, parameter = names.SMTP_USER, names.SMTP_PARAMETER
    await member.caller.unless("EntityAlreadyExists", "iam", "create_user", UserName=user, Tags=member.tags)
    sending = _json(policies.of_smtp(mail_domain))
    await member.caller.call(
        "iam", "put_user_policy", UserName=user, PolicyName=policies.WORK_POLICY, PolicyDocument=sending
    )
    if await member.caller.unless("ParameterNotFound", "ssm", "get_parameter", Name=parameter) is None:
        await _drop_keys(member, user)
        key = (await member.caller.call("iam", "create_access_key", UserName=user))["AccessKey"]
        kept = {
            "host": smtp_host(member.region),
            "port": _SMTP_PORT,
            "username": key["AccessKeyId"],
            "password": smtp_password(key["SecretAccessKey"], member.region),
        }
        await member.caller.call(
            "ssm", "put_parameter", Name=parameter, Value=_json(kept), Type="SecureString", Tags=member.tags
        )
    return f"arn:aws:ssm:{member.region}:{member.account_id}:parameter{parameter}"


async def _drop_keys(member: Member, user: str) -> None:
    """Remove keys that were made by an attempt that did not live to keep them."""
    for key in (await member.caller.call("iam", "list_access_keys", UserName=user))["AccessKeyMetadata"]:
        await member.caller.call("iam", "delete_access_key", UserName=user, AccessKeyId=key["AccessKeyId"])


async def mail(member: Member) -> Resources:
    """Let the central topic hear of all mails, and find out what has to be in the DNS for the domain."""
    domain = member.wanted.mail_domain
    if domain is None:
        return {}
    name = names.CONFIGURATION_SET
    await member.caller.unless(
        "ConfigurationSetAlreadyExists", "ses", "create_configuration_set", ConfigurationSet={"Name": name}
    )
    destination = {
        "Name": names.EVENT_DESTINATION,
        "Enabled": True,
        "MatchingEventTypes": list(EVENTS),
        "SNSDestination": {"TopicARN": member.silo.topic_arn},
    }
    await member.caller.unless(
        "EventDestinationAlreadyExists",
        "ses",
        "create_configuration_set_event_destination",
        ConfigurationSetName=name,
        EventDestination=destination,
    )
    token = (await member.caller.call("ses", "verify_domain_identity", Domain=domain))["VerificationToken"]
    tokens = (await member.caller.call("ses", "verify_domain_dkim", Domain=domain))["DkimTokens"]
    return {"mailDomain": domain, "configurationSet": name, "dnsRecords": dns_records(domain, token, tokens)}


def dns_records(domain: str, token: str, dkim_tokens: list[str]) -> list[dict[str, str]]:
    """Return what somebody has to set before mail can be sent from a domain."""
    ownership = {"name": f"_amazonses.{domain}", "type": "TXT", "value": token}
    signing = [
        {"name": f"{each}._domainkey.{domain}", "type": "CNAME", "value": f"{each}.dkim.amazonses.com"}
        for each in dkim_tokens
    ]
    return [ownership, *signing]


async def mail_states(member: Member, domain: str) -> set[str]:
    """Return what Amazon has found of the domain's records, of its ownership and of its signing, in lower case."""
    answer = await member.caller.call("ses", "get_identity_verification_attributes", Identities=[domain])
    signed = await member.caller.call("ses", "get_identity_dkim_attributes", Identities=[domain])
    ownership = answer["VerificationAttributes"].get(domain, {}).get("VerificationStatus", "NotStarted")
    signing = signed["DkimAttributes"].get(domain, {}).get("DkimVerificationStatus", "NotStarted")
    return {ownership.lower(), signing.lower()}


async def quotas(member: Member) -> Resources:
    """Ask for what the tier says that an account may have; whether it gets it, Amazon decides later."""
    asked = {f"{each.service}/{each.code}": await _quota(member, each) for each in member.wanted.quotas}
    return {"quotas": asked} if asked else {}


async def _quota(member: Member, quota: Quota) -> str:
    try:
        await member.caller.call(
            "service-quotas",
            "request_service_quota_increase",
            ServiceCode=quota.service,
            QuotaCode=quota.code,
            DesiredValue=quota.value,
        )
    except RefusedCallError as refusal:
        if refusal.code == "ResourceAlreadyExistsException":  # an attempt before has asked
            return "requested"
        if refusal.is_passing:
            raise
        log.warning("a quota is not raised", action="aws_quota_refused", quota=quota.code, reason=refusal.code)
        return f"refused: {refusal.code}"
    return "requested"


async def products(member: Member) -> Resources:
    """Write down which products run, at which versions, where they can be read by what installs them."""
    wanted = {f"{names.PRODUCTS}{name}": version for name, version in member.environment.products.items()}
    there = {f"{names.PRODUCTS}{name}": version for name, version in (await installed(member.caller)).items()}
    for name, version in wanted.items():
        if there.get(name) != version:
            await member.caller.call("ssm", "put_parameter", Name=name, Value=version, Type="String", Overwrite=True)
    surplus = sorted(there.keys() - wanted.keys())
    for start in range(0, len(surplus), _AT_A_TIME):
        await member.caller.call("ssm", "delete_parameters", Names=surplus[start : start + _AT_A_TIME])
    return {}


async def installed(caller: Caller) -> dict[str, str]:
    """Return which products run, at which versions."""
    path = names.PRODUCTS
    found = [each async for each in caller.pages("ssm", "get_parameters_by_path", "Parameters", Path=path)]
    return products_of(found, path)


async def reduce(member: Member) -> Resources:
    """Take all rights from the bootstrap role but the least, the right to do so last."""
    role = {"RoleName": BOOTSTRAP_ROLE}
    if not await _has_least(member):
        least = _json(policies.of_bootstrap(member.account_id, member.region))
        await member.caller.call(
            "iam", "put_role_policy", **role, PolicyName=policies.LEAST_POLICY, PolicyDocument=least
        )
    for name in await _surplus(member):
        await member.caller.call("iam", "delete_role_policy", **role, PolicyName=name)
    attached = await _attached(member)
    for arn in sorted(attached, key=lambda arn: arn == policies.ADMINISTRATOR):
        await member.caller.unless("NoSuchEntity", "iam", "detach_role_policy", **role, PolicyArn=arn)
    return {}


async def is_reduced(member: Member) -> bool:
    """Read back whether the bootstrap role has the least rights, and no others."""
    return await _has_least(member) and not await _surplus(member) and not await _attached(member)


async def _has_least(member: Member) -> bool:
    found = await member.caller.unless(
        "NoSuchEntity", "iam", "get_role_policy", RoleName=BOOTSTRAP_ROLE, PolicyName=policies.LEAST_POLICY
    )
    return found is not None and found["PolicyDocument"] == policies.of_bootstrap(member.account_id, member.region)


async def _surplus(member: Member) -> list[str]:
    answer = await member.caller.call("iam", "list_role_policies", RoleName=BOOTSTRAP_ROLE)
    return [name for name in answer["PolicyNames"] if name != policies.LEAST_POLICY]


async def _attached(member: Member) -> list[str]:
    answer = await member.caller.call("iam", "list_attached_role_policies", RoleName=BOOTSTRAP_ROLE)
    return [each["PolicyArn"] for each in answer["AttachedPolicies"]]


def _json(document: Mapping[str, Any]) -> str:
    return orjson.dumps(document).decode()
