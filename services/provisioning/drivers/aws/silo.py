"""Silos: an account of the organization for each tenant, made step by step.

What is to be made is stored before Amazon is asked for it. So an account that is there without anybody having heard of
it is found again: by the name of its request, or by its address and its tags.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from services.provisioning.drivers.aws import member as parts
from services.provisioning.drivers.aws import names, policies
from services.provisioning.drivers.aws.accounts import Account, Accounts, State
from services.provisioning.drivers.aws.calls import Credentials, RefusedCallError
from services.provisioning.drivers.aws.member import Member, Part
from services.provisioning.drivers.aws.roles import Roles
from services.provisioning.drivers.aws.terms import AwsTerms, SiloTerms
from services.provisioning.drivers.aws.wanted import UnusableParametersError, wanted_of
from services.provisioning.drivers.port import (
    Done,
    Environment,
    Inspection,
    Next,
    NoEnvironmentError,
    Outcome,
    Refused,
    Retry,
    Task,
    ThrottledError,
)

log = structlog.get_logger(__name__)

CREATE, AWAIT_ACCOUNT, PLACE, AWAIT_MAIL, VERIFY = "create", "await-account", "place", "await-mail", "verify"
LOOK_AGAIN, SHUT, CLOSE, AWAIT_CLOSED = "look-again", "shut", "close", "await-closed"

ACCOUNTS = "aws.accounts"
"""What the result of a removal counts."""

_PARTS: Mapping[str, Part] = {
    "network": parts.network,
    "storage": parts.storage,
    "access": parts.access,
    "mail": parts.mail,
    "quotas": parts.quotas,
    "products": parts.products,
    "reduce": parts.reduce,
}
_STAGES = [PLACE, *_PARTS, AWAIT_MAIL, VERIFY]
_OF_ALL = {"email", "accountId", "organizationalUnitId", "vpcId", "subnetIds", "table", "bucket", "roleArn"}
_OF_MAIL = {"mailDomain", "configurationSet", "dnsRecords", "smtpParameterArn"}

_MOST_FAILURES = 5
_MOST_POLLS = 720
"""How often an account is seen to be under way before it is given up: about an hour, where minutes are usual."""

_PASSING = {"CONCURRENT_ACCOUNT_MODIFICATION", "INTERNAL_FAILURE"}
_LIMITS = {"ACCOUNT_LIMIT_EXCEEDED", "ACCOUNT_NUMBER_LIMIT_EXCEEDED"}
_CLOSING_LIMITS = {"CLOSE_ACCOUNT_QUOTA_EXCEEDED", "CLOSE_ACCOUNT_REQUESTS_LIMIT_EXCEEDED"}
_TAKEN = "EMAIL_ALREADY_EXISTS"
_GONE = Refused(code="unknown_environment", detail="There is no account of this tenant.")

_Step = Callable[[Task], Awaitable[Outcome]]


class Silos:
    """Makes, changes and gives up tenants' accounts.

    Args:
        terms: with what silos need.
    """

    def __init__(self, roles: Roles, terms: AwsTerms) -> None:
        assert terms.silo is not None
        self._roles = roles
        self._terms = terms
        self._silo: SiloTerms = terms.silo
        self._waits = terms.waits
        self._accounts = Accounts(roles, terms)
        self._making: Mapping[str, _Step] = {
            "": self._intend,
            CREATE: self._create,
            AWAIT_ACCOUNT: self._await_account,
            PLACE: self._place,
            AWAIT_MAIL: self._await_mail,
            VERIFY: self._verify,
        }
        self._removing: Mapping[str, _Step] = {
            "": self._search,
            LOOK_AGAIN: self._search,
            SHUT: self._shut,
            CLOSE: self._close,
            AWAIT_CLOSED: self._await_closed,
        }

    async def provision(self, task: Task) -> Outcome:
        """Do one step of making an account that can be used."""
        try:
            wanted_of(task.environment)
        except UnusableParametersError as error:
            return Refused(code="invalid_parameters", detail=str(error))
        step = self._making.get(task.stage)
        return await step(task) if step else await self._make_part(task, _PARTS[task.stage])

    async def deprovision(self, task: Task) -> Outcome:
        """Do one step of giving an account up, known or not."""
        return await self._removing[task.stage](task)

    async def throttle(self, task: Task) -> Outcome:
        """Shut an account for everybody, or open it."""
        account = await self._known(task.environment)
        if account is None or not account.is_there:
            return _GONE
        if task.environment.is_throttled:
            await self._accounts.shut(account.account_id)
        else:
            await self._accounts.open(account.account_id)
        return Done(resources=task.environment.resources)

    async def deploy(self, task: Task) -> Outcome:
        """Write down which products run."""
        if "accountId" not in task.environment.resources:
            return _GONE
        async with self._member(task.environment) as member:
            await parts.products(member)
        return Done(resources=task.environment.resources)

    async def inspect(self, environment: Environment) -> Inspection:
        """Look at an account."""
        account = await self._known(environment)
        if account is None or account.state is State.CLOSED:
            return Inspection(exists=False)
        detail = {"accountId": account.account_id, "state": account.state.value}
        if not account.is_there:
            return Inspection(exists=True, isolation="silo", detail=detail)
        is_shut = await self._accounts.is_shut(account.account_id)
        region = _region(environment, self._terms)
        async with self._roles.bootstrap(account.account_id, region) as caller:
            products = await parts.installed(caller)
        return Inspection(exists=True, is_throttled=is_shut, isolation="silo", products=products, detail=detail)

    async def issue(self, environment: Environment) -> Credentials:
        """Lend a session of the tenant's role in its account; see `Lender.issue`."""
        account_id = environment.resources.get("accountId")
        account = await self._accounts.look(account_id) if account_id else None
        if account is None or not account.is_there or "roleArn" not in environment.resources:
            raise NoEnvironmentError
        if await self._accounts.is_shut(account.account_id):
            raise ThrottledError
        place = self._place_of(environment, account.account_id)
        return await self._roles.take(
            await self._roles.management(),
            environment.resources["roleArn"],
            name=names.session_name(environment.tenant_id),
            policy=policies.of_session(place, environment.tenant_id),
        )

    async def let_send_mail(self, environment: Environment, *, is_allowed: bool) -> None:
        """Let all of an account send mail, or nothing of it; see `services.provisioning.mail.Switch`.

        The configuration set alone would not do: whoever does not name it would go on.
        """
        account_id = environment.resources.get("accountId")
        if account_id is None:
            raise NoEnvironmentError
        async with self._roles.bootstrap(account_id, _region(environment, self._terms)) as caller:
            await caller.call("ses", "update_account_sending_enabled", Enabled=is_allowed)

    def _place_of(self, environment: Environment, account_id: str) -> policies.Place:
        region = _region(environment, self._terms)
        sends_mail = "configurationSet" in environment.resources
        bucket = names.bucket(account_id, region)
        return policies.Place(account_id, region, names.TABLE, bucket, sends_mail=sends_mail)

    async def _intend(self, task: Task) -> Outcome:
        """Say what is to be made, so that it is stored before anything is."""
        if "accountId" in task.environment.resources:
            return Next(stage=PLACE, resources=task.environment.resources)
        return self._intent(task.environment, task.environment.resources.get(names.GENERATION, 0))

    def _intent(self, environment: Environment, generation: int) -> Next:
        of_generation = {**environment.resources, names.GENERATION: generation}
        described = replace(environment, resources=of_generation)
        intent = {
            "email": names.email(self._silo, described),
            "accountName": names.account_name(described),
            "region": self._terms.region_of(environment.region),
        }
        return Next(stage=CREATE, resources={**of_generation, **intent})

    def _after_closed(self, environment: Environment) -> Next:
        """Go on where the account that is found was closed, since what it was made for was taken back: make another."""
        fresh = replace(environment, resources={**environment.resources, "requestId": ""})
        return self._intent(fresh, fresh.resources.get(names.GENERATION, 0) + 1)

    async def _create(self, task: Task) -> Outcome:
        environment = task.environment
        account = await self._accounts.find(environment)
        try:
            account = account or await self._accounts.ask_for(environment)
        except RefusedCallError as refusal:
            if refusal.reason in _LIMITS:
                return _not_made(refusal.reason)
            raise
        if account.state in (State.CLOSED, State.CLOSING):
            return self._after_closed(environment)
        if account.is_there:
            return self._has_account(task, account)
        resources = {**environment.resources, "requestId": account.request_id}
        return Next(stage=AWAIT_ACCOUNT, resources=resources, after=self._waits.poll, said="an account is being made")

    async def _await_account(self, task: Task) -> Outcome:
        resources = task.environment.resources
        account = await self._accounts.asked_for(resources["requestId"])
        if account.is_there:
            return self._has_account(task, account)
        if account.state is State.ASKED_FOR:
            return self._wait_longer(task)
        return await self._without_account(task, account)

    def _wait_longer(self, task: Task) -> Outcome:
        """Wait for an account that is being made, but not for ever; the way back waits until there is one to close."""
        polls = task.notes.get("polls", 0) + 1
        if polls >= _MOST_POLLS:
            detail = "Amazon is at work on the account for an hour. As soon as it is there, it is closed."
            return Refused(code="account_overdue", detail=detail)
        resources = task.environment.resources
        return Next(stage=AWAIT_ACCOUNT, resources=resources, notes={"polls": polls}, after=self._waits.poll)

    async def _without_account(self, task: Task, failed: Account) -> Outcome:
        """Go on where no account was made: it may be there since an attempt before, or be made by another one."""
        if failed.reason == _TAKEN and (owner := await self._accounts.owner(task.environment)):
            if owner.is_there:
                return self._has_account(task, owner)
            return self._after_closed(task.environment)
        failures = task.notes.get("failures", 0) + 1
        if failed.reason in _PASSING and failures < _MOST_FAILURES:
            return Next(
                stage=CREATE,
                resources={**task.environment.resources, "requestId": ""},
                notes={"failures": failures, "polls": 0},
                after=self._waits.poll * failures,
                said=f"no account was made: {failed.reason}; another is asked for",
            )
        return _not_made(failed.reason)

    def _has_account(self, task: Task, account: Account) -> Outcome:
        resources = {**task.environment.resources, "accountId": account.account_id}
        return Next(stage=PLACE, resources=resources, said=f"the account {account.account_id} is there")

    async def _place(self, task: Task) -> Outcome:
        resources = task.environment.resources
        unit_id = wanted_of(task.environment).organizational_unit_id or self._silo.organizational_unit_id
        account = await self._accounts.look(resources["accountId"])
        if account is None or not account.is_there:
            return _GONE
        await self._accounts.place(resources["accountId"], unit_id)
        placed = {**resources, "organizationalUnitId": unit_id}
        async with self._member(task.environment) as member:
            if await parts.is_reduced(member):
                return Next(stage=AWAIT_MAIL, resources=placed)
        return Next(stage=_STAGES[1], resources=placed)

    async def _make_part(self, task: Task, make: Part) -> Outcome:
        resources = task.environment.resources
        async with self._member(task.environment) as member:
            made = await make(member)
        if made is None:
            return Next(stage=task.stage, resources=resources, after=self._waits.poll)
        following = _STAGES[_STAGES.index(task.stage) + 1]
        after = self._waits.spread if following == AWAIT_MAIL else timedelta(0)
        return Next(stage=following, resources={**resources, **made}, after=after, said=_said(task.stage, made))

    async def _await_mail(self, task: Task) -> Outcome:
        resources = task.environment.resources
        domain = wanted_of(task.environment).mail_domain
        if domain is None:
            return Next(stage=VERIFY, resources=resources)
        async with self._member(task.environment) as member:
            states = await parts.mail_states(member, domain)
        if states == {"success"}:
            return Next(stage=VERIFY, resources=resources, said=f"mail can be sent from {domain}")
        if "failed" in states:
            detail = f"Amazon has not found the DNS records of {domain} within three days."
            return Refused(code="mail_domain_not_verified", detail=detail)
        return Next(stage=AWAIT_MAIL, resources=resources, after=self._waits.mail)

    async def _verify(self, task: Task) -> Outcome:
        """Let nothing be called ready of which something is missing, or in which we may do more than we have to."""
        resources = task.environment.resources
        missing = missing_of(task.environment)
        if missing:
            return Refused(code="half_configured", detail=f"The account lacks {', '.join(missing)}.")
        async with self._member(task.environment) as member:
            if not await parts.is_reduced(member):
                return Retry(detail="The bootstrap role still has rights that it must not have.")
        return Done(resources=resources)

    async def _search(self, task: Task) -> Outcome:
        """Find the account; nothing has been made only if nothing has come to light after a while."""
        environment = task.environment
        account = await self._known(environment)
        if account is None:
            return await self._nothing_found(task)
        if account.state is State.ASKED_FOR:
            resources = {**environment.resources, "requestId": account.request_id}
            return Next(stage=task.stage, resources=resources, after=self._waits.poll)
        if account.state is State.CLOSED:
            return Done(result={ACCOUNTS: 0})
        resources = {**environment.resources, "accountId": account.account_id}
        return Next(stage=SHUT, resources=resources)

    async def _nothing_found(self, task: Task) -> Outcome:
        if task.stage == "" and task.environment.resources:
            return Next(stage=LOOK_AGAIN, resources=task.environment.resources, after=self._waits.settled)
        return Done(result={ACCOUNTS: 0})

    async def _shut(self, task: Task) -> Outcome:
        """Let nobody work in the account from now on, however long Amazon takes to close it."""
        resources = task.environment.resources
        account_id = resources["accountId"]
        try:
            await self._accounts.shut(account_id)
        except RefusedCallError as refusal:
            if refusal.is_passing:
                raise
            log.warning("an account is closed while it is open", action="aws_not_shut", reason=refusal.code)
            return Next(stage=CLOSE, resources=resources)
        return Next(stage=CLOSE, resources=resources, said=f"nobody can use the account {account_id}")

    async def _close(self, task: Task) -> Outcome:
        resources = task.environment.resources
        try:
            await self._accounts.give_up(resources["accountId"])
        except RefusedCallError as refusal:
            if refusal.reason not in _CLOSING_LIMITS:
                raise
            detail = (
                f"The account {resources['accountId']} can be used by nobody, and is closed as soon as Amazon lets us: "
                f"an organization may close a tenth of its accounts in 30 days ({refusal.reason})."
            )
            return Retry(detail=detail, after=self._waits.quota)
        return Next(stage=AWAIT_CLOSED, resources=resources)

    async def _await_closed(self, task: Task) -> Outcome:
        resources = task.environment.resources
        account = await self._accounts.look(resources["accountId"])
        if account is None or account.state is State.CLOSED:
            return Done(result={ACCOUNTS: 1})
        return Next(stage=AWAIT_CLOSED, resources=resources, after=self._waits.poll)

    async def _known(self, environment: Environment) -> Account | None:
        """Return an environment's account: by its id, by the request for it, or as it is found."""
        resources = environment.resources
        if account_id := resources.get("accountId"):
            return await self._accounts.look(account_id)
        if request_id := resources.get("requestId"):
            account = await self._accounts.asked_for(request_id)
            if account.is_there:
                return await self._accounts.look(account.account_id)
            if account.state is State.ASKED_FOR:
                return account
        return await self._accounts.find(environment)

    @asynccontextmanager
    async def _member(self, environment: Environment) -> AsyncIterator[Member]:
        account_id, region = environment.resources["accountId"], _region(environment, self._terms)
        async with self._roles.bootstrap(account_id, region) as caller:
            yield Member(caller, self._terms, self._silo, environment, wanted_of(environment), account_id, region)


def missing_of(environment: Environment) -> Sequence[str]:
    """Return what an environment lacks before it can be called ready."""
    wanted = wanted_of(environment)
    needed = _OF_ALL | (_OF_MAIL if wanted.mail_domain else set()) | ({"quotas"} if wanted.quotas else set())
    return sorted(name for name in needed if not environment.resources.get(name))


def _region(environment: Environment, terms: AwsTerms) -> str:
    region: str = environment.resources.get("region") or terms.region_of(environment.region)
    return region


def _said(stage: str, made: Mapping[str, Any]) -> str | None:
    """Return what people are told of a part: of most nothing, and of the mail's domain what they have to do."""
    if stage == "reduce":
        return "all is set up, and the bootstrap role has the least rights"
    if records := made.get("dnsRecords"):
        told = "; ".join(f"{each['name']} {each['type']} {each['value']}" for each in records)
        return f"set these DNS records: {told}"
    return None


def _not_made(reason: str) -> Refused:
    if reason in _LIMITS:
        detail = "The organization has as many accounts as Amazon allows; ask Amazon for more."
        return Refused(code="account_limit", detail=detail)
    if reason == _TAKEN:
        detail = "Somebody else's account has the address that the tenant's account was to have."
        return Refused(code="address_taken", detail=detail)
    return Refused(code="account_refused", detail=f"Amazon has made no account: {reason or 'it does not say why'}.")
