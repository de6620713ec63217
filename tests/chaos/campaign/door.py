"""How customers talk to the system: they ask again under the same key until they know what became of it."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import httpx2

from tests.chaos.campaign.journal import Journal, Promise, Refusal
from tests.chaos.campaign.orders import Order

PATIENCE_SECONDS = 150.0
"""How long a customer asks for an answer to a request: longer than any fault lasts."""

END_SECONDS = 240.0
"""How long a customer waits for the end of a workflow: three attempts at a step, and as many to take it back."""

_WAIT_SECONDS = 20
_SERVER_ERROR = 500


class UnansweredError(Exception):
    """Nobody answered for as long as customers are patient."""


class Door:
    """The onboarding service as customers see it, who write down all that they are told.

    Attributes:
        accepted: every order that was promised.
        knows_lifecycles: whether it has more to offer than onboardings, which nobody can take back.
    """

    def __init__(self, client: httpx2.AsyncClient, journal: Journal, random: Random) -> None:
        self.accepted: list[tuple[Order, Promise]] = []
        self.knows_lifecycles = True
        self._client = client
        self._journal = journal
        self._random = random

    async def place(self, order: Order, key: str) -> Promise | Refusal:
        """Order something and return what was answered.

        Raises:
            UnansweredError: nobody answered.
        """
        try:
            response = await self.send(order, key)
        except UnansweredError:
            self._journal.unanswered.append(key)
            raise
        told = response.json()
        if response.status_code == httpx2.codes.ACCEPTED:
            return self._promised(order, key, told)
        return self._refused(order, Refusal(key, order.lifecycle, response.status_code, told["code"]))

    async def send(self, order: Order, key: str) -> httpx2.Response:
        """Send an order until there is an answer, without writing that down.

        Raises:
            UnansweredError: nobody answered.
        """
        headers = {"Idempotency-Key": key}
        return await self._answer(
            lambda: self._client.request(order.method, order.path, json=order.body, headers=headers)
        )

    async def cancel(self, promise: Promise) -> None:
        """Have an operator stop a workflow, if it is not too late."""
        promise.cancelled = True
        response = await self._answer(
            lambda: self._client.post(f"/v1/workflows/{promise.workflow_id}/cancel", json={"reason": "changed my mind"})
        )
        if response.status_code not in {httpx2.codes.OK, httpx2.codes.CONFLICT}:
            self._journal.oddities.append(f"the cancellation of {promise.workflow_id} was answered {response.text}")

    async def ended(self, promise: Promise) -> str:
        """Wait until a workflow has ended and return its status; empty when it does not end."""
        deadline = asyncio.get_running_loop().time() + END_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            try:
                response = await self._answer(
                    lambda: self._client.get(f"/v1/workflows/{promise.workflow_id}", params={"wait": _WAIT_SECONDS})
                )
            except UnansweredError:
                break
            if response.status_code != httpx2.codes.OK:
                self._journal.oddities.append(f"{promise.workflow_id} was promised, then {response.text}")
                break
            found = response.json()
            if found["finishedAt"] is not None:
                self._journal.ended(promise, found["status"])
                break
        return promise.status

    def _promised(self, order: Order, key: str, told: dict[str, Any]) -> Promise:
        promise = Promise(key, order.lifecycle, told["id"], told["tenantId"], doomed=order.doomed)
        if order.refused_with:
            self._journal.oddities.append(f"{key} was accepted, not refused with {order.refused_with}")
        self.accepted.append((order, promise))
        return self._journal.promise(promise)

    def _refused(self, order: Order, refusal: Refusal) -> Refusal:
        if refusal.code != order.refused_with and refusal.code not in order.may_be_refused_with:
            self._journal.oddities.append(f"{order.lifecycle} {refusal.key} was refused: {refusal}, {order.body}")
        return self._journal.refuse(refusal)

    async def _answer(self, send: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            try:
                response = await send()
            except httpx2.TransportError as error:
                self._journal.setbacks[type(error).__name__] += 1
            else:
                if response.status_code < _SERVER_ERROR:
                    return response
                self._set_back(response)
            await asyncio.sleep(self._random.uniform(0.1, 0.5))
        raise UnansweredError

    def _set_back(self, response: httpx2.Response) -> None:
        self._journal.setbacks[str(response.status_code)] += 1
        if response.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
            self._journal.oddities.append(f"{response.request.url}: {response.status_code} {response.text[:300]}")
