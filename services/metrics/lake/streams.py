"""The streams of the lake: what a file of each has, column by column. docs/data-lake.md tells readers of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from arro3.core import DataType, Field, Schema

from services.metrics.queries.lake import File

SCHEMA_VERSION = "1"
"""Of all streams, written into every file: columns are only ever added to, anything else is the next version."""

_TEXT = DataType.utf8()
_TIME = DataType.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Stream:
    """Files that have the same columns.

    Attributes:
        name: of the folder.
        schema: the columns; what is JSON or a decimal number is text.
    """

    name: str
    schema: Schema

    @property
    def metadata(self) -> Mapping[str, str]:
        """What every file says of itself: one thing, because several would come in another order each time."""
        return {"tenure.schema": f"{self.name}.v{SCHEMA_VERSION}"}


def _stream(name: str, **columns: DataType) -> Stream:
    """Make a stream of columns; one whose name ends in ``_`` may be null."""
    fields = [
        Field(column.removesuffix("_"), type_, nullable=column.endswith("_")) for column, type_ in columns.items()
    ]
    return Stream(name, Schema(fields))


STREAMS: Mapping[str, Stream] = {
    stream.name: stream
    for stream in (
        _stream(
            "usage",
            tenant_id=_TEXT,
            source=_TEXT,
            id=_TEXT,
            type=_TEXT,
            happened_at=_TIME,
            stored_at=_TIME,
            data=_TEXT,
        ),
        _stream(
            "amendments",
            amendment_id=_TEXT,
            tenant_id=_TEXT,
            meter_=_TEXT,
            happened_at=_TIME,
            quantity_=_TEXT,
            source_=_TEXT,
            event_id_=_TEXT,
            reason=_TEXT,
            actor=_TEXT,
            amended_at=_TIME,
        ),
        _stream(
            "tenants",
            fact_id=_TEXT,
            tenant_id=_TEXT,
            type=_TEXT,
            state_=_TEXT,
            tier_=_TEXT,
            workflow_id_=_TEXT,
            step_=_TEXT,
            happened_at=_TIME,
            fact=_TEXT,
        ),
        _stream(
            "audit",
            tenant_id=_TEXT,
            seq=DataType.int64(),
            decision_id=_TEXT,
            decided_at=_TIME,
            recorded_at=_TIME,
            service=_TEXT,
            actor=_TEXT,
            role_=_TEXT,
            reason_=_TEXT,
            action=_TEXT,
            subject=_TEXT,
            before_=_TEXT,
            after_=_TEXT,
            previous_hash=_TEXT,
            hash=_TEXT,
        ),
    )
}
"""All streams, by name."""


def path_of(file: File) -> str:
    """Return where a file is in the lake, the way Hive has it: by day and hour of UTC."""
    transactions = f"{file.first:016d}-{file.upto - 1:016d}"
    return f"{file.stream}/dt={file.hour:%Y-%m-%d}/hour={file.hour:%H}/{transactions}.parquet"
