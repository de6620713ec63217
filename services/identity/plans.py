"""What the tenants' tiers let them ask of applications, as messages tell it."""

from collections.abc import Iterable, Mapping

from shared.contracts import identity, tenant
from shared.contracts.tenant import UsagePlan

Telling = identity.CreateAdministrators | tenant.TierChanged | tenant.TierRestored
"""A message that may have a plan with it."""


def newest_plans(messages: Iterable[Telling]) -> Mapping[str, UsagePlan]:
    """Return the newest plan that is told of each tenant; nothing of those of whom none is told."""
    newest: dict[str, UsagePlan] = {}
    for message in messages:
        known, told = newest.get(message.tenant_id), message.usage_plan
        if told is not None and (known is None or known.version < told.version):
            newest[message.tenant_id] = told
    return newest
