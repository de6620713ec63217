"""Handing mails to a mail server that is a real one, and what a hostile name or address can do there: nothing."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.identity import mail as mails
from services.identity.mail import LogMailer, Mail, MailError, MailRefusedError, MailServer, MailTerms, SmtpMailer
from shared.clock import ManualClock
from shared.ids import TimeOrderedIds

ANNA = "anna@example.org"
SENDER = "Tenure <no-reply@example.com>"
MAIL = Mail(
    ANNA, "Your invitation", "Open this:\n\nhttps://x/accept#token=t\n.\nThe end.\n", "https://x/accept#token=t"
)


class Clerk:
    """What the server does with a mail.

    Attributes:
        replies: what it answers to a recipient's address or to the content, in place of taking it.
    """

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.replies: dict[str, str] = {}
        self.logins: list[str] = []
        self.encrypted: list[bool] = []

    async def handle_RCPT(  # noqa: N802 - the name that the server calls
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if reply := self.replies.get("RCPT"):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if reply := self.replies.get("DATA"):
            return reply
        self.envelopes.append(envelope)
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 OK"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        login = cast("LoginPassword", data)
        self.logins.append(login.login.decode())
        return AuthResult(success=login.password == b"pass word", handled=False)

    def message(self) -> EmailMessage:
        """The only mail that has arrived."""
        (envelope,) = self.envelopes
        assert isinstance(envelope.content, bytes)
        return message_from_bytes(envelope.content, policy=default)

    def text(self) -> str:
        """Its text, with the lines as they were before they went over the wire."""
        content: str = self.message().get_content()
        return content.replace("\r\n", "\n")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(clerk: Clerk, **options: Any) -> Iterator[int]:
    controller = Controller(clerk, hostname="127.0.0.1", port=free_port(), ready_timeout=30, **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@pytest.fixture
def clerk() -> Clerk:
    return Clerk()


def mailer(port: int, **server: Any) -> SmtpMailer:
    return SmtpMailer(MailServer("127.0.0.1", port, **server), sender=SENDER, clock=ManualClock(), ids=TimeOrderedIds())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody trusts yet, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("mail") / "server.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


async def test_a_mail_arrives_as_it_was_written(clerk: Clerk) -> None:
    with serving(clerk) as port:
        await mailer(port).send(MAIL)

    message = clerk.message()
    (envelope,) = clerk.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@example.com", [ANNA])
    assert (message["From"], message["To"], message["Subject"]) == (SENDER, ANNA, "Your invitation")
    assert message["Date"] == "Thu, 01 Jan 2026 00:00:00 +0000"
    assert message["Message-ID"].endswith("@example.com>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "text/plain"
    assert clerk.text() == MAIL.text


@pytest.mark.parametrize(
    "subject",
    [
        "Your invitation to Acme\r\nBcc: everybody@example.org",
        "Your invitation to Acme\nBcc: everybody@example.org\n\nAnother text",
        "Acme\x00\u2028Bcc: everybody@example.org\x85X-Evil: yes",
        "Żółw 🐢 & Söhne \ud800",
        "x" * 5000,
    ],
)
async def test_no_name_adds_a_header(clerk: Clerk, subject: str) -> None:
    with serving(clerk) as port:
        await mailer(port).send(Mail(ANNA, subject, "text\n", "link"))

    message = clerk.message()
    assert set(message.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding",
        "MIME-Version",
    } | ({"X-Peer", "X-MailFrom", "X-RcptTo"} & set(message.keys()))  # fmt: skip
    assert clerk.envelopes[0].rcpt_tos == [ANNA]
    assert len(message["Subject"]) <= 200
    assert clerk.text() == "text\n"


async def test_letters_beyond_ascii_arrive(clerk: Clerk) -> None:
    with serving(clerk) as port:
        await mailer(port).send(Mail(ANNA, "Żółw & Söhne", "“Żółw” 🐢\n", "link"))

    assert (clerk.message()["Subject"], clerk.text()) == ("Żółw & Söhne", "“Żółw” 🐢\n")
    (envelope,) = clerk.envelopes
    assert isinstance(envelope.content, bytes)
    assert envelope.content.isascii()


@pytest.mark.parametrize(
    "recipient",
    [
        "anna@example.org\r\nRCPT TO:<b@example.org>",
        "anna@example.org>, <b@example.org",
        "anna@example.org, b@example.org",
        "Anna <anna@example.org>",
        "ñandú@example.org",
        "anna@exämple.org",
        "anna",
        "",
    ],
)
async def test_what_is_no_plain_address_is_refused_for_good_before_anything_is_sent(
    clerk: Clerk, recipient: str
) -> None:
    with serving(clerk) as port, pytest.raises(MailRefusedError, match="ASCII"):
        await mailer(port).send(Mail(recipient, "subject", "text", "link"))

    assert clerk.envelopes == []


async def test_a_domain_in_its_ascii_form_gets_its_mail(clerk: Clerk) -> None:
    with serving(clerk) as port:
        await mailer(port).send(Mail("anna@xn--exmple-cua.org", "subject", "text", "link"))

    assert clerk.envelopes[0].rcpt_tos == ["anna@xn--exmple-cua.org"]


@pytest.mark.parametrize(
    ("place", "reply", "is_final"),
    [
        ("RCPT", "550 no such user, not even by #token=t", True),
        ("RCPT", "451 grey-listed", False),
        ("DATA", "554 looks like spam: #token=t", False),
        ("DATA", "452 full", False),
    ],
)
async def test_only_a_recipient_that_is_refused_for_good_is_given_up_and_the_server_is_not_quoted(
    clerk: Clerk, place: str, reply: str, *, is_final: bool
) -> None:
    clerk.replies[place] = reply
    with serving(clerk) as port, pytest.raises(MailError) as caught:
        await mailer(port).send(MAIL)

    assert isinstance(caught.value, MailRefusedError) == is_final
    assert reply[:3] in str(caught.value)
    assert "token" not in str(caught.value)
    assert ANNA not in str(caught.value)


async def test_nobody_who_listens_is_a_failure() -> None:
    with pytest.raises(MailError):
        await mailer(free_port()).send(MAIL)


@pytest.mark.parametrize("replies", [0, 1, 2, 5])
async def test_a_server_that_falls_silent_is_waited_for_only_so_long(
    replies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mails, "STEP_SECONDS", 0.2)
    async with server_that_falls_silent_after(replies) as port:
        started = time.monotonic()
        with pytest.raises(MailError, match="Time"):
            await mailer(port).send(MAIL)

    assert time.monotonic() - started < 5


@asynccontextmanager
async def server_that_falls_silent_after(count: int) -> AsyncIterator[int]:
    """Greet, answer EHLO, MAIL, RCPT and DATA, but only so many of them."""
    replies = ("220 hello", "250 hello", "250 OK", "250 OK", "354 go on")

    hung_up = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, reply in enumerate(replies[:count]):
            if number:
                await reader.readline()
            writer.write(f"{reply}\r\n".encode())
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    async with asyncio.timeout(5):
        await hung_up.wait()
    server.close()
    await server.wait_closed()


async def test_a_server_with_a_login_is_given_it_encrypted(
    clerk: Clerk, server_tls: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    options = {"ssl_context": server_tls, "authenticator": clerk.authenticate}
    with serving(clerk, **_plain_port(options)) as port:
        await mailer(port, encrypted=True, user="tenure", password="pass word", trust=trust).send(MAIL)

    assert (clerk.logins, clerk.encrypted) == (["tenure"], [True])


async def test_a_wrong_login_is_a_failure_that_is_tried_again(
    clerk: Clerk, server_tls: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    options = {"ssl_context": server_tls, "authenticator": clerk.authenticate}
    with serving(clerk, **_plain_port(options)) as port, pytest.raises(MailError, match="535") as caught:
        await mailer(port, encrypted=True, user="tenure", password="wrong", trust=trust).send(MAIL)

    assert not isinstance(caught.value, MailRefusedError)


async def test_a_server_that_cannot_show_who_it_is_gets_nothing_over_smtps(
    clerk: Clerk, server_tls: ssl.SSLContext
) -> None:
    with serving(clerk, **_plain_port({"ssl_context": server_tls})) as port, pytest.raises(MailError):
        await mailer(port, encrypted=True).send(MAIL)

    assert clerk.envelopes == []


async def test_a_relay_without_login_is_spoken_to_encrypted_where_it_can_be_whoever_it_is(
    clerk: Clerk, server_tls: ssl.SSLContext
) -> None:
    with serving(clerk, tls_context=server_tls) as port:
        await mailer(port).send(MAIL)

    assert clerk.encrypted == [True]


async def test_a_password_is_sent_to_no_other_machine_that_offers_no_encryption(
    clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mails, "_is_this_machine", lambda _host: False)
    options = {"authenticator": clerk.authenticate, "auth_require_tls": False}
    with serving(clerk, **options) as port, pytest.raises(MailError):
        await mailer(port, user="tenure", password="pass word").send(MAIL)

    assert (clerk.logins, clerk.envelopes) == ([], [])


async def test_a_password_is_sent_after_starttls(
    clerk: Clerk, server_tls: ssl.SSLContext, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mails, "_is_this_machine", lambda _host: False)
    with serving(clerk, tls_context=server_tls, authenticator=clerk.authenticate, auth_required=True) as port:
        await mailer(port, user="tenure", password="pass word", trust=trust).send(MAIL)

    assert (clerk.logins, clerk.encrypted) == (["tenure"], [True])


def _plain_port(options: dict[str, Any]) -> dict[str, Any]:
    """Return options for a server whose connections are encrypted from the first byte on, which it takes for none."""
    return options | {"auth_require_tls": False}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", MailServer("mail.example.org", 587)),
        ("smtp://127.0.0.1:1025/", MailServer("127.0.0.1", 1025)),
        ("smtps://mail.example.org", MailServer("mail.example.org", 465, encrypted=True)),
        (
            "smtps://us%40er:p%2Fw@mail.example.org:2465",
            MailServer("mail.example.org", 2465, encrypted=True, user="us@er", password="p/w"),
        ),
    ],
)
def test_a_url_tells_where_mails_are_handed_in(url: str, expected: MailServer) -> None:
    assert MailServer.of(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@mail.example.org",
        "smtp://",
        "smtp://user@mail.example.org",
        "smtp://user:secret@mail.example.org/path",
        "smtp://user:secret@mail.example.org?tls=no",
        "smtp://user:secret@mail.example.org:port",
        "mail.example.org",
    ],
)
def test_a_url_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|Port") as caught:
        MailServer.of(url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "encrypted", "user", "expected"),
    [
        ("mail.example.org", False, None, False),
        ("mail.example.org", False, "user", True),
        ("mail.example.org", True, None, True),
        ("127.0.0.1", False, "user", False),
        ("localhost", False, "user", False),
        ("localhost", True, None, True),
    ],
)
def test_a_server_is_proven_wherever_a_password_leaves_the_machine(
    host: str, user: str | None, *, encrypted: bool, expected: bool
) -> None:
    server = MailServer(host, 587, encrypted=encrypted, user=user, password=user and "secret")

    assert server.must_be_proven == expected
    assert "secret" not in repr(server)


@pytest.mark.parametrize("sender", ["", "tenure", "a@b.c, d@e.f", "Tenure\r\nBcc: x@y.z <a@b.c>", "a@exämple.org"])
def test_a_sender_that_is_none_is_refused_at_the_start(sender: str) -> None:
    with pytest.raises(ValueError, match=r"must be one address|linefeed"):
        MailTerms("smtp://127.0.0.1", sender).mailer(clock=ManualClock(), ids=TimeOrderedIds())


def test_mails_go_to_the_log_where_there_is_no_server() -> None:
    clock, ids = ManualClock(), TimeOrderedIds()

    assert isinstance(MailTerms().mailer(clock=clock, ids=ids), LogMailer)
    assert isinstance(MailTerms("smtp://127.0.0.1", "tenure@localhost").mailer(clock=clock, ids=ids), SmtpMailer)
    with pytest.raises(ValueError, match="whom"):
        MailTerms("smtp://127.0.0.1").mailer(clock=clock, ids=ids)
