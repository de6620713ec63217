"""Asking providers: where nobody is led, and what a provider that means ill can do."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.identity.providers import network
from services.identity.providers.network import Address, AddressNotAllowedError, ProviderClient, is_public
from services.identity.providers.port import ProviderUnavailableError
from shared.testing import eventually

HERE = ip_network("127.0.0.1/32")
NAME = "id.example.com"

PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.8.8.8 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.7 203.0.113.5 224.0.0.1
    239.255.255.250 240.0.0.1 255.255.255.255 168.63.129.16
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b::a00:1
    64:ff9b:1::808:808 100::1 2001::1 2001:db8::1 2002:7f00:1::1 2002:a00:1::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254
    fe80::1 fec0::1 ff02::1 ff0e::1
""".split()  # noqa: SIM905 - a table of addresses reads better than so many quoted strings


@dataclass
class Server:
    """Listens here, answers every request with the same bytes and keeps what it was sent.

    Attributes:
        hangs: answers nothing.
        drips: answers a byte now and then, for ever.
    """

    answer: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    hangs: bool = False
    drips: bool = False
    port: int = 0
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if self.hangs:
                await reader.read()
            writer.write(self.answer)
            await writer.drain()
            while self.drips and not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()


@contextlib.asynccontextmanager
async def listening(server: Server, **options: Any) -> AsyncIterator[Server]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, **options)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        if server.tasks:
            _, pending = await asyncio.wait(server.tasks, timeout=2)
            assert not pending, "the client has left a connection open"


class Names:
    """Answers each lookup with the next of these, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> Sequence[Address]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ip_address(each) for each in found]


@contextlib.asynccontextmanager
async def opened(*names: Sequence[str], **options: Any) -> AsyncIterator[ProviderClient]:
    client = ProviderClient(**({"resolve": Names(*names)} if names else {}) | options)
    try:
        yield client
    finally:
        await client.aclose()


def response(body: Any, *, status: str = "200 OK", headers: str = "") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode() + content


@pytest.mark.parametrize("address", PRIVATE)
async def test_an_address_that_not_everybody_can_reach_is_refused(address: str) -> None:
    assert not is_public(network._plain(ip_address(address)))

    for url in (f"https://{NAME}/", f"http://{NAME}/"):
        async with opened([address], networks=(ip_network("192.168.77.0/24"),)) as client:
            with pytest.raises(AddressNotAllowedError, match=f"^{NAME} has no address where a provider may be.$"):
                await client.get_json(url)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "172.32.0.1", "192.0.1.1", "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::101:101"],
)
def test_an_address_that_everybody_can_reach_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost", "[::ffff:127.0.0.1]"])
async def test_however_an_address_is_written_it_is_looked_at(host: str) -> None:
    async with listening(Server(response({}))) as server, opened() as client:
        with pytest.raises(AddressNotAllowedError, match="has no address"):
            await client.get_json(f"https://{host}:{server.port}/")
    assert server.requests == []


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("label too long")])
async def test_a_host_that_there_is_not_reads_like_one_that_may_not_be_asked(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", Mock(side_effect=error))
    async with opened() as client:
        with pytest.raises(AddressNotAllowedError, match=f"^{NAME} has no address where a provider may be.$"):
            await client.get_json(f"https://{NAME}/")


async def test_a_host_that_cannot_be_looked_up_now_may_be_there_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", Mock(side_effect=socket.gaierror(socket.EAI_AGAIN, "try again")))
    async with opened() as client:
        with pytest.raises(ProviderUnavailableError, match=f"^{NAME} cannot be reached.$") as caught:
            await client.get_json(f"https://{NAME}/")
    assert not isinstance(caught.value, AddressNotAllowedError)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://id.example.com/", "must begin with https://"),
        ("ftp://id.example.com/", "must begin with https://"),
        ("file:///etc/passwd", "is no URL"),
        ("//id.example.com/", "must begin with https://"),
        ("https:///path", "is no URL"),
        ("https://", "is no URL"),
        ("", "is no URL"),
        ("https://id.example.com:0/", "is no URL"),
        ("https://id.example.com:99999/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://id.example.com/ a", "is no URL"),
        ("https://id.example.com/\r\nHost: a", "is no URL"),
        ("https://id.example.com\\@127.0.0.1/", "is no URL"),
        ("https://idé.example.com/", "is no URL"),
        ("https://id.example.com/" + "a" * 2000, "is no URL"),
        ("https://us@id.example.com/", "neither a user"),
        ("https://us:secret@id.example.com/", "neither a user"),
        ("https://id.example.com/#a", "nor a fragment"),
    ],
    ids=lambda text: text[:40],
)
async def test_a_url_that_is_none_is_refused_before_anything_is_looked_up(url: str, text: str) -> None:
    names = Names(["1.1.1.1"])
    async with opened(resolve=names) as client:
        with pytest.raises(AddressNotAllowedError, match=text) as caught:
            await client.get_json(url)
    assert names.asked == []
    assert "secret" not in str(caught.value)


async def test_a_network_that_the_installation_allows_may_be_asked_without_tls() -> None:
    async with listening(Server(response({"a": 1}))) as server, opened(["127.0.0.1"], networks=(HERE,)) as client:
        assert await client.get_json(f"http://{NAME}:{server.port}/") == (200, {"a": 1})
        assert await client.get_document(f"http://{NAME}:{server.port}/") == {"a": 1}


async def test_an_allowed_network_allows_no_other() -> None:
    async with opened(["127.0.0.2"], networks=(HERE,)) as client:
        for scheme in ("http", "https"):
            with pytest.raises(AddressNotAllowedError):
                await client.get_json(f"{scheme}://{NAME}/")
    async with opened(["1.1.1.1"], networks=(HERE,)) as client:
        with pytest.raises(AddressNotAllowedError):
            await client.get_json(f"http://{NAME}/")


async def test_the_address_that_was_looked_at_is_asked_whatever_the_name_means_a_moment_later() -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with listening(Server(response({}))) as server, opened(resolve=names, networks=(HERE,)) as client:
        url = f"http://{NAME}:{server.port}/"
        assert await client.get_json(url) == (200, {})
        assert names.asked == [NAME]

        with pytest.raises(AddressNotAllowedError):  # on a new connection it is looked at anew
            await client.get_json(url)
    assert len(server.requests) == 1


async def test_of_several_addresses_only_those_are_asked_that_may_be() -> None:
    async with listening(Server(response({}))) as server:
        for found in (["10.0.0.1", "127.0.0.1"], ["127.0.0.2", "::1", "127.0.0.1"], ["::ffff:127.0.0.1"]):
            async with opened(found, networks=(HERE,)) as client:
                assert await client.get_json(f"http://{NAME}:{server.port}/") == (200, {})


async def test_a_second_address_is_tried_where_the_first_cannot_be_reached() -> None:
    networks = (ip_network("127.0.0.0/29"),)
    async with listening(Server(response({}))) as server:
        async with opened(["127.0.0.1", "127.0.0.2"], networks=networks) as client:
            assert await client.get_json(f"http://{NAME}:{server.port}/") == (200, {})
        async with opened(["127.0.0.2", "127.0.0.3", "127.0.0.1"], networks=networks) as client:
            assert await client.get_json(f"http://{NAME}:{server.port}/") == (200, {})
        async with opened(["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"], networks=networks) as client:
            with pytest.raises(ProviderUnavailableError, match="cannot be reached"):
                await client.get_json(f"http://{NAME}:{server.port}/")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status: str) -> None:
    async with listening(Server(response({"a": 1}))) as target, opened(["127.0.0.1"], networks=(HERE,)) as client:
        answer = response(b"", status=status, headers=f"Location: http://127.0.0.1:{target.port}/\r\n")
        async with listening(Server(answer)) as server:
            url = f"http://{NAME}:{server.port}/"
            assert await client.get_json(url) == (int(status[:3]), {})
            assert await client.post_form(url, {}) == (int(status[:3]), {})
            with pytest.raises(ProviderUnavailableError, match="does not answer with a JSON document"):
                await client.get_document(url)
    assert target.requests == []


async def test_neither_a_proxy_nor_a_netrc_of_the_machine_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with listening(Server(response({"proxy": 1}))) as proxy, listening(Server(response({}))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        (tmp_path / "netrc").write_text(f"machine {NAME} login us password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with opened(["127.0.0.1"], networks=(HERE,)) as client:
            assert await client.get_json(f"http://{NAME}:{server.port}/") == (200, {})
    assert proxy.requests == []
    assert b"authorization" not in server.requests[0].lower()


@pytest.mark.parametrize("kind", ["told before", "not told"])
async def test_an_answer_that_is_too_large_is_not_read(kind: str) -> None:
    for size, is_read in ((network.LARGEST - 10, True), (network.LARGEST, False), (100 * network.LARGEST, False)):
        body = b'{"a":"' + b"a" * size + b'"}'
        answer = response(body) if kind == "told before" else b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
        async with listening(Server(answer)) as server, opened(["127.0.0.1"], networks=(HERE,)) as client:
            asking = client.get_json(f"http://{NAME}:{server.port}/")
            if is_read:
                assert await asking == (200, {"a": "a" * size})
            else:
                with pytest.raises(ProviderUnavailableError, match="answers with more than 262144 bytes"):
                    await asking


async def test_an_answer_that_comes_drop_by_drop_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "SECONDS", 0.3)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    async with listening(Server(answer, drips=True)) as server, opened(["127.0.0.1"], networks=(HERE,)) as client:
        async with asyncio.timeout(2):
            with pytest.raises(ProviderUnavailableError, match="does not answer in time"):
                await client.get_json(f"http://{NAME}:{server.port}/")


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "SECONDS", 0.2)
    async with listening(Server(hangs=True)) as server, opened(["127.0.0.1"], networks=(HERE,)) as client:
        async with asyncio.timeout(2):
            with pytest.raises(ProviderUnavailableError, match=f"^{NAME}:{server.port} does not answer in time.$"):
                await client.get_json(f"http://{NAME}:{server.port}/")
    assert network.CONNECT_SECONDS == 3


async def test_a_name_that_nobody_answers_for_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "CONNECT_SECONDS", 0.1)

    async def hang(_host: str, _port: int) -> Sequence[Address]:
        await asyncio.sleep(60)
        return []

    async with opened(resolve=hang) as client, asyncio.timeout(2):
        with pytest.raises(ProviderUnavailableError, match="does not answer in time"):
            await client.get_json(f"https://{NAME}/")


async def test_a_provider_that_hangs_keeps_nobody_from_asking_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "SECONDS", 6.0)
    async with (
        listening(Server(hangs=True)) as hanging,
        listening(Server(response({}))) as server,
        opened(["127.0.0.1"], networks=(HERE,)) as client,
    ):
        many = [asyncio.create_task(client.get_json(f"http://{NAME}:{hanging.port}/")) for _ in range(100)]
        await eventually(lambda: len(hanging.requests) == 8, within=5)
        assert await client.get_json(f"http://other.example.com:{server.port}/") == (200, {})
        assert not any(each.done() for each in many)
        assert len(hanging.requests) == 8
        refused = await asyncio.gather(*many, return_exceptions=True)
    assert {type(each) for each in refused} == {ProviderUnavailableError}


async def test_nobody_listening_and_nonsense_tell_nothing_of_what_is_there() -> None:
    async with opened(["127.0.0.1"], networks=(HERE,)) as client:
        async with listening(Server(b"220 secret.internal ESMTP\r\n")) as server:
            with pytest.raises(
                ProviderUnavailableError, match=f"^{NAME}:{server.port} does not answer as HTTP has it.$"
            ):
                await client.get_json(f"http://{NAME}:{server.port}/")
        with pytest.raises(ProviderUnavailableError, match=f"^{NAME}:{server.port} cannot be reached.$"):
            await client.get_json(f"http://{NAME}:{server.port}/")


@pytest.mark.parametrize("body", [b"", b"secret", b"[1]", b'"a"', b"{", b"[" * 100_000, b"\xff", b'{"a": NaN}'])
async def test_an_answer_that_is_no_json_object_is_an_empty_one(body: bytes) -> None:
    async with listening(Server(response(body))) as server, opened(["127.0.0.1"], networks=(HERE,)) as client:
        url = f"http://{NAME}:{server.port}/"
        assert await client.get_json(url) == (200, {})
        with pytest.raises(ProviderUnavailableError, match=f"^{url} does not answer with a JSON document.$"):
            await client.get_document(url)


async def test_what_an_error_says_is_told_to_who_asked_for_it_and_is_no_document() -> None:
    answer = response({"error": "invalid_grant"}, status="400 Bad Request")
    async with listening(Server(answer)) as server, opened(["127.0.0.1"], networks=(HERE,)) as client:
        url = f"http://{NAME}:{server.port}/"
        assert await client.get_json(url) == (400, {"error": "invalid_grant"})
        with pytest.raises(ProviderUnavailableError) as caught:
            await client.get_document(url)
    assert "invalid_grant" not in str(caught.value)


async def test_a_form_is_posted_as_a_browser_does_and_credentials_go_with_it() -> None:
    async with listening(Server(response({}))) as server, opened(["127.0.0.1"], networks=(HERE,)) as client:
        await client.post_form(f"http://{NAME}:{server.port}/t?a=b", {"code": "a b&c"}, authorization="Basic eDp5")
    head = server.requests[0].decode().split("\r\n")
    assert head[0] == "POST /t?a=b HTTP/1.1"
    assert {f"Host: {NAME}:{server.port}", "Authorization: Basic eDp5", "Content-Length: 12"} <= set(head)
    assert "Content-Type: application/x-www-form-urlencoded" in head


async def test_no_cookie_of_one_tenants_exchange_is_sent_with_anothers() -> None:
    answer = response({}, headers="Set-Cookie: session=1\r\n")
    async with listening(Server(answer)) as server, opened(["127.0.0.1"], networks=(HERE,)) as client:
        for _ in range(2):
            await client.get_json(f"http://{NAME}:{server.port}/")
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of a name, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("network") / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_a_certificate_has_to_be_trusted_and_of_the_name_in_the_url(certificate: Path) -> None:
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(certificate)
    trust = ssl.create_default_context(cafile=certificate)
    untrusted = "shows no certificate for its name that is trusted here"
    async with listening(Server(response({"a": 1})), ssl=server_tls) as server:
        async with opened(["127.0.0.1"], networks=(HERE,), trust=trust) as client:
            assert await client.get_json(f"https://{NAME}:{server.port}/") == (200, {"a": 1})
            for host in ("other.example.com", "127.0.0.1"):
                with pytest.raises(ProviderUnavailableError, match=f"^{host}:{server.port} {untrusted}.$"):
                    await client.get_json(f"https://{host}:{server.port}/")
        async with opened(["127.0.0.1"], networks=(HERE,)) as client:
            with pytest.raises(ProviderUnavailableError, match=untrusted):
                await client.get_json(f"https://{NAME}:{server.port}/")


async def test_a_host_is_looked_up_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(None, None, None, "", ("10.0.0.1", port))]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    async with opened() as client:
        many = [client.get_json(f"https://{NAME}/") for _ in range(8)]
        refused = await asyncio.gather(*many, return_exceptions=True)
    assert {type(each) for each in refused} == {AddressNotAllowedError}
    assert asked == [NAME]
