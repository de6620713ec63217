"""Meters that are defined, events that are sent and usage that is read over HTTP, as the tests of metering do it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

import httpx2

from shared.clock import ManualClock


@dataclass
class Office:
    """A system administrator who meters a tenant."""

    client: httpx2.AsyncClient
    clock: ManualClock
    tenant_id: str = "t1"

    def __post_init__(self) -> None:
        self._numbers = count(1)

    async def define(self, name: str, aggregation: str, **details: Any) -> None:
        """Define a meter of events of the type ``use``, whose value is ``v``."""
        body = {"name": name, "unit": "thing", "eventType": "use", "aggregation": aggregation, **details}
        if aggregation != "count":
            body.setdefault("valuePath", "$.v")
        answer = await self.client.post("/v1/meters", json=body)
        assert answer.status_code == 201, answer.text

    async def send(
        self, time: datetime | None = None, *, event_id: str | None = None, source: str = "/app", **data: Any
    ) -> str:
        """Send an event and return its id."""
        event = {
            "specversion": "1.0",
            "id": event_id or str(next(self._numbers)),
            "source": source,
            "type": "use",
            "subject": self.tenant_id,
            "time": (time or self.clock.now()).isoformat(),
            "data": data,
        }
        answer = await self.client.post("/v1/usage", json=event)
        assert answer.status_code == 200, answer.text
        return str(event["id"])

    async def amend(self, *, key: str | None = None, **body: Any) -> httpx2.Response:
        """Ask for a correction."""
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"tenantId": self.tenant_id, "reason": "a mistake", **body}
        return await self.client.post("/v1/usage/amendments", json=body, headers=headers)

    async def void(self, event_id: str) -> None:
        """Let an event not count."""
        answer = await self.amend(source="/app", id=event_id)
        assert answer.status_code == 201, answer.text

    async def usage(self, **query: Any) -> list[Mapping[str, Any]]:
        """Return what the tenant has used."""
        answer = await self.client.get("/v1/usage", params={"tenantId": self.tenant_id, **query})
        assert answer.status_code == 200, answer.text
        items: list[Mapping[str, Any]] = answer.json()["items"]
        return items

    async def quantities(self, **query: Any) -> dict[str, str]:
        """Return what the tenant has used by meter, or by the value of a dimension, all in one window."""
        items = await self.usage(**{"window": "month", **query})
        assert len({item["from"] for item in items}) <= 1
        return {item["group" if "groupBy" in query else "meter"]: item["quantity"] for item in items}
