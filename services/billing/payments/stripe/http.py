"""The connections by which Stripe's SDK asks; the client of its own needs another library for the same."""

from collections.abc import Mapping
from typing import Any

import httpx2
import stripe

_CONNECTIONS = 16


class Connections(stripe.HTTPClient):
    """Asks over HTTP without a thread.

    Args:
        seconds: how long an answer may take.
    """

    name = "httpx2"

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._client = httpx2.AsyncClient(timeout=seconds, limits=httpx2.Limits(max_connections=_CONNECTIONS))

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send a request, and return the content, the status and the headers of its answer.

        Raises:
            stripe.APIConnectionError: there is no answer.
        """
        try:
            answer = await self._client.request(method, url, headers=headers, content=post_data)
        except httpx2.HTTPError as error:
            # The SDK says nothing of its types here.
            raise stripe.APIConnectionError(repr(error)) from error  # type: ignore[no-untyped-call]
        return answer.content, answer.status_code, answer.headers

    async def close_async(self) -> None:
        """Close all connections."""
        await self._client.aclose()
