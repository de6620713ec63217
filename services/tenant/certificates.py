"""The certificate of an off-boarding: what was deleted of a tenant, in a form whose digest anybody can work out again.

The canonical form is JSON with sorted keys, without whitespace, in UTF-8: what RFC 8785 makes of objects, strings,
booleans and whole numbers, of which a certificate consists. `json.dumps(content, sort_keys=True, separators=(",", ":"),
ensure_ascii=False)` writes the same.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from shared.contracts.tenant import ArchiveTenant, Deletion


@dataclass(frozen=True)
class Certificate:
    """A certificate as it is kept.

    Attributes:
        tenant_id: whose it is.
        workflow_id: of the off-boarding.
        content: what it says, as JSON.
        sha256: of the content in its canonical form, hexadecimal.
    """

    tenant_id: str
    workflow_id: str
    content: Mapping[str, Any]
    sha256: str


def certify(ask: ArchiveTenant, record: asyncpg.Record, *, archived_at: datetime) -> Certificate:
    """Make the certificate of a tenant that is archived now.

    Args:
        ask: what the off-boarding knows: what the other services deleted, and what was handed over.
        record: the tenant as it is found, a row of `queries.records`.
        archived_at: when.
    """
    own = Deletion(
        service="tenant", deleted={"products": record["products"], "personal_fields": record["personal_fields"]}
    )
    content = {
        "tenantId": ask.tenant_id,
        "customerName": record["customer_name"],
        "tier": record["tier"],
        "workflowId": ask.workflow_id,
        "reason": ask.reason,
        "createdAt": _instant(record["created_at"]),
        "archivedAt": _instant(archived_at),
        "deletions": [deletion.model_dump(mode="json", by_alias=True) for deletion in (*ask.deletions, own)],
        "exportId": ask.export_id,
        "exportSha256": ask.export_sha256,
        "invoiceId": ask.invoice_id,
    }
    return Certificate(ask.tenant_id, ask.workflow_id, content, digest(content))


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a certificate's canonical form, hexadecimal."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _instant(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
