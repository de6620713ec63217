"""People who look at a page of each service all the time, and how long each of them was not answered."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx2

PAGES: Mapping[str, str] = {
    "onboarding": "/v1/workflows?limit=1",
    "tenant": "/v1/tiers",
    "billing": "/v1/plans",
    "provisioning": "/v1/environments?limit=1",
    "metrics": "/v1/meters",
    "identity": "/v1/users?limit=1",
}
"""A page of each service that is read from its database, and that every release has."""

_EVERY_SECONDS = 0.05


class Visitors:
    """One for each service, who looks again at once whatever happened.

    Attributes:
        setbacks: what came instead of an answer, and how often, by service.
        longest: the longest time without an answer, in seconds, by service.
        oddities: answers that nobody should ever get, the first of each kind.
    """

    def __init__(self, client: httpx2.AsyncClient, urls: Mapping[str, str]) -> None:
        self.setbacks: dict[str, Counter[str]] = {service: Counter() for service in urls}
        self.longest: dict[str, float] = dict.fromkeys(urls, 0.0)
        self.oddities: dict[tuple[str, int], str] = {}
        self._client = client
        self._urls = urls

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let them come for the length of a block."""
        coming = [asyncio.create_task(self._visit(service)) for service in self._urls]
        try:
            yield
        finally:
            for each in coming:
                each.cancel()

    async def _visit(self, service: str) -> None:
        loop = asyncio.get_running_loop()
        answered = loop.time()
        while True:
            if await self._is_answered(service):
                self.longest[service] = max(self.longest[service], loop.time() - answered)
                answered = loop.time()
            await asyncio.sleep(_EVERY_SECONDS)

    async def _is_answered(self, service: str) -> bool:
        try:
            response = await self._client.get(f"{self._urls[service]}{PAGES[service]}")
        except httpx2.TransportError as error:
            self.setbacks[service][type(error).__name__] += 1
            return False
        if response.status_code == httpx2.codes.OK:
            return True
        self.setbacks[service][str(response.status_code)] += 1
        if response.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
            what = f"{service} answered a visitor {response.status_code} {response.text[:300]}"
            self.oddities.setdefault((service, response.status_code), what)
        return False
