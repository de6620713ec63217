"""Mail as a port: one adapter hands it to a mail server, the other shows it in the log, for development."""

import ssl
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog
from pydantic import TypeAdapter, ValidationError

from shared.clock import Clock
from shared.ids import Ids
from shared.text import EmailAddress

log = structlog.get_logger(__name__)

STEP_SECONDS = 10.0
"""How long a mail server may take for one step: to be reached, and to answer each command."""

_PORTS = {"smtp": 587, "smtps": 465}
_PERMANENT = range(500, 600)
_LONGEST_LINE = 200
_ADDRESS: TypeAdapter[str] = TypeAdapter(EmailAddress)


class MailError(Exception):
    """A mail was not taken, or nobody knows whether it was; later it may be. Tells neither address nor content."""


class MailRefusedError(MailError):
    """A mail will never be taken, however often it is tried."""


@dataclass(frozen=True, slots=True)
class Mail:
    """What is sent to one person.

    Attributes:
        recipient: the bare address.
        subject: one line; see `one_line`.
        text: plain text, the link included.
        link: what the mail is about. Whoever has it gets in.
    """

    recipient: str
    subject: str
    text: str = field(repr=False)
    link: str = field(repr=False)


class Mailer(Protocol):
    """Sends mails."""

    async def send(self, mail: Mail) -> None:
        """Hand a mail over to who delivers it.

        Raises:
            MailError: it was not taken, or will never be (`MailRefusedError`).
        """
        ...


class LogMailer:
    """Shows mails in the log, where a developer can follow their links; never for an installation that others use."""

    async def send(self, mail: Mail) -> None:
        """Log where the mail would go and its link, and nothing else of it."""
        log.warning("no mail server: shown, not sent", action="mail_logged", recipient=mail.recipient, link=mail.link)


@dataclass(frozen=True)
class MailServer:
    """Where mails are handed in.

    Attributes:
        encrypted: from the first byte on; otherwise the connection is upgraded (STARTTLS).
        user: None for a server that asks for no login.
        trust: what the server's certificate is checked against; what the machine trusts where None.
    """

    host: str
    port: int
    encrypted: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    trust: ssl.SSLContext | None = None

    @classmethod
    def of(cls, url: str) -> "MailServer":
        """Read ``smtp://user:password@host:587`` or ``smtps://…``; login and port may be left out.

        Raises:
            ValueError: it is no such URL. The message does not repeat it, since it may hold a password.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("must be like smtp://user:password@host:587 or smtps://user:password@host:465")
        if (parts.username is None) != (parts.password is None):
            raise ValueError("must have both a user and a password, or neither")
        return cls(
            host=parts.hostname,
            port=parts.port or _PORTS[parts.scheme],
            encrypted=parts.scheme == "smtps",
            user=_decoded(parts.username),
            password=_decoded(parts.password),
        )

    @property
    def must_be_proven(self) -> bool:
        """Whether nothing is said before the server has shown a certificate that is trusted.

        It is wherever a password is sent. A relay without a login is taken as relays take each other: encrypted if it
        can be, whoever it is (RFC 7435); ``smtps`` is the way to be strict.
        """
        return self.encrypted or (self.user is not None and not _is_this_machine(self.host))


class SmtpMailer:
    """Hands mails to a mail server, each on a connection of its own.

    Args:
        sender: whom mails come from, as in ``Tenure <no-reply@example.com>``.

    Raises:
        ValueError: the sender is no address.
    """

    def __init__(self, server: MailServer, *, sender: str, clock: Clock, ids: Ids) -> None:
        self._server = server
        self._sender = sender_of(sender)
        self._clock = clock
        self._ids = ids

    async def send(self, mail: Mail) -> None:
        """Hand a mail over; each step takes at most `STEP_SECONDS`. See `Mailer`."""
        message = self._message(mail)
        try:
            async with self._client() as client:
                await client.sendmail(self._sender.addr_spec, [mail.recipient], message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refusal_of(error.recipients) from None
        except aiosmtplib.SMTPResponseException as error:
            # Never the server's own words: they may quote the mail.
            raise MailError(f"{type(error).__name__} {error.code}") from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailError(type(error).__name__) from None

    def _client(self) -> aiosmtplib.SMTP:
        server = self._server
        return aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.encrypted,
            start_tls=False if server.encrypted else server.must_be_proven or None,
            validate_certs=server.must_be_proven,
            tls_context=server.trust if server.must_be_proven else None,
            local_hostname=self._sender.domain,  # the machine's own name would have to be looked up first
            timeout=STEP_SECONDS,
        )

    def _message(self, mail: Mail) -> bytes:
        message = EmailMessage(SMTP_POLICY)
        message["From"] = self._sender
        message["To"] = Address(addr_spec=_deliverable(mail.recipient))
        message["Subject"] = one_line(mail.subject)
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = f"<{self._ids.new().hex}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # nobody's absence note comes back (RFC 3834)
        message.set_content(mail.text, cte="quoted-printable")
        return message.as_bytes()


@dataclass(frozen=True)
class MailTerms:
    """How mails are sent.

    Attributes:
        server_url: see `MailServer.of`; None shows them in the log.
        sender: whom they come from, as in ``Tenure <no-reply@example.com>``; needed where there is a server.
    """

    server_url: str | None = field(default=None, repr=False)
    sender: str | None = None

    def mailer(self, *, clock: Clock, ids: Ids) -> Mailer:
        """Return what sends them.

        Raises:
            ValueError: the URL or the sender is none, or one is given without the other.
        """
        if self.server_url is None:
            return LogMailer()
        if self.sender is None:
            raise ValueError("a mail server needs to be told whom mails come from")
        return SmtpMailer(MailServer.of(self.server_url), sender=self.sender, clock=clock, ids=ids)


def one_line(text: str) -> str:
    """Return what somebody else has written as one short line without anything invisible, fit for a header."""
    visible = "".join(" " if character.isspace() else character for character in text if _is_seen(character))
    return " ".join(visible.split())[:_LONGEST_LINE]


def sender_of(text: str) -> Address:
    """Read whom mails come from.

    Raises:
        ValueError: it is not one address.
    """
    message = EmailMessage(SMTP_POLICY)
    message["From"] = text
    addresses = message["From"].addresses
    if len(addresses) != 1 or not addresses[0].domain or not addresses[0].addr_spec.isascii():
        raise ValueError("must be one address like no-reply@example.com or Tenure <no-reply@example.com>")
    sender: Address = addresses[0]
    return sender


def _is_seen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] != "C"


def _deliverable(address: str) -> str:
    """Return an address that any mail server takes; one with letters beyond ASCII needs what few servers can do."""
    try:
        return _ADDRESS.validate_python(address)
    except ValidationError:
        raise MailRefusedError("the address is none, or not written in ASCII (a domain as xn--...)") from None


def _refusal_of(recipients: Sequence[aiosmtplib.SMTPRecipientRefused]) -> MailError:
    code = recipients[0].code
    kind = MailRefusedError if code in _PERMANENT else MailError
    return kind(f"SMTPRecipientRefused {code}")


def _decoded(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
