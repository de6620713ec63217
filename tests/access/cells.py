"""The cells of the matrix: who asks what about whose things, what the declared rule says, and what was heard."""

import asyncio
import base64
import binascii
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from urllib.parse import quote

import httpx2

from shared.access import Role
from shared.http.authorization import Everybody
from tests.access.routes import Owner, Route, Sent

Aim = Literal["own", "other", "absent"]
AIMS: tuple[Aim, ...] = ("own", "other", "absent")

Verdict = Literal["public", "unsigned", "unauthenticated", "forbidden", "allowed", "hidden"]
"""What a rule says: ``hidden`` is allowed, and what is asked for must be as if it were not there."""

SELF_JUDGED = ("/v1/authorize", "/v1/authorize/{path}")
"""Routes that judge a credential themselves, because that is what they are for: of a tenant's members only."""

SIGNED = ("/v1/driver-callbacks/{key}", "/v1/payment-webhooks/stripe")
"""Routes for which no credential counts but a signature of what is sent, which nobody here can make."""

FURTHER_RULES: Mapping[str, str] = {
    "PUT /v1/users/me/password": "Only a person who has signed in has a password.",
    "POST /v1/support-sessions": "Support is given by a person who has signed in.",
    "PATCH /v1/users/{user_id}": "A user is changed by itself alone.",
    "POST /v1/api-keys": "Support makes no keys for a tenant: they would outlast its visit.",
    "PUT /v1/identity-providers/{tenant_id}": "Support changes no way in: it would outlast its visit.",
    "DELETE /v1/identity-providers/{tenant_id}": "Support changes no way in: it would outlast its visit.",
    "POST /v1/api-keys/{key_id}/rotate": "Support makes no keys for a tenant: they would outlast its visit.",
}
"""What some routes refuse with 403 to those whom their rule lets in, by the route's name."""

_SILENCE_SECONDS = 0.4
_MOST_ATTEMPTS = 5
_PROBLEM = "application/problem+json"
_UNEQUAL = frozenset({"x-request-id", "date"})
"""Headers that are another one in each answer."""


@dataclass(frozen=True, eq=False)
class Credential:
    """What somebody sends, and who that is.

    Attributes:
        header: the whole value of `Authorization`; None for none.
        role: whose rights it has; None for a bad one.
        tenant_id: the one tenant that it is bound to, if it is.
        actions: what its scopes cover of everything.
    """

    name: str
    header: str | None
    role: Role | None = None
    tenant_id: str | None = None
    actions: frozenset[str] = frozenset({"read", "write"})

    @property
    def is_good(self) -> bool:
        """Whether it proves somebody."""
        return self.role is not None

    @property
    def is_unbound(self) -> bool:
        """Whether it may see all tenants."""
        return self.role is not None and self.tenant_id is None

    @property
    def headers(self) -> dict[str, str]:
        """What is sent."""
        return {} if self.header is None else {"Authorization": self.header}


def bearer(name: str, text: str, role: Role | None = None, tenant_id: str | None = None) -> Credential:
    """Return a credential that is sent as everybody sends them."""
    return Credential(name, f"Bearer {text}", role, tenant_id)


@dataclass(frozen=True)
class Cell:
    """One question."""

    route: Route
    credential: Credential
    aim: Aim

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.route.name} by {self.credential.name} of {self.aim}"

    @property
    def verdict(self) -> Verdict:
        """What the declared rule says; nothing else is asked."""
        rule, credential = self.route.rule, self.credential
        if self.route.path in SELF_JUDGED:
            return _verdict_of_authorize(credential)
        if self.route.path in SIGNED:
            return "unsigned"
        if isinstance(rule, Everybody):
            return "public"
        if credential.role is None:
            return "unauthenticated"
        action = "write" if self.route.is_writing else "read"
        if credential.role not in rule.roles or action not in credential.actions:
            return "forbidden"
        return "hidden" if self.aim == "other" and credential.tenant_id is not None else "allowed"


def _verdict_of_authorize(credential: Credential) -> Verdict:
    if not credential.is_good:
        return "unauthenticated"
    return "forbidden" if credential.is_unbound else "allowed"


@dataclass(frozen=True)
class Answer:
    """What was heard.

    Attributes:
        headers: in order, names in lower case.
        sent: the request, whose values it may repeat.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    sent: Sent

    @cached_property
    def told(self) -> str:
        """All of it as text, apart from what was sent and from what differs in each answer."""
        headers = "\n".join(f"{name}: {value}" for name, value in self.headers if name not in _UNEQUAL)
        text = f"{self.status}\n{headers}\n\n{self._readable()}"
        for kind, value in sorted(self.sent.values.items(), key=lambda each: -len(each[1])):
            for written in (value, quote(value), json.dumps(value)[1:-1]):
                text = text.replace(written, f"<{kind}>")
        return text.lower()

    def header(self, name: str) -> str:
        """Return a header's value, or nothing."""
        return next((value for each, value in self.headers if each == name), "")

    @property
    def problem(self) -> Mapping[str, object]:
        """The problem that it is; empty where it is none."""
        if self.header("content-type") != _PROBLEM or not self.body:
            return {}
        document: Mapping[str, object] = json.loads(self.body)
        return document

    def _readable(self) -> str:
        """Return the body, what is compressed in it and what stands behind its cursors."""
        body = self.body
        if self.header("content-type") == "application/gzip":
            body = zlib.decompress(body, zlib.MAX_WBITS | 16)
        text = body.decode("utf-8", "replace")
        return text + "".join(_decoded(part) for part in text.split('"nextCursor":"')[1:])


def _decoded(text: str) -> str:
    cursor = text.partition('"')[0]
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


async def ask(client: httpx2.AsyncClient, sent: Sent, credential: Credential) -> Answer:
    """Send a request and return the answer; of a stream of events what comes until nothing comes for a while.

    Whoever is told to come back does so: other work on the machine is no fault of the route.
    """
    for _ in range(_MOST_ATTEMPTS):
        answer = await _asked_once(client, sent, credential)
        if answer.status != httpx2.codes.SERVICE_UNAVAILABLE or not answer.header("retry-after"):
            break
        await asyncio.sleep(1)
    return answer


async def _asked_once(client: httpx2.AsyncClient, sent: Sent, credential: Credential) -> Answer:
    headers = httpx2.Headers({**sent.headers, **credential.headers}, encoding="utf-8")
    request = client.build_request(
        sent.method, sent.path, params=sent.query or None, headers=headers, json=sent.json, data=sent.form
    )
    response = await client.send(request, stream=True)
    try:
        is_endless = response.headers.get("content-type", "").startswith("text/event-stream")
        body = await _beginning(response) if is_endless else await response.aread()
    finally:
        await response.aclose()
    heads = [(name.lower(), value) for name, value in response.headers.multi_items()]
    return Answer(response.status_code, heads, body, sent)


async def _beginning(response: httpx2.Response) -> bytes:
    parts, chunks = [], response.aiter_bytes()
    try:
        while True:
            async with asyncio.timeout(_SILENCE_SECONDS):
                parts.append(await anext(chunks))
    except (TimeoutError, StopAsyncIteration):
        return b"".join(parts)


@dataclass(frozen=True)
class Judge:
    """Says what is wrong with answers.

    Attributes:
        tenant_id: of the tenant whose members ask.
        own: what tells of that tenant: marks that nobody else has, in lower case.
        other: what tells of the other tenant.
    """

    tenant_id: str
    own: Collection[str]
    other: Collection[str]

    def complaints(self, cell: Cell, answer: Answer, absent: Answer, own: Answer) -> Iterator[str]:
        """Yield each thing that is wrong, as one line.

        Args:
            absent: the answer to the same question about what is not there.
            own: the answer to the same question about one's own.
        """
        for complaint in (
            *self._told_too_much(cell, answer),
            *_of_verdict(cell, answer),
            *_differences(cell, answer, absent, own),
        ):
            yield f"{cell}: {complaint}"

    def _told_too_much(self, cell: Cell, answer: Answer) -> Iterator[str]:
        if cell.credential.is_unbound:
            return
        is_member = cell.credential.tenant_id == self.tenant_id
        for mark in self.other if is_member else (*self.other, *self.own):
            if mark in answer.told:
                yield f"tells {mark!r}"


def _of_verdict(cell: Cell, answer: Answer) -> Iterator[str]:
    status, problem = answer.status, answer.problem
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        yield f"{status}: {answer.body[:200]!r}"
    match cell.verdict:
        case "public":
            if status == httpx2.codes.UNAUTHORIZED:
                yield "401, and it is for everybody"
        case "unsigned":
            yield from _no_word_of_signature(answer)
        case "unauthenticated":
            yield from _no_proper_401(cell, answer)
        case "forbidden":
            if status != httpx2.codes.FORBIDDEN:
                yield f"{status} instead of 403"
            elif cell.route.method != "HEAD" and not problem:
                yield "403 without a problem"
        case "allowed" | "hidden":
            yield from _not_let_in(cell, answer)


def _not_let_in(cell: Cell, answer: Answer) -> Iterator[str]:
    status, detail = answer.status, answer.problem.get("detail")
    is_further = status == httpx2.codes.FORBIDDEN and detail == FURTHER_RULES.get(cell.route.name, "")
    if status in {httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN} and not is_further:
        yield f"{status}: {detail}"
    if cell.route.declared is not None and status not in cell.route.declared:
        yield f"{status}, which the OpenAPI document does not name"


def _no_word_of_signature(answer: Answer) -> Iterator[str]:
    if (answer.status, answer.problem.get("code")) != (httpx2.codes.UNAUTHORIZED, "wrong_signature"):
        yield f"{answer.status} instead of 401 for want of a signature"


def _no_proper_401(cell: Cell, answer: Answer) -> Iterator[str]:
    is_blocked = cell.route.path in SELF_JUDGED and answer.status == httpx2.codes.FORBIDDEN
    if answer.status != httpx2.codes.UNAUTHORIZED and not is_blocked:
        yield f"{answer.status} instead of 401"
        return
    if not is_blocked and not answer.header("www-authenticate").startswith("Bearer "):
        yield f"401 with WWW-Authenticate {answer.header('www-authenticate')!r}"
    if cell.route.method != "HEAD" and answer.problem.get("status") != answer.status:
        yield f"{answer.status} without a problem"


def _differences(cell: Cell, answer: Answer, absent: Answer, own: Answer) -> Iterator[str]:
    """Compare with what is not there, wherever the one who asks must not tell the difference."""
    if cell.aim != "other" or cell.verdict in {"public", "unsigned", "allowed"}:
        return
    names_nobody = answer.sent == own.sent == absent.sent
    is_of_all = answer.sent == own.sent != absent.sent  # such as a tier of the catalog, which is everybody's
    if names_nobody or is_of_all:
        return
    if answer.told != absent.told:
        yield f"told apart from what is not there: {answer.told!r} / {absent.told!r}"


def was_reached(route: Route, answers: Mapping[Cell, Answer]) -> bool:
    """Return whether an example got as far as the thing that it names: else the cells of its route prove nothing."""
    return any(
        answer.status < httpx2.codes.BAD_REQUEST or answer.status == httpx2.codes.CONFLICT
        for cell, answer in answers.items()
        if cell.route == route and cell.verdict in {"allowed", "public"}
    )


def owner_of(cell: Cell, owners: Mapping[Aim, Owner], throwaway: Mapping[Aim, Owner]) -> Owner:
    """Return whose things a question is about: of what operators may change and look at, which leaves a trace too."""
    return (throwaway if cell.credential.is_unbound else owners)[cell.aim]
