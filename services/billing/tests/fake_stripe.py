"""Stripe, as strict as its documents say it is, and as unreliable as a test wants it.

It keeps answers by idempotency key, failures of its own included, and refuses a key that comes with something else. It
takes money for an invoice once, and says so in `charges`: the money that is gone.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

KEY = "sk_test_fake"

Fault = Literal["drop", "lose", "fail", "fail_after", "limit", "hang", "none"]
"""What goes wrong with a request: the connection ends before it is done or before it is answered; it is answered by a
500 instead of being done or after it was; it is answered by a 429; it is done and never answered."""

Answer = tuple[int, Mapping[str, Any]]

_ALLOWED = {
    "customers": {"name", "metadata"},
    "invoices": {
        "customer",
        "currency",
        "collection_method",
        "auto_advance",
        "pending_invoice_items_behavior",
        "description",
        "metadata",
    },
    "invoiceitems": {"customer", "invoice", "currency", "amount", "description"},
    "finalize": {"auto_advance"},
    "pay": {"off_session", "expand"},
    "void": {"expand"},
    "read": {"expand"},
    "list": {"status", "created", "limit", "starting_after"},
}


@dataclass
class FakeStripe:
    """The provider's side.

    Attributes:
        now: what it takes for the time, in seconds.
        customers: by reference.
        invoices: by reference.
        charges: of which invoices how much money was taken, in the order in which it was.
        declines: by which codes the next payments are declined, the first first.
        processing: whether payments take days from now on.
        added_tax: what it adds to invoices by itself.
        faults: what goes wrong next, by operation.
        asked: every operation that it was asked for.
        answered: how many requests were answered.
        released: what never answered requests wait for.
    """

    now: int = 1_772_366_400
    url: str = ""
    customers: dict[str, dict[str, Any]] = field(default_factory=dict)
    invoices: dict[str, dict[str, Any]] = field(default_factory=dict)
    charges: list[tuple[str, int]] = field(default_factory=list)
    declines: list[str] = field(default_factory=list)
    processing: bool = False
    added_tax: int = 0
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answered: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _kept: dict[str, tuple[str, Answer]] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def taken(self) -> dict[str, int]:
        """Return how often money was taken for each of our invoices."""
        ours = [self.invoices[reference]["metadata"]["tenure_invoice"] for reference, _ in self.charges]
        return {each: ours.count(each) for each in ours}

    def pay_by_hand(self, reference: str) -> None:
        """Have a customer pay at Stripe's own page."""
        self._take(self.invoices[reference])

    def forget_keys(self) -> None:
        """Forget idempotency keys, as Stripe does after a day."""
        self._kept.clear()

    async def answer(self, method: str, path: str, headers: Mapping[str, str], form: str) -> Answer | None:
        """Answer a request; None where the connection ends."""
        operation = _operation(method, path)
        self.asked.append(operation)
        faults = self.faults.get(operation)
        fault = faults.pop(0) if faults else None
        if fault == "drop":
            return None
        if fault == "limit":
            return _error(429, "invalid_request_error", "rate_limit")
        done = self._once(operation, method, path, headers, form, fails_first=fault == "fail")
        if fault == "hang":
            await self.released.wait()
        if fault in {"lose", "hang"}:
            return None
        return _error(500, "api_error", None) if fault == "fail_after" else done

    def _once(
        self, operation: str, method: str, path: str, headers: Mapping[str, str], form: str, *, fails_first: bool
    ) -> Answer:
        if headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, "invalid_request_error", None)
        key = headers.get("idempotency-key")
        if method == "GET":
            return _error(500, "api_error", None) if fails_first else self._do(operation, path, form)
        if key is None:
            return _error(400, "invalid_request_error", "a_test_wants_keys")
        asked = f"{path} {form}"
        if key in self._kept:
            before, answer = self._kept[key]
            return answer if before == asked else _error(400, "idempotency_error", None)
        answer = _error(500, "api_error", None) if fails_first else self._do(operation, path, form)
        self._kept[key] = (asked, json.loads(json.dumps(answer)))
        return answer

    def _do(self, operation: str, path: str, form: str) -> Answer:
        given = dict(parse_qsl(form, keep_blank_values=True))
        unknown = {name.partition("[")[0] for name in given} - _ALLOWED[operation]
        if unknown:
            return _error(400, "invalid_request_error", "parameter_unknown")
        if operation == "list":
            return self._list(given)
        make = {"customers": self._customer, "invoices": self._draft, "invoiceitems": self._item}.get(operation)
        if make is not None:
            return make(given)
        reference = path.split("/")[3]
        if reference not in self.invoices:
            return _error(404, "invalid_request_error", "resource_missing")
        change = {"finalize": self._finalize, "pay": self._pay, "void": self._void, "read": self._read}[operation]
        return change(self.invoices[reference])

    def _customer(self, given: Mapping[str, str]) -> Answer:
        return 200, self._add(self.customers, "cus", object="customer", name=given["name"], metadata=_meta(given))

    def _add(self, place: dict[str, dict[str, Any]], prefix: str, **content: Any) -> dict[str, Any]:
        made = {"id": f"{prefix}_{next(self._numbers)}", "created": self.now, **content}
        place[made["id"]] = made
        return made

    def _draft(self, given: Mapping[str, str]) -> Answer:
        if given["customer"] not in self.customers:
            return _error(400, "invalid_request_error", "resource_missing")
        if (given["auto_advance"], given["pending_invoice_items_behavior"]) != ("false", "exclude"):
            return _error(400, "invalid_request_error", "a_test_wants_nothing_to_go_on_by_itself")
        return 200, self._add(
            self.invoices,
            "in",
            object="invoice",
            status="draft",
            customer=given["customer"],
            currency=given["currency"],
            total=self.added_tax,
            metadata=_meta(given),
            status_transitions={"paid_at": None},
            payments={"object": "list", "data": [], "has_more": False, "url": "/v1/invoice_payments"},
        )

    def _item(self, given: Mapping[str, str]) -> Answer:
        invoice = self.invoices[given["invoice"]]
        if invoice["status"] != "draft" or given["currency"] != invoice["currency"]:
            return _error(400, "invalid_request_error", "invoice_not_editable")
        invoice["total"] += int(given["amount"])
        return 200, {"id": f"ii_{next(self._numbers)}", "object": "invoiceitem"}

    def _finalize(self, invoice: dict[str, Any]) -> Answer:
        if invoice["status"] != "draft":
            return _error(400, "invalid_request_error", "invoice_not_editable")
        invoice["status"] = "open"
        return 200, invoice

    def _pay(self, invoice: dict[str, Any]) -> Answer:
        if invoice["status"] not in {"open", "uncollectible"} or invoice["payments"]["data"]:
            return _error(400, "invalid_request_error", None)
        if self.declines:
            return _error(402, "card_error", "card_declined", decline_code=self.declines.pop(0))
        if self.processing:
            intent = {"id": "pi_1", "object": "payment_intent", "status": "processing"}
            payment = {"type": "payment_intent", "payment_intent": intent}
            invoice["payments"]["data"] = [{"id": "inpay_1", "object": "invoice_payment", "payment": payment}]
        else:
            self._take(invoice)
        return 200, invoice

    def _take(self, invoice: dict[str, Any]) -> None:
        assert invoice["status"] == "open"
        invoice.update(status="paid", status_transitions={"paid_at": self.now})
        self.charges.append((invoice["id"], invoice["total"]))

    def _void(self, invoice: dict[str, Any]) -> Answer:
        if invoice["status"] not in {"open", "uncollectible"} or invoice["payments"]["data"]:
            return _error(400, "invalid_request_error", None)
        invoice["status"] = "void"
        return 200, invoice

    def _read(self, invoice: dict[str, Any]) -> Answer:
        return 200, invoice

    def _list(self, given: Mapping[str, str]) -> Answer:
        found = [
            each
            for each in reversed(self.invoices.values())
            if each["status"] == given["status"] and each["created"] >= int(given["created[gte]"])
        ]
        places = [each["id"] for each in found]
        start = places.index(given["starting_after"]) + 1 if "starting_after" in given else 0
        shown = found[start : start + int(given["limit"])]
        has_more = len(found) > start + len(shown)
        return 200, {"object": "list", "data": shown, "has_more": has_more, "url": "/v1/invoices"}


def _operation(method: str, path: str) -> str:
    parts = path.split("/")[2:]
    if method == "GET":
        return "list" if len(parts) == 1 else "read"
    return parts[-1]


def _meta(given: Mapping[str, str]) -> dict[str, str]:
    return {name[len("metadata[") : -1]: value for name, value in given.items() if name.startswith("metadata[")}


def _error(status: int, kind: str, code: str | None, **more: str) -> Answer:
    return status, {"error": {"type": kind, "message": f"{kind} {code}", "code": code, **more}}


@asynccontextmanager
async def serving(stripe: FakeStripe) -> AsyncIterator[FakeStripe]:
    """Serve HTTP on a port of this machine."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request, *lines = head.split("\r\n")
            method, target, _ = request.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
            url = urlsplit(target)
            answer = await stripe.answer(method, url.path, headers, body or url.query)
            if answer is not None:
                writer.write(_written(*answer))
                await writer.drain()
                stripe.answered += 1
        writer.close()
        writers.discard(writer)

    writers: set[asyncio.StreamWriter] = set()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stripe.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stripe
    finally:
        stripe.released.set()
        server.close()
        for each in [*writers]:
            each.close()
        await asyncio.sleep(0)


def _written(status: int, document: Mapping[str, Any]) -> bytes:
    content = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\nrequest-id: req_1\r\n"
    return f"{head}content-length: {len(content)}\r\nconnection: close\r\n\r\n".encode() + content
