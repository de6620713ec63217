"""The grants of OAuth 2.1: what a client shows, and the tokens it gets for it.

Only what RFC 9700 leaves standing: authorization code with PKCE (S256), refresh tokens that are good once, client
credentials. What was used a second time was stolen or copied, so the session that came of it ends.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import asyncpg

from services.identity.changes import Change, Changes
from services.identity.queries import sessions as queries
from services.identity.sessions import Sessions, Tokens, Visit, digest_of, end_sessions, subject_of
from shared.access import Role
from shared.audit import Actor
from shared.clock import Clock
from shared.contracts.base import INSTALLATION
from shared.http import Problem
from shared.postgres import Connection

_WATCH = Actor("identity")
"""Who ends what somebody may have stolen."""

CODE_LIFETIME = timedelta(seconds=60)
SCOPE = "read write"
"""What whoever names no scope gets: everything that its role allows."""

_CODE_BYTES = 32


class Keys(Protocol):
    """Knows API keys by their text."""

    async def __call__(self, connection: Connection, key_text: str, now: datetime) -> asyncpg.Record | None:
        """Return the key with ``key_id``, ``tenant_id``, ``role``, ``scopes`` and ``expires_at``, if it is good."""
        ...


@dataclass(frozen=True)
class CodeRequest:
    """What an application asks for when it sends somebody here, checked already.

    Attributes:
        code_challenge: SHA-256 of the verifier that it will show, in URL-safe base64 (RFC 7636).
        tenant_id: where the user wants to get in; None leaves it to us.
        realm: the tenant whose own provider has recognised the user, '' for our passwords; it gets in nowhere else.
    """

    visit: Visit
    redirect_uri: str
    code_challenge: str
    scope: str
    nonce: str | None
    tenant_id: str | None
    realm: str = ""


class GrantError(Exception):
    """A grant is refused as RFC 6749 (5.2) has it.

    Attributes:
        code: ``invalid_grant`` and the like.
        detail: a sentence.
        status: of the answer.
    """

    def __init__(self, code: str, detail: str, *, status: int = 400) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status

    @property
    def problem(self) -> Problem:
        """The answer to it."""
        challenge = {"WWW-Authenticate": 'Basic realm="tenure"'} if self.status == 401 else {}  # noqa: PLR2004
        headers = {"Cache-Control": "no-store", **challenge}
        return Problem(
            self.status,
            code=self.code,
            detail=self.detail,
            headers=headers,
            more={"error": self.code, "error_description": self.detail},
        )


class Grants:
    """Turns grants into tokens."""

    def __init__(self, changes: Changes, sessions: Sessions, keys: Keys, *, clock: Clock) -> None:
        self._changes = changes
        self._sessions = sessions
        self._keys = keys
        self._clock = clock

    async def issue_code(self, user_id: UUID, request: CodeRequest) -> str:
        """Return a code for somebody who has just shown who it is.

        Raises:
            GrantError: the user can get in nowhere, or not there.
        """
        code = secrets.token_urlsafe(_CODE_BYTES)
        async with self._changes.transaction() as change:
            seat = await _chosen_seat(change.connection, user_id, request.tenant_id, realm=request.realm)
            await queries.insert_code(
                change.connection,
                {
                    "digest": digest_of(code),
                    "client_id": request.visit.client_id,
                    "redirect_uri": request.redirect_uri,
                    "code_challenge": request.code_challenge,
                    "user_id": user_id,
                    "tenant_id": seat["tenant_id"],
                    "scope": request.scope,
                    "nonce": request.nonce,
                    "address": request.visit.address,
                    "agent": request.visit.agent,
                    "expires_at": self._clock.now() + CODE_LIFETIME,
                    "realm": request.realm,
                },
            )
        return code

    async def exchange_code(
        self, code: str, *, client_id: str, redirect_uri: str, verifier: str
    ) -> tuple[Tokens, asyncpg.Record]:
        """Return tokens for a code, and the code's row for the ID token.

        Raises:
            GrantError: it is not good, or not for this client.
        """
        async with self._changes.transaction() as change:
            row = await queries.code(change.connection, digest_of(code))
            refusal = await self._refusal(change, row, client_id, redirect_uri, verifier)
            if row is not None and refusal is None:
                seat = await queries.seat(change.connection, row["user_id"], row["tenant_id"], realm=row["realm"])
                if seat is not None:
                    visit = Visit(row["client_id"], row["address"], row["agent"])
                    tokens = await self._sessions.begin(
                        change.connection, row["user_id"], seat, visit, scope=row["scope"], realm=row["realm"]
                    )
                    await queries.spend_code(change.connection, row["digest"], tokens.session_id)
                    _entered(change, "session.begun", row, tokens.session_id, seat)
                    return tokens, row
                refusal = _nowhere(row["tenant_id"])
        # Outside, so that what a refusal has ended is ended.
        assert refusal is not None
        raise refusal

    async def _refusal(
        self, change: Change, row: asyncpg.Record | None, client_id: str, redirect_uri: str, verifier: str
    ) -> GrantError | None:
        if row is None or row["client_id"] != client_id:
            return GrantError("invalid_grant", "The code is not known.")
        if row["session_id"] is not None:
            await end_sessions(
                change, [row["session_id"]], now=self._clock.now(), by=_WATCH, because="A code was used twice."
            )
            return GrantError("invalid_grant", "The code was used before; the session that came of it has ended.")
        if self._clock.now() >= row["expires_at"]:
            return GrantError("invalid_grant", "The code has expired.")
        if redirect_uri != row["redirect_uri"]:
            return GrantError("invalid_grant", "redirect_uri is another than the code was sent to.")
        if not hmac.compare_digest(challenge_of(verifier), row["code_challenge"]):
            return GrantError("invalid_grant", "code_verifier does not fit the challenge.")
        return None

    async def refresh(self, token: str, *, client_id: str | None, tenant_id: str | None) -> Tokens:
        """Return new tokens for a refresh token, in the same tenant or in another one of the user's.

        Raises:
            GrantError: it is not good; one that was used before ends its session.
        """
        async with self._changes.transaction() as change:
            now = self._clock.now()
            session = await queries.by_refresh_token(change.connection, digest_of(token))
            if session is None or (client_id is not None and client_id != session["client_id"]):
                raise GrantError("invalid_grant", "The refresh token is not known.")
            wanted = tenant_id or session["tenant_id"]
            refusal: GrantError | None = None
            if session["is_used"] or now >= session["expires_at"]:
                by = _WATCH if session["is_used"] else None
                because = "A refresh token was used twice." if session["is_used"] else None
                await end_sessions(change, [session["session_id"]], now=now, by=by, because=because)
                why = "was used before; its session has ended" if session["is_used"] else "has expired"
                refusal = GrantError("invalid_grant", f"The refresh token {why}.")
            elif (seat := await _seat_again(change.connection, session, wanted)) is None:
                refusal = _nowhere(wanted)
            else:
                if wanted != session["tenant_id"]:
                    _entered(change, "session.moved", session, session["session_id"], seat)
                return await self._sessions.refresh(change.connection, session, digest_of(token), seat)
        raise refusal

    async def credentials(self, client_id: str, secret: str, *, scope: str | None) -> Tokens:
        """Return an access token for an API key, given as client id (its id) and secret (all of it).

        Raises:
            GrantError: the key is not good, or a scope is more than it has.
        """
        async with self._changes.transaction() as change:
            key = await self._keys(change.connection, secret, self._clock.now())
            if key is None or key["key_id"] != client_id:
                raise GrantError("invalid_client", "The API key is not known.", status=401)
            wanted = scope.split() if scope else list(key["scopes"])
            if exceeding := [each for each in wanted if not _covers(key["scopes"], each)]:
                raise GrantError("invalid_scope", f"The API key does not have the scope {exceeding[0]}.")
            epoch: int | None = 0
            if key["tenant_id"] != INSTALLATION:
                epoch = await queries.tenant_epoch(change.connection, key["tenant_id"])
            if epoch is None:
                raise _nowhere(key["tenant_id"])
            return await self._sessions.of_key(key, epoch=epoch, scope=" ".join(wanted))

    async def revoke(self, token: str) -> None:
        """End the session of a refresh token; one that is not known is no error (RFC 7009, 2.2)."""
        async with self._changes.transaction() as change:
            session = await queries.by_refresh_token(change.connection, digest_of(token))
            if session is not None:
                user = Actor(f"user:{session['user_id']}")
                await end_sessions(change, [session["session_id"]], now=self._clock.now(), by=user)


def _entered(change: Change, action: str, row: asyncpg.Record, session_id: UUID, seat: asyncpg.Record) -> None:
    """Note that a user has got into a tenant; where it comes from is none of that tenant's business.

    Args:
        row: of the code or the session that it came with.
    """
    user = Actor(f"user:{row['user_id']}", Role(seat["role"]))
    after = {"clientId": row["client_id"], **({"realm": row["realm"]} if row["realm"] else {})}
    change.decided(user, action, subject_of(session_id), tenant_id=seat["tenant_id"], after=after)


async def _seat_again(connection: Connection, session: asyncpg.Record, tenant_id: str) -> asyncpg.Record | None:
    return await queries.seat(connection, session["user_id"], tenant_id, realm=session["realm"])


async def _chosen_seat(connection: Connection, user_id: UUID, tenant_id: str | None, *, realm: str) -> asyncpg.Record:
    if tenant_id is not None:
        seat = await queries.seat(connection, user_id, tenant_id, realm=realm)
        if seat is None:
            raise _nowhere(tenant_id)
        return seat
    seats = await queries.seats(connection, user_id, realm=realm)
    if not seats:
        raise _nowhere(None)
    return seats[0]


def _nowhere(tenant_id: str | None) -> GrantError:
    where = "anywhere" if tenant_id is None else "there"
    return GrantError(
        "invalid_grant",
        f"The user cannot get in {where} at present: not a member, the invitation not accepted, "
        "sign-in blocked, or another identity provider required.",
    )


def _covers(scopes: list[str], wanted: str) -> bool:
    return wanted in scopes or wanted.rpartition(":")[2] in scopes


def challenge_of(verifier: str) -> str:
    """Return what a verifier is announced by (RFC 7636, 4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
