"""Amazon's interfaces on this machine, as moto plays them, and ways to disturb them."""

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import httpx2
from werkzeug.serving import WSGIRequestHandler, make_server

REGION = "eu-central-1"
NOBODYS = "nobodys"

Environment = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/aws4_request")
_SERVER_ERROR = "500 Internal Server Error"


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for.

    Attributes:
        service: Amazon's short name, such as ``iam``; empty for what is not signed.
        operation: such as ``CreateRole``; the method alone where the path says what is meant, as in S3; empty for what
            is not signed.
        access_key: of whoever asks.
        body: what is sent with it.
        environment: all of it, as WSGI has it.
    """

    service: str
    operation: str
    access_key: str
    body: bytes
    environment: Environment

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent, of the services that take JSON or a form."""
        if self.body[:1] == b"{":
            document: dict[str, Any] = json.loads(self.body)
            return document
        return {name: values[0] for name, values in parse_qs(self.body.decode(errors="replace")).items()}


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Say nothing."""


class AmazonServer:
    """Listens on one port, also after it was away.

    Args:
        port: any that is free where it is 0.

    Attributes:
        asked: the operations that were asked for, the first first.
    """

    def __init__(self, *, port: int = 0) -> None:
        # Each account would load them, and nobody asks for them.
        os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        # Takes a second, of those tests alone that use it.
        from boto3 import Session  # noqa: PLC0415
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415

        self._session = Session()
        self.asked: list[str] = []
        self._application = DomainDispatcherApplication(create_backend_app)
        self._refusals: dict[str, tuple[str, str]] = {}
        self._lost: dict[str, int] = {}
        self._flowing = threading.Event()
        self._flowing.set()
        self._port = port
        self._clients: list[Any] = []
        self._listen()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def open(self, service: str, key: str = NOBODYS, password: str = NOBODYS, token: str | None = None) -> Any:
        """Return a client of a service, the operator's unless credentials are given."""
        from botocore.config import Config  # noqa: PLC0415 - takes half a second, of those tests alone that use it

        client = self._session.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            config=Config(retries={"total_max_attempts": 1}),
            aws_access_key_id=key,
            aws_secret_access_key=password,
            aws_session_token=token,
        )
        self._clients.append(client)
        return client

    @contextmanager
    def refusing(self, operation: str, code: str, sentence: str = "") -> Iterator[None]:
        """Answer an operation with an error, or all of them: ``*``."""
        self._refusals[operation] = (code, sentence)
        try:
            yield
        finally:
            del self._refusals[operation]

    @contextmanager
    def losing_answers(self, operation: str, *, times: int) -> Iterator[None]:
        """Do what is asked for, and answer so many times that it could not be done."""
        self._lost[operation] = times
        try:
            yield
        finally:
            del self._lost[operation]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Answer nothing before this is over."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Take no connections."""
        self._stop()
        try:
            yield
        finally:
            self._listen()

    def forget(self) -> None:
        """Be as new."""
        self.asked.clear()
        httpx2.post(f"{self.url}/moto-api/reset", verify=False, trust_env=False, timeout=60).raise_for_status()

    def close(self) -> None:
        """End."""
        for client in self._clients:
            client.close()
        self._stop()

    def answer(self, asked: Asked, start_response: StartResponse) -> Iterable[bytes]:
        """Answer what is asked for; for those who know better than moto."""
        answer: Iterable[bytes] = self._application(asked.environment, start_response)
        return answer

    def _listen(self) -> None:
        self._server = make_server("127.0.0.1", self._port, self._receive, threaded=True, request_handler=_Quiet)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _receive(self, environment: Environment, start_response: StartResponse) -> Iterable[bytes]:
        asked = asked_of(environment)
        operation = asked.operation
        if operation:
            self.asked.append(operation)
        self._flowing.wait(30)
        if refusal := self._refusals.get(operation) or (self._refusals.get("*") if operation else None):
            return error(asked, start_response, *refusal)
        if self._lost.get(operation, 0) > 0:
            self._lost[operation] -= 1
            for _ in self.answer(asked, lambda *_: None):
                pass
            return error(asked, start_response, "InternalErrorException", "", status=_SERVER_ERROR)
        return self.answer(asked, start_response)


def asked_of(environment: Environment) -> Asked:
    """Return what a request asks for; its body can be read again."""
    length = environment.get("CONTENT_LENGTH")
    body = environment["wsgi.input"].read(int(length)) if length else b""
    if length:
        environment["wsgi.input"] = BytesIO(body)
    signed = _CREDENTIAL.search(environment.get("HTTP_AUTHORIZATION", ""))
    access_key, service = signed.groups() if signed else ("", "")
    operation = environment.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    if not operation and service == "s3":
        operation = environment["REQUEST_METHOD"]
    elif not operation and b"Action=" in body:
        operation = parse_qs(body.decode()).get("Action", [""])[0]
    return Asked(service, operation, access_key, body, environment)


def error(
    asked: Asked, start_response: StartResponse, code: str, sentence: str, *, status: str = "400 Bad Request"
) -> Iterable[bytes]:
    """Answer with an error, the way the service does."""
    if "HTTP_X_AMZ_TARGET" in asked.environment:
        start_response(status, [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": code, "message": sentence}).encode()]
    start_response(status, [("Content-Type", "text/xml")])
    told = f"<Error><Code>{escape(code)}</Code><Message>{escape(sentence)}</Message></Error>"
    if asked.service == "ec2":
        told = f"<Response><Errors>{told}</Errors><RequestID>r</RequestID></Response>"
    elif asked.service != "s3":
        told = f"<ErrorResponse>{told}<RequestId>r</RequestId></ErrorResponse>"
    return [told.encode()]
