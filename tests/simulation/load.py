"""What clients want and are told: a table of actions, and sensible clients that repeat what had no answer."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Body = Mapping[str, Any]

PATIENCE = 400
"""How often a client sends a request before it says that the service has broken its promise."""

_ACCEPTED = 202
_SERVER_ERROR = 500
_TOO_MANY = 429
_NOWHERE = "mars"
_MOST_READS = 6
_TIERS = ("free", "standard", "premium")


def _products(*wanted: str) -> Sequence[Body]:
    return [dict(zip(("name", "version"), each.split(), strict=True)) for each in wanted]


_PRODUCTS = (
    _products(),
    _products("notes 1.0"),
    _products("notes 2.0", "chess 1.0"),
    _products("wiki 1.0", "forum 1.0"),
    _products("forum 2.0", "chess 1.0", "notes 1.0"),
)
"""Some with a licence, an environment or both of their own: see `tests.simulation.servers`."""

_IN_VAIN = (_products("notes 1.0", "rover 1.0"), _products("forum 1.0", "crown 1.0", "chess 1.0"))
"""What provisioning refuses, or billing."""


@dataclass(frozen=True)
class Answer:
    """What an HTTP request was answered with."""

    status: int
    body: Any
    replayed: bool = False


class Door(Protocol):
    """Where requests are sent to."""

    async def request(self, method: str, path: str, body: Body | None, key: str | None) -> Answer:
        """Send a request.

        Raises:
            ConnectionError: there was no answer; it may have been handled.
        """
        ...


@dataclass
class Order:
    """Something that a client wants, under one idempotency key.

    Attributes:
        answers: all that were given, in order.
        unanswered: how often there was none.
        doomed: whether it must be undone, if it is accepted.
    """

    number: int
    method: str
    path: str
    body: Body
    key: str
    doomed: bool = False
    answers: list[Answer] = field(default_factory=list)
    unanswered: int = 0

    @property
    def accepted(self) -> list[Mapping[str, Any]]:
        """The workflows that it was answered with."""
        return [answer.body for answer in self.answers if answer.status == _ACCEPTED]

    @property
    def workflow_id(self) -> str | None:
        """The workflow that it began, as far as the client knows."""
        return self.accepted[0]["id"] if self.accepted else None


@dataclass
class Journal:
    """What all clients asked for and were told.

    Attributes:
        seen: the statuses of each workflow, in the order in which a client read them.
        broken: promises that were broken before a client's eyes.
        expects_bugs: whether services run into what they must take for bugs of their own; clients ask again then too.
    """

    orders: list[Order] = field(default_factory=list)
    seen: dict[str, list[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    expects_bugs: bool = False


class Client:
    """Somebody who wants things, one after the other.

    Attributes:
        tenants: those that onboarding has promised to this client, by tenant id the workflow that did.
    """

    def __init__(self, number: int, door: Door, chance: random.Random, journal: Journal) -> None:
        self.number = number
        self.chance = chance
        self.journal = journal
        self.tenants: dict[str, str] = {}
        self._door = door

    def name(self) -> str:
        """Return a new customer's name."""
        return f"customer {self.number} {len(self.journal.orders)}"

    async def post(self, path: str, body: Body, *, doomed: bool = False, method: str = "POST") -> Order:
        """Ask for work under a new idempotency key, until there is an answer."""
        number = len(self.journal.orders)
        order = Order(number, method, path, body, f"key-{number}", doomed)
        self.journal.orders.append(order)
        await self.send(order)
        if order.workflow_id is not None and path in {"/v1/onboardings", "/v1/accounts"}:
            self.tenants[order.accepted[0]["tenantId"]] = order.workflow_id
        return order

    async def send(self, order: Order, body: Body | None = None, *, attempts: int = PATIENCE) -> Answer | None:
        """Send an order until it is answered by more than "try again"; return that answer."""
        for attempt in range(attempts):
            try:
                answer = await self._door.request(order.method, order.path, body or order.body, order.key)
            except ConnectionError:
                order.unanswered += 1
            else:
                if answer.status < _SERVER_ERROR and answer.status != _TOO_MANY:
                    if body is None:
                        order.answers.append(answer)
                    return answer
                if not answer.body.get("retryable") and not self.journal.expects_bugs:
                    self.journal.broken.append(f"L6 {order.path} {order.key}: {answer}")
                order.unanswered += 1
            await asyncio.sleep(min(5.0, 0.1 * 2**attempt) * self.chance.uniform(0.5, 1.0))
        if attempts == PATIENCE:
            self.journal.broken.append(f"L6 {order.path} {order.key}: not answered after {attempts} attempts")
        return None

    async def act(self, path: str, body: Body) -> Answer | None:
        """Ask for something that has no key, such as an operator's action."""
        order = Order(-1, "POST", path, body, "")
        return await self.send(order)

    async def read(self, workflow_id: str, *, wait: float = 0) -> Mapping[str, Any] | None:
        """Return a workflow; None where nobody answers now."""
        try:
            answer = await self._door.request("GET", f"/v1/workflows/{workflow_id}?wait={wait:g}", None, None)
        except ConnectionError:
            return None
        if answer.status != 200:
            if answer.status < _SERVER_ERROR:
                self.journal.broken.append(f"S19 workflow {workflow_id} was accepted and is answered {answer}")
            return None
        self.journal.seen.setdefault(workflow_id, []).append(answer.body["status"])
        workflow: Mapping[str, Any] = answer.body
        return workflow

    async def finished(self, workflow_id: str) -> bool:
        """Read a workflow a few times; tell whether it was seen to end."""
        for _ in range(_MOST_READS):
            workflow = await self.read(workflow_id, wait=self.chance.choice((0, 1, 10)))
            if workflow is not None and workflow["finishedAt"] is not None:
                return True
            await asyncio.sleep(self.chance.random())
        return False


Act = Callable[[Client], Awaitable[None]]


@dataclass(frozen=True)
class Action:
    """Something that a client may do.

    Attributes:
        weight: how likely it is, relative to the others.
    """

    name: str
    weight: int
    act: Act


def onboarding(client: Client, **fields: Any) -> dict[str, Any]:
    """Return the body of a request for a new tenant."""
    return {
        "customerName": client.name(),
        "adminEmails": [f"ada@{client.number}.example"],
        "tier": client.chance.choice(_TIERS),
        "products": client.chance.choice(_PRODUCTS),
        **fields,
    }


async def onboard(client: Client) -> None:
    """Become a tenant, and look what becomes of it."""
    order = await client.post("/v1/onboardings", onboarding(client))
    if order.workflow_id is not None and client.chance.random() < 0.4:
        await client.finished(order.workflow_id)


async def onboard_nowhere(client: Client) -> None:
    """Ask for a region that provisioning refuses: everything before it is undone."""
    order = await client.post("/v1/onboardings", onboarding(client, region=_NOWHERE), doomed=True)
    if order.workflow_id is not None and client.chance.random() < 0.4:
        await client.finished(order.workflow_id)


async def onboard_in_vain(client: Client) -> None:
    """Ask for products that cannot be had: whatever others need is undone, the environments of products too."""
    order = await client.post(
        "/v1/onboardings", onboarding(client, products=client.chance.choice(_IN_VAIN)), doomed=True
    )
    if order.workflow_id is not None and client.chance.random() < 0.4:
        await client.finished(order.workflow_id)


async def onboard_again_after_failure(client: Client) -> None:
    """Fail, and take the same name when it is free again."""
    body = onboarding(client, region=_NOWHERE)
    order = await client.post("/v1/onboardings", body, doomed=True)
    if order.workflow_id is not None and await client.finished(order.workflow_id):
        await client.post("/v1/onboardings", {**body, "region": "local"})


async def two_of_one_name(client: Client) -> None:
    """Ask twice at once for the same name, under two keys."""
    body = onboarding(client)
    await asyncio.gather(client.post("/v1/onboardings", body), client.post("/v1/onboardings", body))


async def repeat(client: Client) -> None:
    """Send an order several times at once under one key, and once more later."""
    order = await client.post("/v1/onboardings", onboarding(client))
    await asyncio.gather(client.send(order), client.send(order))


async def reuse_a_key(client: Client) -> None:
    """Send another body under a key that was used."""
    order = await client.post("/v1/onboardings", onboarding(client))
    answer = await client.send(order, onboarding(client))
    if order.accepted and answer is not None and answer.status != 422:
        client.journal.broken.append(f"S3 {order.key} was used for another body and answered {answer}")


async def ask_nonsense(client: Client) -> None:
    """Ask for a tier that does not exist."""
    await client.post("/v1/onboardings", onboarding(client, tier="imaginary"))


async def put_account(client: Client) -> None:
    """Create an account as managed service providers do."""
    body = {
        "customerName": client.name(),
        "expiration": "2030-01-01",
        "products": [{"name": "notes", "version": "2.0"}],
        "adminEmails": [f"msp@{client.number}.example"],
    }
    await client.post("/v1/accounts", body, method="PUT")


async def a_tenant(client: Client) -> str | None:
    """Return a tenant that is there: one of the client's, or a new one; None if its onboarding was not seen to end."""
    if not client.tenants or client.chance.random() < 0.3:
        await client.post("/v1/onboardings", onboarding(client))
    if not client.tenants:
        return None
    tenant_id = client.chance.choice(list(client.tenants))
    return tenant_id if await client.finished(client.tenants[tenant_id]) else None


async def _ordered(client: Client, path: str, tenant_id: str, **fields: Any) -> Order:
    order = await client.post(path, {"tenantId": tenant_id, **fields})
    if order.workflow_id is not None and client.chance.random() < 0.5:
        await client.finished(order.workflow_id)
    return order


async def change_tier(client: Client) -> None:
    """Want another tier, perhaps the one that is there."""
    if tenant_id := await a_tenant(client):
        await _ordered(client, "/v1/tier-changes", tenant_id, tier=client.chance.choice(_TIERS))


async def change_products(client: Client) -> None:
    """Want other products."""
    if tenant_id := await a_tenant(client):
        await _ordered(client, "/v1/product-changes", tenant_id, products=client.chance.choice(_PRODUCTS))


async def change_products_in_vain(client: Client) -> None:
    """Want products that cannot be had: the tenant keeps those that it has, their licences and environments too."""
    if tenant_id := await a_tenant(client):
        body = {"tenantId": tenant_id, "products": client.chance.choice(_IN_VAIN)}
        order = await client.post("/v1/product-changes", body, doomed=True)
        if order.workflow_id is not None and await client.finished(order.workflow_id):
            await _ordered(client, "/v1/product-changes", tenant_id, products=client.chance.choice(_PRODUCTS))


async def suspend(client: Client) -> None:
    """Suspend, and perhaps open again."""
    if tenant_id := await a_tenant(client):
        order = await _ordered(client, "/v1/suspensions", tenant_id, reason="simulated")
        if order.workflow_id is not None and client.chance.random() < 0.7:
            await client.finished(order.workflow_id)
            await _ordered(client, "/v1/reactivations", tenant_id)


async def offboard(client: Client) -> None:
    """Go, with or without the data."""
    if tenant_id := await a_tenant(client):
        export = client.chance.random() < 0.5
        await _ordered(client, "/v1/offboardings", tenant_id, graceDays=0, export=export, reason="simulated")


async def offboard_and_stay(client: Client) -> None:
    """Go, and come back within the grace period."""
    if tenant_id := await a_tenant(client):
        order = await client.post("/v1/offboardings", {"tenantId": tenant_id, "graceDays": 1, "export": True})
        if order.workflow_id is not None:
            await asyncio.sleep(client.chance.random())
            await client.act(f"/v1/workflows/{order.workflow_id}/cancel", {"reason": "stays"})


async def update_account(client: Client) -> None:
    """Change what the account says, its name perhaps included."""
    if tenant_id := await a_tenant(client):
        body = {
            "accountId": tenant_id,
            "customerName": client.name(),
            "expiration": "2031-01-01",
            "products": client.chance.choice(_PRODUCTS),
            "adminEmails": [f"new@{client.number}.example"],
        }
        await client.post("/v1/accounts", body, method="PUT")


async def join(client: Client) -> None:
    """Onboard a customer that is a tenant already: somebody joins it."""
    body = onboarding(client)
    order = await client.post("/v1/onboardings", body)
    if order.workflow_id is not None:
        await client.finished(order.workflow_id)
        await client.post("/v1/onboardings", {**body, "adminEmails": [f"bob@{client.number}.example"]})


async def everything_at_once(client: Client) -> None:
    """Want several things of one tenant at the same time: one at a time is done, the others are refused."""
    if tenant_id := await a_tenant(client):
        await asyncio.gather(
            _ordered(client, "/v1/suspensions", tenant_id),
            _ordered(client, "/v1/tier-changes", tenant_id, tier="premium"),
            _ordered(client, "/v1/offboardings", tenant_id, graceDays=0, export=False),
        )


async def cancel(client: Client) -> None:
    """Change one's mind while it is being done."""
    if client.chance.random() < 0.5:
        order = await client.post("/v1/onboardings", onboarding(client))
    elif tenant_id := await a_tenant(client):
        change: tuple[str, Body] = client.chance.choice(
            (
                ("/v1/tier-changes", {"tier": client.chance.choice(_TIERS)}),
                ("/v1/product-changes", {"products": client.chance.choice(_PRODUCTS)}),
            )
        )
        order = await client.post(change[0], {"tenantId": tenant_id, **change[1]})
    else:
        return
    if order.workflow_id is not None:
        await asyncio.sleep(client.chance.choice((0.0, 0.01, 0.1)) * client.chance.random())
        action = client.chance.choice(("cancel", "cancel", "retry"))
        await client.act(f"/v1/workflows/{order.workflow_id}/{action}", {"reason": "simulated"})


ACTIONS: Sequence[Action] = (
    Action("onboard", 6, onboard),
    Action("onboard nowhere", 4, onboard_nowhere),
    Action("onboard in vain", 1, onboard_in_vain),
    Action("onboard again after failure", 1, onboard_again_after_failure),
    Action("two of one name", 1, two_of_one_name),
    Action("repeat", 1, repeat),
    Action("reuse a key", 1, reuse_a_key),
    Action("ask nonsense", 1, ask_nonsense),
    Action("put account", 1, put_account),
    Action("change tier", 2, change_tier),
    Action("change products", 3, change_products),
    Action("change products in vain", 1, change_products_in_vain),
    Action("suspend", 2, suspend),
    Action("off-board", 2, offboard),
    Action("off-board and stay", 1, offboard_and_stay),
    Action("update account", 1, update_account),
    Action("join", 1, join),
    Action("everything at once", 1, everything_at_once),
    Action("cancel", 2, cancel),
)
"""Everything that clients do. A new kind of request is one function and one line here."""


async def live(client: Client) -> None:
    """Do a few things, with pauses between them."""
    for _ in range(client.chance.choice((1, 1, 2, 3))):
        await asyncio.sleep(client.chance.choice((0.0, 0.05, 2.0)) * client.chance.random())
        (action,) = client.chance.choices(ACTIONS, [each.weight for each in ACTIONS])
        await action.act(client)


def as_json(body: Body | None) -> bytes:
    """Encode a request's body."""
    return b"" if body is None else json.dumps(body).encode()
