"""A tenant's own OpenID provider: a real server in a thread, and people who go there with their browsers."""

import contextlib
import secrets
import threading
import warnings
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import flask
import httpx2
import werkzeug.serving

with warnings.catch_warnings():
    from authlib.deprecate import AuthlibDeprecationWarning  # type: ignore[import-untyped]

    warnings.simplefilter("ignore", AuthlibDeprecationWarning)  # it signs with a module that has a successor
    import oidc_provider_mock  # type: ignore[import-untyped]

from services.identity.providers.discovery import Discovery
from services.identity.providers.id_tokens import IdTokens
from services.identity.providers.network import ProviderClient
from services.identity.providers.oidc import OidcProvider, OidcRegistration
from services.identity.providers.port import Proof, Return
from shared.clock import Clock, SystemClock
from shared.ids import TimeOrderedIds

REDIRECT_URI = "https://tenure.example.com/oauth/callback/acme"
HERE = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
"""Where the tests' own servers are."""

Answer = tuple[int, Any]


@dataclass(frozen=True)
class Asked:
    """What the server was asked.

    Attributes:
        fields: those of the query and of the form.
    """

    path: str
    fields: Mapping[str, str]
    authorization: str | None


class OidcServer:
    """A provider for everybody, whatever client they come with.

    Attributes:
        asked: everything in order.
        instead: what a path answers in place of the server's own answer.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.instead: dict[str, Callable[[], Answer]] = {}
        self._challenges: dict[str, str] = {}
        self._app = self._build()
        self._server = self._bound(0)

    @property
    def issuer(self) -> str:
        """As the server writes it."""
        return f"http://localhost:{self._server.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["OidcServer"]:
        """Answer, until the context ends."""
        self._start()
        try:
            yield self
        finally:
            self._stop()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Let nothing listen where the server was."""
        self._stop()
        try:
            yield
        finally:
            self._server = self._bound(self._server.port)
            self._start()

    def know(self, subject: str, **claims: Any) -> None:
        """Know somebody from now on."""
        self._storage.store_user(oidc_provider_mock.User(sub=subject, claims=claims))

    def forget(self, subject: str) -> None:
        """Know somebody no more."""
        self._storage._users.pop(subject)

    def change_key(self) -> None:
        """Sign with another key from now on, and publish no other."""
        self._storage.jwk = type(self._storage.jwk).generate_key(is_private=True)

    def times(self, path: str) -> int:
        """Return how often a path was asked."""
        return sum(each.path == path for each in self.asked)

    def _build(self) -> flask.Flask:
        app: flask.Flask = oidc_provider_mock.app()
        app.debug = False
        app.wsgi_app = app.wsgi_app.app  # type: ignore[method-assign, attr-defined]  # without the debugger around it
        with app.test_request_context():
            app.preprocess_request()
            self._storage = flask.g.oidc_provider_mock_storage
        app.before_request(self._before)
        app.after_request(self._after)
        return app

    def _before(self) -> flask.typing.ResponseReturnValue | None:
        request = flask.request
        fields = {**request.args.to_dict(), **request.form.to_dict()}
        self.asked.append(Asked(request.path, fields, request.headers.get("Authorization")))
        if request.path in self.instead:
            status, body = self.instead[request.path]()
            return (body, status) if isinstance(body, str) else (flask.jsonify(body), status)
        # The server itself does not look at PKCE.
        challenge = self._challenges.get(fields.get("code", ""))
        if request.path == "/oauth2/token" and challenge and challenge != challenge_of(fields.get("code_verifier", "")):
            return {"error": "invalid_grant"}, 400
        return None

    def _after(self, response: flask.Response) -> flask.Response:
        if flask.request.path == "/oauth2/authorize" and response.location:
            (code,) = parse_qs(urlsplit(response.location).query).get("code", [""])
            self._challenges[code] = flask.request.args.get("code_challenge", "")
        return response

    def _bound(self, port: int) -> werkzeug.serving.BaseWSGIServer:
        return werkzeug.serving.make_server("127.0.0.1", port, self._app, threaded=True, request_handler=_QuietHandler)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()


class _QuietHandler(werkzeug.serving.WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the interface has it
        pass


@dataclass
class OidcKit:
    """A tenant's provider for the contract suite, see `provider_kits.Kit`."""

    tenant_id: str
    server: OidcServer
    client: ProviderClient
    provider: OidcProvider
    subjects: dict[str, str] = field(default_factory=dict)

    async def make(self, email: str) -> UUID:
        """Let the provider know somebody, whose address it has verified, and return our id."""
        self.subjects[email] = secrets.token_hex(8)
        self.server.know(self.subjects[email], email=email, email_verified=True)
        return TimeOrderedIds().new()

    async def proof(self, email: str) -> Proof:
        """Return what somebody's browser brings back; somebody whom the provider does not know makes a code up."""
        if email not in self.subjects:
            return Return(secrets.token_urlsafe(16), secrets.token_urlsafe(48), secrets.token_urlsafe(16))
        return await self.visit(self.subjects[email])

    async def wrong_proof(self, email: str) -> Proof:
        """Return a code that was stolen on the way: whoever has it does not know what the challenge was made of."""
        proof = await self.proof(email)
        assert isinstance(proof, Return)
        return replace(proof, verifier=secrets.token_urlsafe(48))

    async def remove(self, email: str) -> None:
        """Let the provider know somebody no more."""
        self.server.forget(self.subjects.pop(email))

    def away(self) -> contextlib.AbstractContextManager[None]:
        """Let the provider not answer."""
        return self.server.away()

    async def visit(self, subject: str) -> Return:
        """Go to the provider, say there who one is, and return what is brought back."""
        verifier, nonce, state = (secrets.token_urlsafe(48) for _ in range(3))
        url = await self.provider.authorization_url(state=state, nonce=nonce, challenge=challenge_of(verifier))
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as browser:
            assert (await browser.get(url)).status_code == 200
            answer = await browser.post(url, data={"sub": subject})
        place, _, query = answer.headers["Location"].partition("?")
        brought = parse_qs(query)
        assert (place, brought["state"]) == (REDIRECT_URI, [state])
        return Return(brought["code"][0], verifier, nonce)


@contextlib.asynccontextmanager
async def open_oidc_kit(tenant_id: str = "acme", *, clock: Clock | None = None) -> AsyncIterator[OidcKit]:
    """Start a provider for a tenant; its tokens are of the machine's own time."""
    clock = clock or SystemClock()
    client = ProviderClient(networks=HERE)
    with OidcServer().running() as server:
        provider = OidcProvider(
            client,
            Discovery(client, clock=clock),
            IdTokens(client.get_document, clock=clock),
            registration=OidcRegistration(server.issuer, f"tenure-{tenant_id}", "s3cret"),
            redirect_uri=REDIRECT_URI,
        )
        yield OidcKit(tenant_id, server, client, provider)
        await client.aclose()


def challenge_of(verifier: str) -> str:
    """Return the challenge of a verifier (RFC 7636, 4.2)."""
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
