"""How a tenant goes. Until its data is deleted all of it can be taken back; from then on it is only finished.

begin-offboarding ─ grace-period ─┬─ block-sign-in ────────┬─ export-data ─ close-account ─ remove-environment (pivot)
                                  └─ throttle-environment ─┘

remove-environment ─┬─ purge-users ───┬─ archive-tenant
                    ├─ purge-account ─┤
                    └─ purge-metrics ─┘

The data is exported after everybody is locked out, so that nothing changes any more, and only if that is asked for.
The account is closed last of what can be taken back: until then the tenant is charged for what it has.
"""

from typing import Any

from services.onboarding.definition import Context, Definition, Request, onward, pivot, step, wait
from shared.contracts import billing, identity, metrics, provisioning, tenant
from shared.contracts.base import Message

_DAY_SECONDS = 86_400.0
_CLOSING_ATTEMPTS = 8  # two minutes, in which metrics has told billing what was used
_DELETING = {
    "remove-environment": "provisioning",
    "purge-users": "identity",
    "purge-account": "billing",
    "purge-metrics": "metrics",
}


def _grace_seconds(request: Request) -> float:
    return float(request["graceDays"]) * _DAY_SECONDS


def _wants_export(request: Request) -> bool:
    return bool(request["export"])


def _begin(context: Context) -> Message:
    return tenant.BeginOffboarding(tenant_id=context.tenant_id, reason=context.request.get("reason"))


def _block_sign_in(context: Context) -> Message:
    return identity.BlockSignIn(tenant_id=context.tenant_id, reason="The tenant is being off-boarded.")


def _throttle_environment(context: Context) -> Message:
    return provisioning.ThrottleEnvironment(tenant_id=context.tenant_id, reason="The tenant is being off-boarded.")


def _export_data(context: Context) -> Message:
    return provisioning.ExportData(tenant_id=context.tenant_id)


def _close_account(context: Context) -> Message:
    return billing.CloseAccount(tenant_id=context.tenant_id)


def _remove_environment(context: Context) -> Message:
    return provisioning.RemoveEnvironment(tenant_id=context.tenant_id)


def _purge_users(context: Context) -> Message:
    return identity.PurgeUsers(tenant_id=context.tenant_id)


def _purge_account(context: Context) -> Message:
    return billing.PurgeAccount(tenant_id=context.tenant_id)


def _purge_metrics(context: Context) -> Message:
    return metrics.PurgeMetrics(tenant_id=context.tenant_id)


def _archive(context: Context) -> Message:
    export = context.results.get("export-data", {})
    return tenant.ArchiveTenant(
        tenant_id=context.tenant_id,
        workflow_id=str(context.workflow_id),
        reason=context.request.get("reason"),
        deletions=tuple(_deletion(service, context.results.get(name)) for name, service in _DELETING.items()),
        export_id=export.get("export_id"),
        export_sha256=export.get("sha256"),
        invoice_id=context.results.get("purge-account", {}).get("invoice_id"),
    )


def _deletion(service: str, result: Any) -> tenant.Deletion:
    if result is None:
        return tenant.Deletion(service=service, is_confirmed=False)
    return tenant.Deletion(service=service, deleted=result["deleted"])


OFFBOARD = Definition(
    kind="offboard",
    version=1,
    urgent=True,
    steps=(
        step("begin-offboarding", ask=_begin, undo=tenant.CancelOffboarding),
        wait("grace-period", seconds=_grace_seconds, after=("begin-offboarding",)),
        step("block-sign-in", ask=_block_sign_in, undo=identity.UnblockSignIn, after=("grace-period",)),
        step(
            "throttle-environment",
            ask=_throttle_environment,
            undo=provisioning.UnthrottleEnvironment,
            after=("grace-period",),
        ),
        step(
            "export-data",
            ask=_export_data,
            undo=provisioning.DiscardExport,
            after=("block-sign-in", "throttle-environment"),
            only_if=_wants_export,
        ),
        step(
            "close-account",
            ask=_close_account,
            undo=billing.ReopenAccount,
            after=("export-data",),
            attempts=_CLOSING_ATTEMPTS,
        ),
        pivot(
            "remove-environment",
            does=provisioning.RemoveEnvironment,
            ask=_remove_environment,
            after=("close-account",),
        ),
        onward("purge-users", does=identity.PurgeUsers, ask=_purge_users, after=("remove-environment",)),
        onward("purge-account", does=billing.PurgeAccount, ask=_purge_account, after=("remove-environment",)),
        onward("purge-metrics", does=metrics.PurgeMetrics, ask=_purge_metrics, after=("remove-environment",)),
        onward(
            "archive-tenant",
            does=tenant.ArchiveTenant,
            ask=_archive,
            after=("purge-users", "purge-account", "purge-metrics"),
        ),
    ),
)
