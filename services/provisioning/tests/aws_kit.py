"""The driver for Amazon's infrastructure, and how a tenant works there; see `driver_contract.DriverKit`."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from services.provisioning.drivers import Environment, NoEnvironmentError, ThrottledError
from services.provisioning.drivers.aws import AwsDriver
from services.provisioning.drivers.port import AwsCredentials
from services.provisioning.tests.cloud import BUCKET, OWN_ACCOUNT, TABLE, Cloud
from services.provisioning.tests.driver_contract import Fault


@dataclass
class AwsKit:
    """The driver, with pool or silo or both."""

    driver: AwsDriver
    cloud: Cloud
    faults: Collection[Fault] = tuple(Fault)
    deploys: bool = True

    def break_next(self, fault: Fault) -> None:
        self.cloud.break_next(fault)

    def is_hanging(self) -> bool:
        return self.cloud.is_hanging

    def mend(self) -> bool:
        had_yet_to_happen = self.cloud.plan.fault is not None
        self.cloud.release()
        return had_yet_to_happen

    async def is_usable(self, environment: Environment) -> bool:
        try:
            credentials = await self.driver.issue(environment)
        except (NoEnvironmentError, ThrottledError):
            return False
        return works_with(self.cloud, credentials, environment)

    async def keep(self, environment: Environment, note: str) -> None:
        credentials = await self.driver.issue(environment)
        table, _ = where(environment)
        client = lent(self.cloud, credentials, "dynamodb")
        client.put_item(TableName=table, Item=item(environment.tenant_id, note))

    async def kept(self, environment: Environment) -> set[str]:
        table, _ = where(environment)
        account_id = environment.resources.get("accountId", OWN_ACCOUNT)
        client = self.cloud.open("dynamodb") if account_id == OWN_ACCOUNT else self._within(account_id)
        mine = {":tenant": {"S": f"{environment.tenant_id}#0"}}
        found = client.query(TableName=table, KeyConditionExpression="tenant = :tenant", ExpressionAttributeValues=mine)
        return {each["item"]["S"] for each in found["Items"]}

    def _within(self, account_id: str) -> Any:
        return self.cloud.within(account_id, "dynamodb")

    async def remains(self, tenant_id: str) -> set[str]:
        found = self.cloud.open("dynamodb").scan(TableName=TABLE)["Items"]
        items = {"pool/items" for each in found if each["tenant"]["S"].split("#")[0] == tenant_id}
        listed = self.cloud.open("s3").list_object_versions(Bucket=BUCKET, Prefix=f"tenants/{tenant_id}/")
        objects = {"pool/objects" for _ in (*listed.get("Versions", []), *listed.get("DeleteMarkers", []))}
        return items | objects | {f"silo/{each}" for each in self.cloud.accounts(tenant_id=tenant_id)}


def where(environment: Environment) -> tuple[str, str]:
    """Return a tenant's table and bucket."""
    return environment.resources.get("table", TABLE), environment.resources.get("bucket", BUCKET)


def item(tenant_id: str, note: str) -> dict[str, Any]:
    """Return something to keep."""
    return {"tenant": {"S": f"{tenant_id}#0"}, "item": {"S": note}}


def lent(cloud: Cloud, credentials: AwsCredentials, service: str) -> Any:
    """Return a tenant's client."""
    return cloud.open(service, credentials.access_key_id, credentials.secret_access_key, credentials.session_token)


def works_with(cloud: Cloud, credentials: AwsCredentials, environment: Environment) -> bool:
    """Try to reach items and objects with credentials, and return whether that works."""
    table, bucket = where(environment)
    key = {"tenant": {"S": f"{environment.tenant_id}#0"}, "item": {"S": "nothing"}}
    try:
        lent(cloud, credentials, "dynamodb").get_item(TableName=table, Key=key)
        lent(cloud, credentials, "s3").list_objects_v2(Bucket=bucket, Prefix=f"tenants/{environment.tenant_id}/")
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True
