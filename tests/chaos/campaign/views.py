"""What the services show of tenants over HTTP."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from tests.chaos.campaign.tenants import Picture, Tenant, Tier, products_of


class Views:
    """Asks each service at its own address.

    Args:
        urls: where each service answers.
    """

    def __init__(self, client: httpx2.AsyncClient, urls: Mapping[str, str]) -> None:
        self._client = client
        self._urls = urls

    async def tiers(self) -> dict[str, Tier]:
        """Return what each tier means."""
        found = await self._items("tenant", "tiers")
        return {each["name"]: Tier(each["plan"], each["quotas"], each["connections"]) for each in found}

    async def picture(self, tenant_id: str) -> Picture:
        """Return all that is shown of a tenant."""
        users = await self._items("identity", "users", tenantId=tenant_id)
        quotas = await self._items("metrics", "quotas", tenantId=tenant_id)
        return Picture(
            record=await self._record(tenant_id),
            admins=tuple(sorted(user["email"] for user in users)),
            blocked=any(each["blocked"] for user in users for each in user["memberships"]),
            subscriptions=tuple(
                (each["plan"], each["status"])
                for each in await self._items("billing", "subscriptions", tenantId=tenant_id)
            ),
            quotas={each["meter"]: each["limit"] for each in quotas} or None,
            environments=tuple(
                (each["connections"], each["throttled"], products_of(each["products"]))
                for each in await self._items("provisioning", "environments", tenantId=tenant_id)
            ),
        )

    async def certificate_trouble(self, tenant: Tenant) -> str:
        """Return what is wrong with the certificate and the export of a tenant that has gone; empty if nothing is."""
        answer = await self._get("tenant", f"tenants/{tenant.tenant_id}/certificate")
        if answer.status_code != httpx2.codes.OK:
            return f"no certificate: {answer.text}"
        certificate = answer.json()["certificate"]
        if certificate["workflowId"] != tenant.off_boarded_by:
            return f"the certificate names the workflow {certificate['workflowId']}"
        if bool(certificate["exportId"]) != tenant.exported:
            return f"the certificate names the export {certificate['exportId']}"
        if not tenant.exported:
            return ""
        export = await self._get("provisioning", f"exports/{certificate['exportId']}")
        digest = hashlib.sha256(export.content).hexdigest()
        return "" if digest == certificate["exportSha256"] else f"the export is another one: {export.status_code}"

    async def _record(self, tenant_id: str) -> tuple[Any, ...] | None:
        answer = await self._get("tenant", f"tenants/{tenant_id}")
        if answer.status_code == httpx2.codes.NOT_FOUND:
            return None
        shown = answer.json()
        if shown["state"] == "archived":
            return (shown["state"], shown["tenantName"])
        products = products_of(shown["products"])
        return (shown["state"], shown["tenantName"], shown["tenantTier"], products, shown["expiration"])

    async def _items(self, service: str, path: str, **parameters: str) -> Sequence[Mapping[str, Any]]:
        answer = await self._get(service, path, **parameters)
        assert answer.status_code == httpx2.codes.OK, f"{answer.request.url}: {answer.text}"
        items: Sequence[Mapping[str, Any]] = answer.json()["items"]
        return items

    async def _get(self, service: str, path: str, **parameters: str) -> httpx2.Response:
        return await self._client.get(f"{self._urls[service]}/v1/{path}", params=parameters)
