"""Is every tenant what its customer's orders have made of it, in the databases and over HTTP?"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from tests.chaos.campaign.findings import Finding, Meaning
from tests.chaos.campaign.records import Records
from tests.chaos.campaign.tenants import Picture, Tenant, Tier, expected, without_connections
from tests.chaos.campaign.views import Views

_AT_ONCE = 16
_NOTHING = Picture()


async def check_tenants(tenants: Sequence[Tenant], records: Records, views: Views) -> list[Finding]:
    """Compare what is written and shown of every tenant with the model."""
    known = [tenant for tenant in tenants if tenant.state != "unknown"]
    tiers, written = await views.tiers(), await records.pictures()
    findings = [finding for tenant in known for finding in _written(tenant, written, tiers)]
    findings += [
        Finding("residue", f"nobody ordered tenant {each}, of which there is {written[each]}")
        for each in written.keys() - {tenant.tenant_id for tenant in tenants}
    ]
    free = asyncio.Semaphore(_AT_ONCE)
    shown = await asyncio.gather(*(_shown(tenant, views, tiers, free) for tenant in known))
    return [
        *findings,
        *(each for some in shown for each in some),
        *await _names(known, records),
        *await _bills(known, records),
    ]


def _written(tenant: Tenant, written: Mapping[str, Picture], tiers: Mapping[str, Tier]) -> Iterable[Finding]:
    return _differences("databases", tenant, written.get(tenant.tenant_id, _NOTHING), tiers)


async def _shown(tenant: Tenant, views: Views, tiers: Mapping[str, Tier], free: asyncio.Semaphore) -> Sequence[Finding]:
    async with free:
        findings = list(_differences("HTTP", tenant, await views.picture(tenant.tenant_id), tiers))
        if tenant.state == "archived" and (trouble := await views.certificate_trouble(tenant)):
            findings.append(Finding("wrong", f"tenant {tenant.tenant_id}: {trouble}"))
        return findings


def _differences(place: str, tenant: Tenant, seen: Picture, tiers: Mapping[str, Tier]) -> Iterable[Finding]:
    wanted = expected(tenant, tiers)
    if tenant.may_lack_connections and seen.environments == without_connections(wanted).environments:
        wanted = without_connections(wanted)
    for field in fields(Picture):
        is_there, should_be = getattr(seen, field.name), getattr(wanted, field.name)
        if is_there != should_be:
            meaning: Meaning = "wrong" if tenant.is_alive else "residue"
            what = f"{place}: {field.name} of the {tenant.state} tenant {tenant.tenant_id} {tenant.name}"
            yield Finding(meaning, f"{what} is {is_there}, not {should_be}")


async def _names(tenants: Sequence[Tenant], records: Records) -> Sequence[Finding]:
    """A name belongs to whoever is alive, and to nobody else."""
    taken = await records.names()
    wanted = {tenant.name.casefold(): tenant.tenant_id for tenant in tenants if tenant.is_alive}
    return [
        Finding("wrong", f"the name {name} is held by {taken.get(name)}, not by {wanted.get(name)}")
        for name in taken.keys() | wanted.keys()
        if taken.get(name) != wanted.get(name)
    ]


async def _bills(tenants: Sequence[Tenant], records: Records) -> Sequence[Finding]:
    """Whoever has gone has had exactly one last invoice, and nobody else has."""
    issued = await records.final_invoices()
    wanted = {tenant.tenant_id: int(tenant.state == "archived") for tenant in tenants}
    return [
        Finding("doubled" if issued.get(each, 0) > count else "lost", f"{issued.get(each, 0)} last invoices of {each}")
        for each, count in wanted.items()
        if issued.get(each, 0) != count
    ]
