"""Tenants' own accounts: whatever happens while one is made, none is orphaned, and none half set up is called ready."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError

from services.provisioning.drivers import Done, Environment, Next, NoEnvironmentError, Refused, Retry, Task
from services.provisioning.drivers.aws import AwsDriver, Waits, open_aws
from services.provisioning.drivers.aws import calls as aws_calls
from services.provisioning.drivers.aws.member import EVENTS
from services.provisioning.drivers.aws.policies import ADMINISTRATOR
from services.provisioning.drivers.aws.terms import BOOTSTRAP_ROLE
from services.provisioning.tests.aws_kit import AwsKit, item, lent, works_with
from services.provisioning.tests.cloud import MANAGEMENT_ROLE, TOPIC, WAITS, Cloud
from services.provisioning.tests.driver_contract import Fault, Job, environment
from shared.clock import SystemClock

DOMAIN = "t.mail.example.com"
WITH_MAIL: Mapping[str, Any] = {
    "mailDomain": "{tenantId}.mail.example.com",
    "quotas": [{"service": "ses", "code": "L-804C8AE8", "value": 50_000}],
}


@pytest.fixture
async def kit(cloud: Cloud) -> AsyncIterator[AwsKit]:
    async with open_aws(cloud.terms(), clock=SystemClock()) as driver:
        yield AwsKit(driver, cloud)


@pytest.fixture
def driver(kit: AwsKit) -> AwsDriver:
    return kit.driver


def silo(tenant_id: str = "t", **more: Any) -> Environment:
    return environment(tenant_id, "silo", **more)


async def provisioned(kit: AwsKit, wanted: Environment) -> Environment:
    job = Job(kit, "provision", wanted)
    await job.finish()
    return job.environment


async def removed(kit: AwsKit, job: Job) -> Done:
    return await Job(kit, "deprovision", job.environment, notes=job.notes).finish()


async def reached(kit: AwsKit, stage: str, wanted: Environment) -> Job:
    """Go on until a stage is to be next."""
    job = Job(kit, "provision", wanted)
    while job.stage != stage:
        assert job.done is None
        await job.advance()
    return job


def bootstrap_rights(cloud: Cloud, account_id: str) -> tuple[set[str], set[str]]:
    """Return which policies the bootstrap role has: attached ones, and those that are its own."""
    iam = cloud.within(account_id, "iam")
    attached = iam.list_attached_role_policies(RoleName=BOOTSTRAP_ROLE)["AttachedPolicies"]
    return {each["PolicyArn"] for each in attached}, set(iam.list_role_policies(RoleName=BOOTSTRAP_ROLE)["PolicyNames"])


class TestMaking:
    async def test_twenty_tenants_at_once_each_get_an_account_whose_bootstrap_role_is_reduced(
        self, kit: AwsKit, cloud: Cloud
    ) -> None:
        cloud.plan.polls = 2

        made = await asyncio.gather(*(provisioned(kit, silo(f"t{number}")) for number in range(20)))

        accounts = [each.resources["accountId"] for each in made]
        assert len(set(accounts)) == 20
        assert set(cloud.accounts()) == set(accounts)
        for each in made:
            assert bootstrap_rights(cloud, each.resources["accountId"]) == (set(), {"tenure-least"})
            assert cloud.accounts(tenant_id=each.tenant_id) == [each.resources["accountId"]]
        assert cloud.refused == []

    async def test_an_account_is_waited_for_and_put_in_its_unit(self, kit: AwsKit, cloud: Cloud) -> None:
        cloud.plan.polls = 3

        made = await provisioned(kit, silo())

        assert cloud.asked.count("DescribeCreateAccountStatus") >= 3
        parents = cloud.open("organizations").list_parents(ChildId=made.resources["accountId"])["Parents"]
        assert parents == [{"Id": cloud.unit_id, "Type": "ORGANIZATIONAL_UNIT"}]

    async def test_the_account_has_all_that_its_tier_says_and_is_tagged(self, kit: AwsKit, cloud: Cloud) -> None:
        cloud.plan.verified.add(DOMAIN)

        made = await provisioned(kit, silo(parameters=WITH_MAIL, products={"notes": "1"}))

        account_id = made.resources["accountId"]
        vpcs = cloud.within(account_id, "ec2").describe_vpcs(VpcIds=[made.resources["vpcId"]])["Vpcs"]
        assert {"Key": "tenure:tenant", "Value": "t"} in vpcs[0]["Tags"]
        assert len(made.resources["subnetIds"]) == 2
        told = cloud.within(account_id, "ses").describe_configuration_set(
            ConfigurationSetName="tenure", ConfigurationSetAttributeNames=["eventDestinations"]
        )["EventDestinations"]
        assert [each["SNSDestination"]["TopicARN"] for each in told] == [TOPIC]
        assert set(told[0]["MatchingEventTypes"]) == set(EVENTS)
        assert cloud.plan.quotas == [(account_id, "L-804C8AE8", 50_000)]
        assert made.resources["quotas"] == {"ses/L-804C8AE8": "requested"}
        (found,) = await kit.driver.inspect([made])
        assert found.products == {"notes": "1"}

    async def test_a_product_has_an_account_with_a_domain_of_its_own(self, kit: AwsKit, cloud: Cloud) -> None:
        cloud.plan.verified.add("notes.t.example.com")
        wanted = {"mailDomain": "{product}.{tenantId}.example.com"}

        made = await provisioned(kit, silo("T:notes", product="notes", parameters=wanted))

        assert made.resources["mailDomain"] == "notes.t.example.com"
        vpcs = cloud.within(made.resources["accountId"], "ec2").describe_vpcs(VpcIds=[made.resources["vpcId"]])["Vpcs"]
        tags = {tag["Key"]: tag["Value"] for tag in vpcs[0]["Tags"]}
        assert (tags["tenure:tenant"], tags["tenure:product"]) == ("T", "notes")

    async def test_every_step_may_be_done_twice(self, kit: AwsKit, cloud: Cloud) -> None:
        cloud.plan.verified.add(DOMAIN)
        cloud.plan.polls = 1
        job = Job(kit, "provision", silo(parameters=WITH_MAIL, products={"notes": "1"}), is_careful=True)

        await job.finish()
        again = await provisioned(kit, job.environment)

        assert again.resources == job.environment.resources
        assert len(cloud.accounts()) == 1
        assert len(keys_of(cloud, again)) == 1
        await Job(kit, "deprovision", again, is_careful=True).finish()
        assert cloud.accounts() == []

    @pytest.mark.parametrize(
        ("reason", "code"),
        [
            ("ACCOUNT_LIMIT_EXCEEDED", "account_limit"),
            ("INVALID_EMAIL", "account_refused"),
            ("EMAIL_ALREADY_EXISTS", "address_taken"),
        ],
    )
    async def test_an_account_that_is_not_made_is_refused_with_the_reason(
        self, driver: AwsDriver, cloud: Cloud, kit: AwsKit, reason: str, code: str
    ) -> None:
        cloud.plan.failures = [reason]
        job = await reached(kit, "await-account", silo())

        (outcome,) = await driver.provision([Task(environment=job.environment, stage=job.stage)])

        assert isinstance(outcome, Refused)
        assert outcome.code == code
        assert sum((await removed(kit, job)).result.values()) == 0
        assert cloud.accounts() == []

    async def test_what_amazon_fails_at_by_itself_is_asked_for_again(self, kit: AwsKit, cloud: Cloud) -> None:
        cloud.plan.failures = ["INTERNAL_FAILURE", "CONCURRENT_ACCOUNT_MODIFICATION"]

        await provisioned(kit, silo())

        assert cloud.asked.count("CreateAccount") == 3
        assert len(cloud.accounts()) == 1

    async def test_it_is_not_asked_for_again_and_again(self, kit: AwsKit, cloud: Cloud) -> None:
        cloud.plan.failures = ["INTERNAL_FAILURE"] * 100

        with pytest.raises(AssertionError, match="account_refused"):
            await provisioned(kit, silo())

        assert cloud.asked.count("CreateAccount") == 5

    async def test_an_account_of_somebody_else_with_the_same_address_is_left_alone(
        self, kit: AwsKit, cloud: Cloud
    ) -> None:
        job = await reached(kit, "create", silo())
        cloud.open("organizations").create_account(Email=job.environment.resources["email"], AccountName="other")

        with pytest.raises(AssertionError, match="address_taken"):
            await job.finish()

        assert sum((await removed(kit, job)).result.values()) == 0
        assert len(cloud.accounts()) == 1

    async def test_only_a_role_that_exists_is_taken_on(self, cloud: Cloud) -> None:
        with pytest.raises(ClientError, match="AccessDenied"):
            cloud.open("sts", "ours").assume_role(
                RoleArn=MANAGEMENT_ROLE.replace("management", "nobody"), RoleSessionName="test"
            )

    @pytest.mark.parametrize(
        "parameters",
        [
            {"mailDomain": "no domain"},
            {"mailDomain": "{tenantId}.example.com"},
            {"mailDomain": "{product}.example.com"},
            {"organizationalUnitId": "r-1"},
            {"quotas": [{"service": "ses"}]},
        ],
    )
    async def test_what_a_tier_says_has_to_make_sense(self, driver: AwsDriver, parameters: Mapping[str, Any]) -> None:
        (outcome,) = await driver.provision([Task(environment=silo("t_1", parameters=parameters))])

        assert isinstance(outcome, Refused)
        assert outcome.code == "invalid_parameters"


def keys_of(cloud: Cloud, made: Environment) -> list[str]:
    """Return the access keys of whoever sends a tenant's mail."""
    listed = cloud.within(made.resources["accountId"], "iam").list_access_keys(UserName="tenure-smtp")
    return [each["AccessKeyId"] for each in listed["AccessKeyMetadata"]]


class TestMail:
    async def test_nobody_is_ready_whose_domain_is_not_verified(self, kit: AwsKit, cloud: Cloud) -> None:
        job = await reached(kit, "await-mail", silo(parameters=WITH_MAIL))

        for _ in range(3):
            assert isinstance(outcome := await job.step(), Next)
            assert outcome.stage == "await-mail"
            assert outcome.after == WAITS.mail

        cloud.plan.verified.add(DOMAIN)
        assert isinstance(await job.finish(), Done)

    async def test_nobody_is_ready_whose_domain_is_never_verified(self, kit: AwsKit, cloud: Cloud) -> None:
        job = await reached(kit, "await-mail", silo(parameters=WITH_MAIL))
        cloud.plan.failed.add(DOMAIN)

        with pytest.raises(AssertionError, match="mail_domain_not_verified"):
            await job.step()

    async def test_people_are_told_which_records_to_set(self, kit: AwsKit) -> None:
        job = await reached(kit, "mail", silo(parameters=WITH_MAIL))

        outcome = await job.step()

        assert isinstance(outcome, Next)
        records = outcome.resources["dnsRecords"]
        assert [each["type"] for each in records] == ["TXT", "CNAME", "CNAME", "CNAME"]
        assert outcome.said is not None
        assert all(each["value"] in outcome.said for each in records)

    async def test_the_role_is_reduced_before_anybody_is_waited_for(self, kit: AwsKit, cloud: Cloud) -> None:
        job = await reached(kit, "await-mail", silo(parameters=WITH_MAIL))

        assert bootstrap_rights(cloud, job.environment.resources["accountId"]) == (set(), {"tenure-least"})

    async def test_the_smtp_password_is_nowhere_but_in_the_account(
        self, kit: AwsKit, cloud: Cloud, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        job = await reached(kit, "reduce", silo(parameters=WITH_MAIL))

        ssm = cloud.within(job.environment.resources["accountId"], "ssm")
        parameter = ssm.get_parameter(Name="/tenure/smtp", WithDecryption=True)["Parameter"]
        kept = json.loads(parameter["Value"])
        assert parameter["Type"] == "SecureString"
        assert [kept["username"]] == keys_of(cloud, job.environment)
        assert kept["password"] not in f"{job.environment} {job.notes} {caplog.text}"
        assert job.environment.resources["smtpParameterArn"] == parameter["ARN"]

    async def test_a_key_whose_password_was_lost_is_replaced(self, kit: AwsKit, cloud: Cloud) -> None:
        job = await reached(kit, "access", silo(parameters=WITH_MAIL))
        with cloud.losing_answers("CreateAccessKey", times=1):
            assert isinstance(await job.step(), Retry)

        await job.advance()

        assert len(keys_of(cloud, job.environment)) == 1

    async def test_a_quota_that_is_refused_holds_nobody_up(self, kit: AwsKit, cloud: Cloud) -> None:
        cloud.plan.verified.add(DOMAIN)
        with cloud.refusing("RequestServiceQuotaIncrease", "NoSuchResourceException"):
            made = await provisioned(kit, silo(parameters=WITH_MAIL))

        assert made.resources["quotas"] == {"ses/L-804C8AE8": "refused: NoSuchResourceException"}


class TestReduction:
    async def test_afterwards_the_bootstrap_role_can_change_nothing(self, kit: AwsKit, cloud: Cloud) -> None:
        made = await provisioned(kit, silo())
        role_arn = f"arn:aws:iam::{made.resources['accountId']}:role/{BOOTSTRAP_ROLE}"
        given = await kit.driver._roles.take(await kit.driver._roles.management(), role_arn)
        iam = cloud.open("iam", given.access_key_id, given.secret_access_key, given.session_token)

        with pytest.raises(ClientError, match="AccessDenied"):
            iam.create_user(UserName="intruder")
        with pytest.raises(ClientError, match="AccessDenied"):
            iam.attach_role_policy(RoleName=BOOTSTRAP_ROLE, PolicyArn=ADMINISTRATOR)

    @pytest.mark.parametrize("lost", ["PutRolePolicy", "DetachRolePolicy"])
    async def test_a_reduction_of_which_nobody_heard_is_found_to_be_done(
        self, kit: AwsKit, cloud: Cloud, lost: str
    ) -> None:
        job = await reached(kit, "reduce", silo())
        with cloud.losing_answers(lost, times=1):
            assert isinstance(await job.step(), Retry)

        await job.finish()

        assert bootstrap_rights(cloud, job.environment.resources["accountId"]) == (set(), {"tenure-least"})
        assert cloud.refused == []

    async def test_nobody_is_ready_while_the_role_has_more_rights(self, kit: AwsKit, cloud: Cloud) -> None:
        job = await reached(kit, "verify", silo())
        iam = cloud.within(job.environment.resources["accountId"], "iam")
        iam.attach_role_policy(RoleName=BOOTSTRAP_ROLE, PolicyArn=ADMINISTRATOR)

        assert isinstance(await job.step(), Retry)

    async def test_nobody_is_ready_of_whose_account_something_is_missing(self, kit: AwsKit) -> None:
        job = await reached(kit, "verify", silo())

        for name in ("vpcId", "roleArn", "table"):
            lacking = {key: value for key, value in job.environment.resources.items() if key != name}
            task = Task(environment=replace(job.environment, resources=lacking), stage="verify")
            (outcome,) = await kit.driver.provision([task])
            assert outcome == Refused(code="half_configured", detail=f"The account lacks {name}.")


class TestDisturbance:
    @pytest.mark.parametrize("fault", [Fault.LOST, Fault.FAILS])
    async def test_whatever_call_is_lost_there_is_one_account_and_it_is_whole(
        self, kit: AwsKit, cloud: Cloud, fault: Fault
    ) -> None:
        cloud.plan.polls = 1
        for place in count(step=1 if fault is Fault.LOST else 9):
            tenant_id = f"t{place}"
            cloud.plan.verified.add(f"{tenant_id}.mail.example.com")
            with cloud.breaking(fault, after=place):
                job = Job(kit, "provision", silo(tenant_id, parameters=WITH_MAIL, products={"notes": "1"}))
                await job.finish()
                has_happened = cloud.plan.fault is None
            account_id = job.environment.resources["accountId"]
            assert cloud.accounts(tenant_id=tenant_id) == [account_id]
            assert bootstrap_rights(cloud, account_id) == (set(), {"tenure-least"})
            if not has_happened:
                break
            assert job.tried or fault is Fault.LOST
        assert place > 10
        assert cloud.refused == []

    async def test_an_account_that_was_asked_for_before_a_crash_is_adopted(self, kit: AwsKit, cloud: Cloud) -> None:
        for polls in (0, 1, 3):
            cloud.plan.polls = polls
            job = await reached(kit, "create", silo(f"t{polls}"))
            with cloud.losing_answers("CreateAccount", times=1):
                assert isinstance(await job.step(), Retry)

            await job.finish()

            assert cloud.accounts(tenant_id=f"t{polls}") == [job.environment.resources["accountId"]]

    async def test_an_account_that_was_asked_for_before_a_crash_is_given_up_too(
        self, kit: AwsKit, cloud: Cloud
    ) -> None:
        for polls in (0, 1, 3):
            cloud.plan.polls = polls
            job = await reached(kit, "create", silo(f"t{polls}"))
            with cloud.losing_answers("CreateAccount", times=1):
                assert isinstance(await job.step(), Retry)

            done = await removed(kit, job)

            assert done.result == {"aws.accounts": 1}
            assert cloud.accounts() == []

    async def test_what_is_on_its_way_is_waited_for_before_nothing_is_said_to_be_left(
        self, cloud: Cloud, kit: AwsKit
    ) -> None:
        settled = timedelta(seconds=30)
        job = await reached(kit, "create", silo())
        async with open_aws(cloud.terms(waits=Waits(settled=settled)), clock=SystemClock()) as driver:
            (outcome,) = await driver.deprovision([Task(environment=job.environment)])

        assert isinstance(outcome, Next)
        assert outcome.after == settled
        assert settled.total_seconds() > aws_calls.SECONDS

        await job.step()
        task = Task(environment=job.environment, stage=outcome.stage)
        (outcome,) = await kit.driver.deprovision([replace(task, environment=silo_as_stored(job))])
        assert isinstance(outcome, Next)
        assert outcome.stage == "shut"

    async def test_what_is_asked_for_too_often_is_asked_for_later(self, kit: AwsKit, cloud: Cloud) -> None:
        job = await reached(kit, "create", silo())
        for code in ("TooManyRequestsException", "ThrottlingException"):
            with cloud.refusing("CreateAccount", code):
                outcome = await job.step()
            assert isinstance(outcome, Retry)
            assert outcome.after >= timedelta(seconds=10)
        with cloud.refusing("CreateAccount", "ConcurrentModificationException"):
            assert isinstance(await job.step(), Retry)

        await job.finish()

    async def test_an_endpoint_that_is_away_is_waited_for(self, kit: AwsKit, cloud: Cloud) -> None:
        for stage in ("create", "storage", "reduce"):
            job = await reached(kit, stage, silo(stage))
            with cloud.away():
                outcome = await job.step()
            assert isinstance(outcome, Retry)
            assert "EndpointConnectionError" in outcome.detail

            await job.finish()

            assert len(cloud.accounts(tenant_id=stage)) == 1

    async def test_an_endpoint_that_does_not_answer_is_not_waited_for(
        self, kit: AwsKit, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = await reached(kit, "storage", silo())
        monkeypatch.setattr(aws_calls, "SECONDS", 0.1)
        with cloud.hanging():
            outcome = await job.step()

        assert isinstance(outcome, Retry)
        assert "in time" in outcome.detail

    async def test_without_credentials_nothing_is_done(self, kit: AwsKit, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
        job = await reached(kit, "create", silo())

        outcome = await job.step()

        assert isinstance(outcome, Retry)
        assert "NoCredentialsError" in outcome.detail


def silo_as_stored(job: Job) -> Environment:
    """Return an environment as it was stored before an account was asked for."""
    kept = {name: job.environment.resources[name] for name in ("email", "accountName", "region", "generation")}
    return replace(job.environment, resources=kept)


class TestGivingUp:
    async def test_as_long_as_amazon_closes_no_more_accounts_nobody_can_use_it_and_it_is_said_so(
        self, kit: AwsKit, cloud: Cloud
    ) -> None:
        made = await provisioned(kit, silo())
        credentials = await kit.driver.issue(made)
        cloud.plan.closing_reason = "CLOSE_ACCOUNT_QUOTA_EXCEEDED"
        job = Job(kit, "deprovision", made)
        while job.stage != "close":
            await job.advance()

        for _ in range(2):
            outcome = await job.step()
            assert isinstance(outcome, Retry)
            assert "a tenth of its accounts in 30 days" in outcome.detail
        assert not works_with(cloud, credentials, made)

        cloud.plan.closing_reason = ""
        assert (await job.finish()).result == {"aws.accounts": 1}
        assert cloud.accounts() == []

    async def test_an_account_is_made_again_after_one_that_was_given_up(self, kit: AwsKit, cloud: Cloud) -> None:
        wanted = silo()
        first = await provisioned(kit, wanted)
        await Job(kit, "deprovision", first).finish()

        second = await provisioned(kit, wanted)

        assert second.resources["accountId"] != first.resources["accountId"]
        assert cloud.accounts() == [second.resources["accountId"]]
        await Job(kit, "deprovision", second).finish()
        assert cloud.accounts() == []


class TestUse:
    async def test_what_is_lent_reaches_the_account_and_no_other_one(self, kit: AwsKit, cloud: Cloud) -> None:
        one, other = await asyncio.gather(provisioned(kit, silo("a")), provisioned(kit, silo("a-b")))
        credentials = await kit.driver.issue(one)

        assert works_with(cloud, credentials, one)
        assert not works_with(cloud, credentials, other)
        client = lent(cloud, credentials, "dynamodb")
        with pytest.raises(ClientError, match="AccessDenied"):
            client.put_item(TableName="tenure", Item=item("a-b", "x"))
        with pytest.raises(ClientError, match="AccessDenied"):
            lent(cloud, credentials, "iam").create_user(UserName="intruder")

    async def test_it_lasts_for_a_quarter_of_an_hour_and_is_not_shown(self, kit: AwsKit) -> None:
        credentials = await kit.driver.issue(await provisioned(kit, silo()))

        left = credentials.expires_at - SystemClock().now()
        assert timedelta(minutes=14) < left <= timedelta(minutes=15)
        assert credentials.secret_access_key not in repr(credentials)
        assert credentials.session_token not in repr(credentials)

    async def test_a_throttled_tenant_can_do_nothing_with_what_it_was_lent_before(
        self, kit: AwsKit, cloud: Cloud
    ) -> None:
        made = await provisioned(kit, silo())
        credentials = await kit.driver.issue(made)

        await Job(kit, "throttle", replace(made, is_throttled=True)).finish()
        assert not works_with(cloud, credentials, made)

        await Job(kit, "throttle", made).finish()
        assert works_with(cloud, credentials, made)

    async def test_nothing_is_lent_of_what_is_not_whole(self, kit: AwsKit) -> None:
        job = await reached(kit, "access", silo())

        with pytest.raises(NoEnvironmentError):
            await kit.driver.issue(job.environment)

    async def test_nothing_is_carried_anywhere(self, kit: AwsKit, driver: AwsDriver) -> None:
        made = await provisioned(kit, silo())

        (refused,) = await driver.move([Task(environment=made, target=replace(made, isolation="pool", resources={}))])
        (given_up,) = await driver.move([Task(environment=made, target=made)])

        assert isinstance(refused, Refused)
        assert refused.code == "unsupported_move"
        assert given_up == Done(resources=made.resources)
