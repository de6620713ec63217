"""What tenants share on Amazon's infrastructure, and how each reaches its own part of it alone."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from services.provisioning.drivers import (
    Environment,
    Next,
    NoEnvironmentError,
    Refused,
    Task,
    ThrottledError,
    parts_of,
)
from services.provisioning.drivers.aws import Waits, open_aws
from services.provisioning.tests.aws_kit import AwsKit, item, lent, works_with
from services.provisioning.tests.cloud import BUCKET, POOL_ROLE, TABLE, Cloud
from services.provisioning.tests.driver_contract import Job, environment
from shared.clock import ManualClock, SystemClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=SystemClock().now())


@pytest.fixture
async def kit(cloud: Cloud, clock: ManualClock) -> AsyncIterator[AwsKit]:
    async with open_aws(cloud.terms(silo=False), clock=clock) as driver:
        yield AwsKit(driver, cloud)


async def provisioned(kit: AwsKit, tenant_id: str) -> Environment:
    job = Job(kit, "provision", environment(tenant_id, "pool", product=parts_of(tenant_id)[1]))
    await job.finish()
    return job.environment


def role_policies(cloud: Cloud) -> list[str]:
    names: list[str] = cloud.open("iam").list_role_policies(RoleName=POOL_ROLE.rpartition("/")[2])["PolicyNames"]
    return [name for name in names if name.startswith("closed-")]


@pytest.mark.parametrize(
    ("own", "other"),
    [("a", "a-b"), ("a", "a_b"), ("a", "aa"), ("a", "A"), ("a", "a:b"), ("a:b", "a"), ("a:b", "a:b-c")],
)
async def test_nobody_reaches_what_is_another_ones_however_similar_the_ids(
    kit: AwsKit, cloud: Cloud, own: str, other: str
) -> None:
    mine, others = await provisioned(kit, own), await provisioned(kit, other)
    await kit.keep(others, "secret")
    credentials = await kit.driver.issue(mine)
    items, objects = lent(cloud, credentials, "dynamodb"), lent(cloud, credentials, "s3")

    attempts: list[Any] = [
        lambda: items.get_item(TableName=TABLE, Key=item(other, "secret")),
        lambda: items.put_item(TableName=TABLE, Item=item(other, "forged")),
        lambda: items.delete_item(TableName=TABLE, Key=item(other, "secret")),
        lambda: items.scan(TableName=TABLE),
        lambda: objects.put_object(Bucket=BUCKET, Key=f"tenants/{other}/forged", Body=b""),
        lambda: objects.list_objects_v2(Bucket=BUCKET, Prefix=f"tenants/{other}/"),
        lambda: objects.list_objects_v2(Bucket=BUCKET),
    ]
    for attempt in attempts:
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()
    assert works_with(cloud, credentials, mine)
    assert await kit.kept(others) == {"secret"}


async def test_all_is_removed_with_every_version_and_counted_and_nothing_of_others_is(
    kit: AwsKit, cloud: Cloud
) -> None:
    mine, others = await provisioned(kit, "a"), await provisioned(kit, "a-b")
    await kit.keep(others, "kept")
    credentials = await kit.driver.issue(mine)
    table, objects = lent(cloud, credentials, "dynamodb"), lent(cloud, credentials, "s3")
    for number in range(60):
        key = {"tenant": {"S": f"a#{number % 8}"}, "item": {"S": str(number)}}
        table.put_item(TableName=TABLE, Item=key)
    for _ in range(2):
        objects.put_object(Bucket=BUCKET, Key="tenants/a/file", Body=b"")
    objects.delete_object(Bucket=BUCKET, Key="tenants/a/file")

    done = await Job(kit, "deprovision", mine).finish()

    assert done.result == {"aws.items": 60, "aws.objects": 3}
    assert await kit.remains("a") == set()
    assert await kit.kept(others) == {"kept"}
    assert await kit.is_usable(others)


async def test_what_was_issued_is_of_no_use_once_the_tenant_is_throttled_or_gone(kit: AwsKit, cloud: Cloud) -> None:
    made = await provisioned(kit, "a")
    credentials = await kit.driver.issue(made)

    closed = replace(made, is_throttled=True)
    await Job(kit, "throttle", closed).finish()
    assert not works_with(cloud, credentials, made)
    with pytest.raises(ThrottledError):
        await kit.driver.issue(made)

    await Job(kit, "throttle", made).finish()
    assert works_with(cloud, credentials, made)

    await Job(kit, "deprovision", made).finish()
    assert not works_with(cloud, credentials, made)
    with pytest.raises(NoEnvironmentError):
        await kit.driver.issue(made)


async def test_what_was_issued_for_one_environment_is_of_use_when_another_of_the_tenant_is_throttled(
    kit: AwsKit, cloud: Cloud
) -> None:
    own, products = await provisioned(kit, "a"), await provisioned(kit, "a:b")
    lent_of_own, lent_of_products = await kit.driver.issue(own), await kit.driver.issue(products)

    await Job(kit, "throttle", replace(products, is_throttled=True)).finish()
    assert not works_with(cloud, lent_of_products, products)
    assert works_with(cloud, lent_of_own, own)
    assert role_policies(cloud) == ["closed-a@b"]

    await Job(kit, "throttle", products).finish()
    await Job(kit, "throttle", replace(own, is_throttled=True)).finish()
    assert works_with(cloud, lent_of_products, products)
    assert not works_with(cloud, lent_of_own, own)


async def test_sessions_from_before_stay_useless_when_the_tenant_comes_again(
    kit: AwsKit, cloud: Cloud, clock: ManualClock
) -> None:
    made = await provisioned(kit, "a")
    before = await kit.driver.issue(made)
    await Job(kit, "deprovision", made).finish()
    await clock.advance(60)  # the server's clock is another one

    await provisioned(kit, "a")

    assert not works_with(cloud, before, made)


async def test_what_closes_sessions_is_swept_once_none_is_left(kit: AwsKit, cloud: Cloud, clock: ManualClock) -> None:
    made = await provisioned(kit, "a")
    await kit.driver.issue(made)
    await Job(kit, "throttle", replace(made, is_throttled=True)).finish()

    assert await kit.driver.sweep() == 0
    assert role_policies(cloud) == ["closed-a"]
    await clock.advance(timedelta(minutes=15).total_seconds() + 2)
    assert await kit.driver.sweep() == 1
    assert role_policies(cloud) == []
    with pytest.raises(ThrottledError):
        await kit.driver.issue(made)


async def test_the_role_is_left_alone_where_nothing_was_issued_for_long(
    kit: AwsKit, cloud: Cloud, clock: ManualClock
) -> None:
    made = await provisioned(kit, "a")
    await Job(kit, "throttle", replace(made, is_throttled=True)).finish()
    await Job(kit, "throttle", made).finish()
    await kit.driver.issue(made)
    await clock.advance(timedelta(minutes=16).total_seconds())

    await Job(kit, "deprovision", made).finish()

    assert role_policies(cloud) == []


async def test_another_environment_of_the_same_tenant_is_not_touched(kit: AwsKit) -> None:
    made = await provisioned(kit, "a")
    another = environment("a", "pool")

    (outcome,) = await kit.driver.provision([Task(environment=another)])
    assert isinstance(outcome, Refused)
    assert outcome.code == "tenant_exists"
    assert sum((await Job(kit, "deprovision", another).finish()).result.values()) == 0
    with pytest.raises(NoEnvironmentError):
        await kit.driver.issue(another)
    assert await kit.is_usable(made)


async def test_what_is_on_its_way_is_waited_for_before_nothing_is_said_to_be_left(cloud: Cloud) -> None:
    async with open_aws(cloud.terms(waits=Waits()), clock=SystemClock()) as driver:
        (outcome,) = await driver.deprovision([Task(environment=environment("a", "pool"))])

    assert isinstance(outcome, Next)
    assert outcome.after == Waits().settled


async def test_a_driver_makes_only_what_it_was_set_up_for(kit: AwsKit) -> None:
    assert kit.driver.isolations == ("pool",)

    (outcome,) = await kit.driver.provision([Task(environment=environment("a", "silo"))])

    assert isinstance(outcome, Refused)
    assert outcome.code == "unsupported_isolation"
