"""Tenants' accounts as the organization has them: made, found again, put in their place, closed to all, given up."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import orjson

from services.provisioning.drivers.aws import names, policies
from services.provisioning.drivers.aws.calls import Caller, RefusedCallError
from services.provisioning.drivers.aws.roles import Roles
from services.provisioning.drivers.aws.terms import BOOTSTRAP_ROLE, AwsTerms, SiloTerms
from services.provisioning.drivers.port import Environment

_SERVICE_CONTROL = "SERVICE_CONTROL_POLICY"


class State(StrEnum):
    """What becomes of an account."""

    ASKED_FOR = "asked for"
    FAILED = "failed"
    ACTIVE = "active"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Account:
    """What the organization knows of an account.

    Attributes:
        request_id: of the request that it be made, where that is known.
        reason: why it was not made, in Amazon's word.
    """

    state: State
    account_id: str = ""
    request_id: str = ""
    reason: str = ""

    @property
    def is_there(self) -> bool:
        """Whether somebody can be in it."""
        return self.state is State.ACTIVE


class Accounts:
    """The organization, asked as the role in its management account."""

    def __init__(self, roles: Roles, terms: AwsTerms) -> None:
        assert terms.silo is not None
        self._roles = roles
        self._terms = terms
        self._silo: SiloTerms = terms.silo

    async def ask_for(self, environment: Environment) -> Account:
        """Ask that an account be made, with the tags by which it is known to be ours from its first moment on."""
        organization = await self._roles.management()
        answer = await organization.call(
            "organizations",
            "create_account",
            Email=names.email(self._silo, environment),
            AccountName=names.account_name(environment),
            RoleName=BOOTSTRAP_ROLE,
            IamUserAccessToBilling="DENY",
            Tags=names.tag_list(names.tags(self._terms, environment)),
        )
        return _asked_for(answer["CreateAccountStatus"])

    async def asked_for(self, request_id: str) -> Account:
        """Return what has become of a request."""
        organization = await self._roles.management()
        answer = await organization.call(
            "organizations", "describe_create_account_status", CreateAccountRequestId=request_id
        )
        return _asked_for(answer["CreateAccountStatus"])

    async def find(self, environment: Environment) -> Account | None:
        """Return an account that was asked for without anybody having heard the answer, made or not made yet."""
        name = names.account_name(environment)
        organization = await self._roles.management()
        async for status in organization.pages(
            "organizations", "list_create_account_status", "CreateAccountStatuses", States=["IN_PROGRESS"]
        ):
            if status["AccountName"] == name:
                return _asked_for(status)
        return await self.owner(environment)

    async def owner(self, environment: Environment) -> Account | None:
        """Return the account that has an environment's address, if it is the environment's; closed ones too."""
        email = names.email(self._silo, environment)
        organization = await self._roles.management()
        async for account in organization.pages("organizations", "list_accounts", "Accounts"):
            if account["Email"] == email and await self._is_of(account["Id"], environment):
                return _listed(account)
        return None

    async def look(self, account_id: str) -> Account | None:
        """Return what has become of an account; None if there is none any more."""
        organization = await self._roles.management()
        answer = await organization.unless("AccountNotFound", "organizations", "describe_account", AccountId=account_id)
        return None if answer is None else _listed(answer["Account"])

    async def place(self, account_id: str, unit_id: str) -> None:
        """Let an account be in an organizational unit."""
        organization = await self._roles.management()
        answer = await organization.call("organizations", "list_parents", ChildId=account_id)
        parent_id = answer["Parents"][0]["Id"]
        if parent_id != unit_id:
            await organization.call(
                "organizations",
                "move_account",
                AccountId=account_id,
                SourceParentId=parent_id,
                DestinationParentId=unit_id,
            )

    async def shut(self, account_id: str) -> None:
        """Let nobody in an account do anything, as of now; see `policies.of_closed_account`."""
        organization = await self._roles.management()
        if not await self.is_shut(account_id):
            policy_id = await self._closing_policy(organization)
            await organization.unless(
                "DuplicatePolicyAttachment", "organizations", "attach_policy", PolicyId=policy_id, TargetId=account_id
            )

    async def open(self, account_id: str) -> None:
        """Let everybody in an account do what they may again."""
        organization = await self._roles.management()
        for policy_id in await self._closing(organization, account_id):
            await organization.unless(
                "PolicyNotAttached", "organizations", "detach_policy", PolicyId=policy_id, TargetId=account_id
            )

    async def is_shut(self, account_id: str) -> bool:
        """Return whether nobody in an account can do anything."""
        return bool(await self._closing(await self._roles.management(), account_id))

    async def give_up(self, account_id: str) -> None:
        """Ask that an account be closed, which takes Amazon a while."""
        organization = await self._roles.management()
        await organization.unless("AccountAlreadyClosed", "organizations", "close_account", AccountId=account_id)

    async def _is_of(self, account_id: str, environment: Environment) -> bool:
        """Return whether this installation has made an account for an environment; addresses can be anybody's."""
        organization = await self._roles.management()
        answer = await organization.call("organizations", "list_tags_for_resource", ResourceId=account_id)
        tags: Mapping[str, str] = {tag["Key"]: tag["Value"] for tag in answer["Tags"]}
        return names.tags(self._terms, environment).items() <= tags.items()

    async def _closing(self, organization: Caller, account_id: str) -> list[str]:
        return [
            policy["Id"]
            async for policy in organization.pages(
                "organizations", "list_policies_for_target", "Policies", TargetId=account_id, Filter=_SERVICE_CONTROL
            )
            if policy["Name"] == names.CLOSED
        ]

    async def _closing_policy(self, organization: Caller) -> str:
        """Return the policy that shuts accounts; the first one to need it makes it."""
        known = await self._known_policy(organization)
        if known is None:
            made = await organization.unless(
                "DuplicatePolicy",
                "organizations",
                "create_policy",
                Name=names.CLOSED,
                Description="Nobody in this account may do anything.",
                Type=_SERVICE_CONTROL,
                Content=orjson.dumps(policies.of_closed_account()).decode(),
            )
            known = made["Policy"]["PolicySummary"]["Id"] if made else await self._known_policy(organization)
        if known is None:
            raise RefusedCallError("organizations:create_policy", code="DuplicatePolicy", is_passing=True)
        return known

    async def _known_policy(self, organization: Caller) -> str | None:
        async for policy in organization.pages("organizations", "list_policies", "Policies", Filter=_SERVICE_CONTROL):
            if policy["Name"] == names.CLOSED:
                policy_id: str = policy["Id"]
                return policy_id
        return None


_REQUESTS = {"IN_PROGRESS": State.ASKED_FOR, "FAILED": State.FAILED, "SUCCEEDED": State.ACTIVE}
_ACCOUNTS = {"SUSPENDED": State.CLOSED, "CLOSED": State.CLOSED, "PENDING_CLOSURE": State.CLOSING}


def _asked_for(status: Mapping[str, str]) -> Account:
    return Account(
        _REQUESTS[status["State"]],
        account_id=status.get("AccountId", ""),
        request_id=status["Id"],
        reason=status.get("FailureReason", ""),
    )


def _listed(account: Mapping[str, str]) -> Account:
    state = account.get("State") or account.get("Status", "ACTIVE")
    return Account(_ACCOUNTS.get(state, State.ACTIVE), account_id=account["Id"])
