"""What a tenant keeps in a table and a bucket that others use too: found by its keys and its path, and removed."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from services.provisioning.drivers.aws import names
from services.provisioning.drivers.aws.calls import Caller
from services.provisioning.drivers.aws.policies import Place

ITEMS, OBJECTS = "aws.items", "aws.objects"
"""What the result of a removal counts; each version of an object is one."""

_AT_A_TIME = 25
_OBJECTS_AT_A_TIME = 500
_MOST = 1000


class Belongings:
    """All that one tenant keeps.

    Args:
        caller: may do all of it, to everybody's.
    """

    def __init__(self, caller: Caller, place: Place, tenant_id: str) -> None:
        self._caller = caller
        self._place = place
        self._tenant_id = tenant_id

    async def remove_some(self) -> Mapping[str, int]:
        """Remove so much as fits in one step, and return how much that was; nothing once there is nothing left."""
        items = await self._remove_items(_MOST)
        objects = await self._remove_objects() if items < _MOST else 0
        await self._end_uploads()
        return {ITEMS: items, OBJECTS: objects}

    async def _remove_items(self, most: int) -> int:
        keys: list[Any] = []
        async for key in self._keys():
            keys.append(key)
            if len(keys) == most:
                break
        for start in range(0, len(keys), _AT_A_TIME):
            await self._remove_keys(keys[start : start + _AT_A_TIME])
        return len(keys)

    async def _keys(self) -> AsyncIterator[Any]:
        for partition in names.partitions(self._tenant_id):
            following: dict[str, Any] = {}
            while True:
                page = await self._caller.call(
                    "dynamodb",
                    "query",
                    TableName=self._place.table,
                    KeyConditionExpression="tenant = :tenant",
                    ExpressionAttributeValues={":tenant": {"S": partition}},
                    ProjectionExpression="tenant, #item",
                    ExpressionAttributeNames={"#item": "item"},
                    ConsistentRead=True,
                    **following,
                )
                for key in page["Items"]:
                    yield key
                if "LastEvaluatedKey" not in page:
                    break
                following = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def _remove_keys(self, keys: Sequence[Any]) -> None:
        """Remove so many items; what the table is too busy for is found by the next step."""
        requests = [{"DeleteRequest": {"Key": key}} for key in keys]
        await self._caller.call("dynamodb", "batch_write_item", RequestItems={self._place.table: requests})

    async def _remove_objects(self) -> int:
        page = await self._caller.call(
            "s3",
            "list_object_versions",
            Bucket=self._place.bucket,
            Prefix=names.prefix(self._tenant_id),
            MaxKeys=_OBJECTS_AT_A_TIME,
        )
        versions = [
            {"Key": each["Key"], "VersionId": each["VersionId"]}
            for kind in ("Versions", "DeleteMarkers")
            for each in page.get(kind, [])
        ]
        if versions:
            gone = {"Objects": versions, "Quiet": True}
            await self._caller.call("s3", "delete_objects", Bucket=self._place.bucket, Delete=gone)
        return len(versions)

    async def _end_uploads(self) -> None:
        """Give up uploads that were begun and not ended, which nobody sees and which cost."""
        page = await self._caller.call(
            "s3", "list_multipart_uploads", Bucket=self._place.bucket, Prefix=names.prefix(self._tenant_id)
        )
        for upload in page.get("Uploads", []):
            await self._caller.unless(
                "NoSuchUpload",
                "s3",
                "abort_multipart_upload",
                Bucket=self._place.bucket,
                Key=upload["Key"],
                UploadId=upload["UploadId"],
            )
