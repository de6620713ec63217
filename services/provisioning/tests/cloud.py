"""An organization on Amazon's infrastructure, as moto plays it, with what moto leaves out.

Accounts take a while or are not made; addresses are taken; policies are enforced; roles that do not exist cannot be
taken on; domains are verified when somebody has set their records; quotas can be asked for.
"""

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from services.provisioning.drivers import tenancy_of
from services.provisioning.drivers.aws import AwsTerms, PoolTerms, SiloTerms, Waits
from services.provisioning.drivers.aws.policies import ADMINISTRATOR
from services.provisioning.drivers.aws.terms import BOOTSTRAP_ROLE
from services.provisioning.tests.driver_contract import Fault
from services.provisioning.tests.iam import Rights, Wish, allows, trusts
from shared.testing.amazon import NOBODYS, REGION, AmazonServer, Asked, StartResponse, error

OWN_ACCOUNT = "123456789012"
MANAGEMENT_ROLE, POOL_ROLE = (f"arn:aws:iam::{OWN_ACCOUNT}:role/{name}" for name in ("management", "pool"))
TOPIC = f"arn:aws:sns:{REGION}:{OWN_ACCOUNT}:mail"
TABLE, BUCKET = "tenants", "tenure-tenants"
OPERATOR = "operator"
WAITS = Waits(**dict.fromkeys(("poll", "mail", "settled", "spread", "quota"), Waits().poll * 0))

_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_READING = ("Describe", "List", "Get", "Query", "Assume", "GET", "HEAD", "Verify")
_SERVER_ERROR = "500 Internal Server Error"
_JSON = [("Content-Type", "application/x-amz-json-1.1")]
_TOO_MANY = {
    "ec2": "RequestLimitExceeded",
    "iam": "Throttling",
    "organizations": "TooManyRequestsException",
    "s3": "SlowDown",
    "ses": "Throttling",
}
_OBJECT_ACTIONS = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}


@dataclass
class _Request:
    """That an account be made.

    Attributes:
        polls: how often it is still to be seen as under way.
    """

    request_id: str
    name: str
    polls: int = 0
    account_id: str = ""
    reason: str = ""

    @property
    def status(self) -> dict[str, str]:
        status = {"Id": self.request_id, "AccountName": self.name}
        if self.reason:
            return status | {"State": "FAILED", "FailureReason": self.reason}
        if self.polls > 0:
            return status | {"State": "IN_PROGRESS"}
        return status | {"State": "SUCCEEDED", "AccountId": self.account_id}


@dataclass
class Plan:
    """What is to happen.

    Attributes:
        polls: how often each account is seen to be under way before it is there.
        failures: why the next accounts are not made, one for each.
        closing_reason: why no account can be closed.
        fault: what happens to the next call that it can happen to.
        after: how many such calls nothing happens to before.
        most: of so many calls the last one is one too many for Amazon; none where it is 0.
        verified: domains whose records are set.
        failed: domains whose records were not found for days.
        quotas: what was asked for, by account.
        mute: accounts that may send no mail.
    """

    polls: int = 0
    failures: list[str] = field(default_factory=list)
    closing_reason: str = ""
    fault: Fault | None = None
    after: int = 0
    most: int = 0
    verified: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    quotas: list[tuple[str, str, float]] = field(default_factory=list)
    mute: set[str] = field(default_factory=set)


class Cloud(AmazonServer):
    """The organization.

    Attributes:
        plan: what is to happen.
        refused: what was asked for by somebody who may not.
        throttled: what was asked for once too often.
    """

    def __init__(self, *, port: int = 0) -> None:
        super().__init__(port=port)
        self.plan = Plan()
        self.refused: list[str] = []
        self.throttled: list[str] = []
        self._calls = itertools.count(1)
        self._requests: dict[str, _Request] = {}
        self._lock = threading.RLock()
        self._hanging = threading.Event()
        self._released = threading.Event()

    def found(self) -> None:
        """Have an organization with a unit, the roles that we may take on, and what tenants share."""
        organizations, iam = self.open("organizations"), self.open("iam")
        organizations.create_organization(FeatureSet="ALL")
        root_id = organizations.list_roots()["Roots"][0]["Id"]
        organizations.enable_policy_type(RootId=root_id, PolicyType="SERVICE_CONTROL_POLICY")
        unit = organizations.create_organizational_unit(ParentId=root_id, Name="tenants")
        self.unit_id: str = unit["OrganizationalUnit"]["Id"]
        trust = json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{OWN_ACCOUNT}:root"},
                        "Action": ["sts:AssumeRole", "sts:TagSession"],
                    }
                ],
            }
        )
        for name in ("management", "pool"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
            iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=json.dumps(_ALL))
        self.open("dynamodb").create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("tenant", "item")],
            KeySchema=[{"AttributeName": "tenant", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}],
        )
        s3 = self.open("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})

    def terms(self, *, pool: bool = True, silo: bool = True, waits: Waits = WAITS) -> AwsTerms:
        """Return what the driver is told."""
        return AwsTerms(
            installation="https://tenure.example.org",
            region=REGION,
            endpoint_url=self.url,
            pool=PoolTerms(table=TABLE, bucket=BUCKET, role_arn=POOL_ROLE) if pool else None,
            silo=SiloTerms(
                management_role_arn=MANAGEMENT_ROLE,
                mail_prefix="aws",
                mail_domain="example.org",
                organizational_unit_id=self.unit_id,
                topic_arn=TOPIC,
            )
            if silo
            else None,
            waits=waits,
        )

    def within(self, account_id: str, service: str) -> Any:
        """Return a client for an account, which may do everything there, whatever policies say."""
        return self.entered(account_id)(service)

    def entered(self, account_id: str) -> Callable[[str], Any]:
        """Return what makes such clients, by the name of their service."""
        role = f"arn:aws:iam::{account_id}:role/{BOOTSTRAP_ROLE}"
        given = self.open("sts").assume_role(RoleArn=role, RoleSessionName=OPERATOR)["Credentials"]
        keys = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
        return lambda service: self.open(service, *keys)

    def accounts(self, *, tenant_id: str | None = None) -> list[str]:
        """Return the accounts in which somebody can be, or that of one environment; see `Environment.tenant_id`."""
        client = self.open("organizations")
        found = [each for page in client.get_paginator("list_accounts").paginate() for each in page["Accounts"]]
        active = [each["Id"] for each in found if each["Status"] == "ACTIVE" and each["Id"] != OWN_ACCOUNT]
        return [each for each in active if tenant_id in (None, self._tenant_of(client, each))]

    def owners(self) -> list[str]:
        """Return whose these accounts are, each tenant as often as it has one."""
        client = self.open("organizations")
        return [self._tenant_of(client, account_id) or "nobody" for account_id in self.accounts()]

    def _tenant_of(self, client: Any, account_id: str) -> str | None:
        tags = {tag["Key"]: tag["Value"] for tag in client.list_tags_for_resource(ResourceId=account_id)["Tags"]}
        owner = tags.get("tenure:tenant")
        return None if owner is None else tenancy_of(owner, tags.get("tenure:product"))

    def forget(self) -> None:
        self.release()
        super().forget()
        self.plan = Plan()
        self.refused.clear()
        self.throttled.clear()
        self._requests.clear()
        for client in self._clients:
            client.close()
        self._clients.clear()

    def finish_accounts(self) -> None:
        """Let all accounts be there that are being made."""
        with self._lock:
            for each in self._requests.values():
                each.polls = 0

    @property
    def is_hanging(self) -> bool:
        """Whether a call is being held up."""
        return self._hanging.is_set()

    def release(self) -> None:
        """Let whoever is held up go, without having done anything."""
        self.plan.fault = None
        self._released.set()

    @contextmanager
    def breaking(self, fault: Fault, *, after: int = 0) -> Iterator[None]:
        """Let something happen to one call, and let go whoever is held up at the end."""
        self.break_next(fault, after=after)
        try:
            yield
        finally:
            self.release()

    def break_next(self, fault: Fault, *, after: int = 0) -> None:
        """Let something happen to the next call that it can happen to, or to one that comes later."""
        self._hanging.clear()
        self._released.clear()
        self.plan.fault, self.plan.after = fault, after

    def answer(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:
        """Answer what is asked for."""
        is_ours = bool(asked.operation) and not self._is_operator(asked)
        if is_ours and self.plan.most and next(self._calls) % self.plan.most == 0:
            self.throttled.append(asked.operation)
            return error(asked, start_response, _TOO_MANY.get(asked.service, "ThrottlingException"), "")
        fault = self._fault_of(asked) if is_ours else None
        if fault is Fault.HANGS:
            self._hanging.set()
            self._released.wait(30)
            self._hanging.clear()
        if fault in (Fault.HANGS, Fault.FAILS):
            return error(asked, start_response, "InternalFailure", "", status=_SERVER_ERROR)
        if fault is Fault.LOST:
            for _ in self._do(asked, lambda *_: None):
                pass
            return error(asked, start_response, "InternalFailure", "", status=_SERVER_ERROR)
        return self._do(asked, start_response)

    def _fault_of(self, asked: Asked) -> Fault | None:
        with self._lock:
            fault = self.plan.fault
            if fault is Fault.LOST and asked.operation.startswith(_READING):
                return None
            if fault is not None and self.plan.after > 0:
                self.plan.after -= 1
                return None
            self.plan.fault = None
            return fault

    def _is_operator(self, asked: Asked) -> bool:
        session = session_of(asked.access_key)
        return asked.access_key == NOBODYS or (session is not None and session.session_name == OPERATOR)

    def _do(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:
        if not self._is_operator(asked) and not self._may(asked):
            self.refused.append(asked.operation)
            return error(asked, start_response, "AccessDenied", "", status="403 Forbidden")
        special = getattr(self, f"_{asked.service}_{asked.operation}".replace("-", "_"), None)
        if special is not None:
            told: Iterable[bytes] = special(asked, start_response)
            return told
        return super().answer(asked, start_response)

    def _may(self, asked: Asked) -> bool:
        if asked.operation == "AssumeRole":
            return self._may_assume(asked)
        session = session_of(asked.access_key)
        if session is None:
            return True  # our own, which the operator has given all that it needs
        rights = Rights(_policies_of(session.role_arn), _document(session.policy), self._account_policies(session))
        context = {
            "aws:PrincipalArn": session.role_arn,
            "aws:TokenIssueTime": session.issued_at,
            **({"aws:PrincipalTag/tenure:tenant": session.tenant} if session.tenant else {}),
        }
        return all(allows(rights, wish) for wish in _wishes(asked, context))

    def _may_assume(self, asked: Asked) -> bool:
        role_arn = asked.parameters["RoleArn"]
        role = _role(role_arn)
        session = session_of(asked.access_key)
        arn = session.role_arn if session else f"arn:aws:iam::{OWN_ACCOUNT}:root"
        if role is None or not trusts(_trust(role), arn, arn.split(":")[4]):
            return False
        tenant = asked.parameters.get("Tags.member.1.Value")
        if tenant:
            _TAGS[(role_arn, asked.parameters["RoleSessionName"])] = tenant
        return True

    def _account_policies(self, session: "_Session") -> list[Mapping[str, Any]] | None:
        """Return what is attached to an account; moto gives the root's to nobody but the management account."""
        from moto.organizations.models import organizations_backends  # noqa: PLC0415

        organization = organizations_backends[OWN_ACCOUNT]["aws"]
        account_id = session.role_arn.split(":")[4]
        attached = [
            each
            for each in organization.policies
            if any(getattr(to, "id", None) == account_id for to in each.attachments)
            and each.type == "SERVICE_CONTROL_POLICY"
        ]
        return [json.loads(each.content or "{}") for each in attached] if account_id != OWN_ACCOUNT else None

    def _organizations_CreateAccount(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:  # noqa: N802
        from moto.organizations.models import organizations_backends  # noqa: PLC0415

        wanted = asked.parameters
        with self._lock:
            organization = organizations_backends[OWN_ACCOUNT]["aws"]
            taken = any(account.email == wanted["Email"] for account in organization.accounts)
            reason = self.plan.failures.pop(0) if self.plan.failures else "EMAIL_ALREADY_EXISTS" if taken else ""
            if reason:
                made = _Request(f"car-{len(self._requests):032x}", wanted["AccountName"], reason=reason)
            else:
                status = organization.create_account(**wanted)["CreateAccountStatus"]
                made = _Request(status["Id"], wanted["AccountName"], self.plan.polls, status["AccountId"])
                _make_administrator(made.account_id)
            self._requests[made.request_id] = made
        start_response("200 OK", _JSON)
        return [json.dumps({"CreateAccountStatus": made.status}).encode()]

    def _organizations_DescribeCreateAccountStatus(  # noqa: N802
        self, asked: Asked, start_response: StartResponse
    ) -> Iterable[bytes]:
        with self._lock:
            request = self._requests[asked.parameters["CreateAccountRequestId"]]
            request.polls -= 1
            start_response("200 OK", _JSON)
            return [json.dumps({"CreateAccountStatus": request.status}).encode()]

    def _organizations_ListCreateAccountStatus(  # noqa: N802
        self, asked: Asked, start_response: StartResponse
    ) -> Iterable[bytes]:
        with self._lock:
            states = asked.parameters["States"]
            found = [each.status for each in self._requests.values() if each.status["State"] in states]
            for each in self._requests.values():
                each.polls -= 1
        start_response("200 OK", _JSON)
        return [json.dumps({"CreateAccountStatuses": found}).encode()]

    def _organizations_ListAccounts(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:  # noqa: N802
        """Show those that are being made to nobody but the operator, who counts them."""
        if self._is_operator(asked):
            return super().answer(asked, start_response)
        page = json.loads(b"".join(super().answer(asked, lambda *_: None)))
        with self._lock:
            hidden = {each.account_id for each in self._requests.values() if each.polls > 0}
        page["Accounts"] = [each for each in page["Accounts"] if each["Id"] not in hidden]
        start_response("200 OK", _JSON)
        return [json.dumps(page).encode()]

    def _organizations_CloseAccount(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:  # noqa: N802
        if not self.plan.closing_reason:
            return super().answer(asked, start_response)
        start_response("400 Bad Request", _JSON)
        told = {"__type": "ConstraintViolationException", "Reason": self.plan.closing_reason, "Message": ""}
        return [json.dumps(told).encode()]

    def _servicequotas_RequestServiceQuotaIncrease(  # noqa: N802
        self, asked: Asked, start_response: StartResponse
    ) -> Iterable[bytes]:
        session = session_of(asked.access_key)
        assert session is not None
        wanted = asked.parameters
        self.plan.quotas.append((session.role_arn.split(":")[4], wanted["QuotaCode"], wanted["DesiredValue"]))
        start_response("200 OK", _JSON)
        return [json.dumps({"RequestedQuota": {"Status": "PENDING"}}).encode()]

    def _ses_UpdateAccountSendingEnabled(  # noqa: N802
        self, asked: Asked, start_response: StartResponse
    ) -> Iterable[bytes]:
        (self.plan.mute.discard if asked.parameters["Enabled"] == "true" else self.plan.mute.add)(_account_of(asked))
        start_response("200 OK", [("Content-Type", "text/xml")])
        return [b"<UpdateAccountSendingEnabledResponse/>"]

    def _ses_SendRawEmail(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:  # noqa: N802
        if _account_of(asked) in self.plan.mute:
            return error(asked, start_response, "AccountSendingPausedException", "")
        return super().answer(asked, start_response)

    def _ses_GetIdentityVerificationAttributes(  # noqa: N802
        self, asked: Asked, start_response: StartResponse
    ) -> Iterable[bytes]:
        return self._looked_up(asked, start_response)

    def _ses_GetIdentityDkimAttributes(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:  # noqa: N802
        return self._looked_up(asked, start_response)

    def _looked_up(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as after a look at the DNS."""
        domain = asked.parameters["Identities.member.1"]
        state = "Success" if domain in self.plan.verified else "Failed" if domain in self.plan.failed else "Pending"
        said = b"".join(super().answer(asked, lambda *_: None)).replace(b">Success<", f">{state}<".encode())
        start_response("200 OK", [("Content-Type", "text/xml")])
        return [said]


@dataclass(frozen=True)
class _Session:
    """Somebody who has taken a role on."""

    role_arn: str
    session_name: str
    policy: str | None
    issued_at: str
    tenant: str | None


_TAGS: dict[tuple[str, str], str] = {}
"""moto forgets what sessions are tagged with; by role and name of the session."""


def session_of(access_key: str) -> _Session | None:
    from moto.sts.models import sts_backends  # noqa: PLC0415

    for account in list(sts_backends.values()):
        for role in list(account["aws"].assumed_roles):
            if role.access_key_id == access_key:
                arn, name = role.role_arn, role.session_name
                issued_at = role.access_key.create_date.strftime("%Y-%m-%dT%H:%M:%SZ")
                return _Session(arn, name, role.policy, issued_at, _TAGS.get((arn, name)))
    return None


def _account_of(asked: Asked) -> str:
    session = session_of(asked.access_key)
    assert session is not None
    return session.role_arn.split(":")[4]


def _role(role_arn: str) -> Any:
    from moto.iam.models import iam_backends  # noqa: PLC0415

    name = role_arn.rpartition("/")[2]
    backend = iam_backends[role_arn.split(":")[4]]["aws"]
    return next((role for role in backend.roles.values() if role.name == name), None)


def _trust(role: Any) -> Mapping[str, Any]:
    trust: Mapping[str, Any] = json.loads(role.assume_role_policy_document)
    return trust


def _policies_of(role_arn: str) -> list[Mapping[str, Any]]:
    role = _role(role_arn)
    if role is None:
        return []
    attached = [json.loads(policy.versions[0].document) for policy in role.managed_policies.values()]
    return [*attached, *(json.loads(unquote(document)) for document in role.policies.values())]


def _document(text: str | None) -> Mapping[str, Any] | None:
    return json.loads(text) if text else None


def _make_administrator(account_id: str) -> None:
    """Let the bootstrap role have what Amazon gives it, of which moto knows nothing."""
    from moto.iam.models import AWSManagedPolicy, iam_backends  # noqa: PLC0415

    backend = iam_backends[account_id]["aws"]

    data = {"Path": "/", "Document": _ALL, **dict.fromkeys(("CreateDate", "UpdateDate"), "2020-01-01T00:00:00+00:00")}
    policy = AWSManagedPolicy.from_data("AdministratorAccess", account_id, "aws", data)
    backend.managed_policies[ADMINISTRATOR] = policy
    backend.attach_role_policy(ADMINISTRATOR, BOOTSTRAP_ROLE)


def _wishes(asked: Asked, context: Mapping[str, str]) -> list[Wish]:
    """Return what somebody wants: in detail of items and objects, and of all else the bare action."""
    if asked.service == "dynamodb":
        return [_item_wish(asked, context)]
    if asked.service == "s3":
        return [_object_wish(asked, context)]
    return [Wish(f"{asked.service}:{asked.operation}", None, context)]


def _item_wish(asked: Asked, context: Mapping[str, str]) -> Wish:
    wanted = asked.parameters
    account = session_of(asked.access_key)
    assert account is not None
    arn = f"arn:aws:dynamodb:{REGION}:{account.role_arn.split(':')[4]}:table/{wanted.get('TableName')}"
    keys = [wanted[name]["tenant"]["S"] for name in ("Key", "Item") if name in wanted]
    if "KeyConditionExpression" in wanted:
        keys.append(wanted["ExpressionAttributeValues"][":tenant"]["S"])
    return Wish(f"dynamodb:{asked.operation}", arn, {**context, **({"dynamodb:LeadingKeys": keys} if keys else {})})


def _object_wish(asked: Asked, context: Mapping[str, str]) -> Wish:
    bucket, _, key = unquote(asked.environment["PATH_INFO"]).lstrip("/").partition("/")
    if key:
        return Wish(f"s3:{_OBJECT_ACTIONS[asked.operation]}", f"arn:aws:s3:::{bucket}/{key}", context)
    if asked.operation != "GET":
        return Wish("s3:CreateBucket", f"arn:aws:s3:::{bucket}", context)
    prefix = parse_qs(asked.environment["QUERY_STRING"]).get("prefix")
    return Wish("s3:ListBucket", f"arn:aws:s3:::{bucket}", {**context, **({"s3:prefix": prefix} if prefix else {})})
