"""Asking providers that tenants name, without being led to what only this installation can reach (SSRF).

Whoever names a URL decides what is asked, so nothing of it is believed: the host is looked up here, only addresses that
everybody can reach are asked, and the connection goes to the very address that was looked at, whatever the name means a
moment later. Redirects are not followed, since they would name another URL. Answers are small, and come soon or never.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urlsplit
from weakref import WeakValueDictionary

import httpcore2
import orjson
import structlog

from services.identity.providers.port import ProviderUnavailableError
from services.identity.providers.remembered import SingleFlight

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 3.0
"""How long it may take to look a host up and to connect to it."""

SECONDS = 8.0
"""How long the whole exchange may take, from the wait for a turn to the last byte."""

LARGEST = 256 * 1024
"""How many bytes of an answer are read."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Returns the addresses of a host for a port, none where there is no such host.

Raises:
    OSError: nobody knows at this moment.
"""

_Headers = Mapping[str | bytes, str | bytes]

_NO_TLS = "A provider's address must begin with https://."
_LONGEST_URL = 2000
_MOST_CONNECTIONS = 32
_MOST_TO_ONE_HOST = 8  # a provider that hangs keeps none of the others' people waiting
_MOST_ADDRESSES = 3
_IDLE_SECONDS = 5.0
_LOOKUPS: Final = ThreadPoolExecutor(8, thread_name_prefix="lookup")
_NO_SUCH_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

_NOT_FOR_EVERYBODY: Final = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocol assignments; one of them tells a virtual machine its secrets at Oracle
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # what a virtual machine asks at Azure
            "2002::/16",  # 6to4, which carries any IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)
"""What Python takes for global, or took in releases that are in use."""

_IPV6_IN_USE: Final = ip_network("2000::/3")
_NAT64: Final = ip_network("64:ff9b::/96")

_HTTP_ERRORS = (
    httpcore2.ConnectionNotAvailable,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
    OSError,
)


class AddressNotAllowedError(ProviderUnavailableError):
    """A URL is none that a provider may have; what it says is for whoever configured it."""


class ProviderClient:
    """Asks providers over HTTP.

    Args:
        networks: where providers may be besides the public internet, and may do without TLS.
        resolve: looks hosts up; the machine's own way where None.
        trust: what certificates are checked against; what the machine trusts where None.
    """

    def __init__(
        self,
        *,
        networks: Sequence[Network] = (),
        resolve: Resolve | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        look_up, trusted = resolve or _Lookups(), trust or ssl.create_default_context()
        everywhere = _Guard(look_up, lambda address: is_public(address) or _is_in(address, networks))
        inside = _Guard(look_up, lambda address: _is_in(address, networks))
        self._pools = {"https": _pool(everywhere, trusted)} | ({"http": _pool(inside, trusted)} if networks else {})
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    async def get_json(self, url: str, *, authorization: str | None = None) -> tuple[int, Mapping[str, Any]]:
        """Return the status and the JSON object that a URL answers; an empty one for anything else.

        Args:
            authorization: the header of that name.

        Raises:
            AddressNotAllowedError: the URL is none that may be asked.
            ProviderUnavailableError: there is no answer, or none that can be borne.
        """
        return await self._ask("GET", url, _headers(authorization))

    async def post_form(
        self, url: str, form: Mapping[str, str], *, authorization: str | None = None
    ) -> tuple[int, Mapping[str, Any]]:
        """Post fields as a browser's form does, and return what `get_json` does; raises what that raises."""
        headers: _Headers = {**_headers(authorization), "Content-Type": "application/x-www-form-urlencoded"}
        return await self._ask("POST", url, headers, content=urlencode(form).encode())

    async def get_document(self, url: str) -> Mapping[str, Any]:
        """Return the JSON object that everybody can read at a URL.

        Raises:
            AddressNotAllowedError: the URL is none that may be asked.
            ProviderUnavailableError: there is none.
        """
        status, document = await self.get_json(url)
        if status != 200 or not document:  # noqa: PLR2004 - OK
            host = urlsplit(url).netloc
            log.warning("a provider does not publish", action="provider_unavailable", host=host, status=status)
            raise ProviderUnavailableError(f"{url} does not answer with a JSON document.")
        return document

    async def _ask(
        self, method: str, url: str, headers: _Headers, content: bytes | None = None
    ) -> tuple[int, Mapping[str, Any]]:
        parts = check_url(url)
        pool, host = self._pools.get(parts.scheme), parts.netloc
        if pool is None:
            raise AddressNotAllowedError(_NO_TLS)
        turn = self._turns.setdefault(host, asyncio.Semaphore(_MOST_TO_ONE_HOST))
        timeouts = {"connect": CONNECT_SECONDS, "read": SECONDS, "write": SECONDS, "pool": SECONDS}
        try:
            async with (
                asyncio.timeout(SECONDS),
                turn,
                pool.stream(method, url, headers=headers, content=content, extensions={"timeout": timeouts}) as answer,
            ):
                return answer.status, _json(await _body(answer, host))
        except (TimeoutError, httpcore2.TimeoutException) as error:
            raise _unavailable(host, "does not answer in time", error) from None
        except _HTTP_ERRORS as error:
            raise _unavailable(host, _reason(error), error) from None


def check_url(url: str) -> SplitResult:
    """Return the parts of a URL that may be asked as far as it can be seen without looking its host up.

    Raises:
        AddressNotAllowedError: it may not.
    """
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise AddressNotAllowedError("A provider's address is no URL.") from None
    if not is_whole or len(url) > _LONGEST_URL or any(not "!" <= character <= "~" for character in url) or "\\" in url:
        raise AddressNotAllowedError("A provider's address is no URL.")
    if parts.scheme not in ("https", "http"):
        raise AddressNotAllowedError(_NO_TLS)
    if "@" in parts.netloc or "#" in url:
        raise AddressNotAllowedError("A provider's address has neither a user nor a fragment.")
    return parts


def is_public(address: Address) -> bool:
    """Return whether an address is one that everybody on the internet can reach."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:  # a gateway makes the last four bytes an address of IPv4 again
            return is_public(IPv4Address(address.packed[-4:]))
        if address not in _IPV6_IN_USE:
            return False
    return address.is_global and not address.is_multicast and not _is_in(address, _NOT_FOR_EVERYBODY)


class _Guard(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that have been looked at, and to no other."""

    def __init__(self, resolve: Resolve, is_allowed: Callable[[Address], bool]) -> None:
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to one of the host's addresses, of those that are allowed.

        Raises:
            AddressNotAllowedError: none is.
        """
        async with asyncio.timeout(timeout):
            addresses = await self._addresses(host, port)
            each = None if timeout is None else timeout / len(addresses)
            while True:
                address = str(addresses.pop(0))
                try:
                    return await self._network.connect_tcp(address, port, each, local_address, socket_options)
                except (httpcore2.NetworkError, httpcore2.TimeoutException):
                    if not addresses:
                        raise

    async def _addresses(self, host: str, port: int) -> list[Address]:
        found = dict.fromkeys(map(_plain, await self._resolve(host, port)))
        allowed = [address for address in found if self._is_allowed(address)]
        if not allowed:
            # One text for a host that there is not and one that may not be asked: nobody learns which names there are.
            log.warning(
                "a provider may not be asked", action="provider_refused", host=host, found=list(map(str, found))
            )
            raise AddressNotAllowedError(f"{host} has no address where a provider may be.")
        return allowed[:_MOST_ADDRESSES]


class _Lookups:
    """Looks hosts up as the machine does, each once at a time: a host that hangs takes one thread, not all of them."""

    def __init__(self) -> None:
        self._flights: SingleFlight[tuple[str, int], Sequence[Address]] = SingleFlight(self._look_up)

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        return await self._flights((host, port))

    @staticmethod
    async def _look_up(place: tuple[str, int]) -> Sequence[Address]:
        look_up = partial(socket.getaddrinfo, *place, type=socket.SOCK_STREAM)
        try:
            entries = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look_up)
        except UnicodeError:  # such as a label that is too long
            return []
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_HOST:
                return []
            raise
        return [ip_address(entry[4][0]) for entry in entries]


def _pool(guard: _Guard, trust: ssl.SSLContext) -> httpcore2.AsyncConnectionPool:
    return httpcore2.AsyncConnectionPool(
        ssl_context=trust,
        max_connections=_MOST_CONNECTIONS,
        max_keepalive_connections=_MOST_TO_ONE_HOST,
        keepalive_expiry=_IDLE_SECONDS,
        network_backend=guard,
    )


def _headers(authorization: str | None) -> _Headers:
    headers: _Headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tenure"}
    return headers if authorization is None else {**headers, "Authorization": authorization}


async def _body(answer: httpcore2.Response, host: str) -> bytes:
    body = bytearray()
    assert isinstance(answer.stream, AsyncIterable)
    async for part in answer.stream:
        body += part
        if len(body) > LARGEST:
            raise ProviderUnavailableError(f"{host} answers with more than {LARGEST} bytes.")
    return bytes(body)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _plain(address: Address) -> Address:
    """Return the address of IPv4 that one of IPv6 stands for, where it does."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _unavailable(host: str, reason: str, error: Exception) -> ProviderUnavailableError:
    log.warning("a provider cannot be asked", action="provider_unavailable", host=host, error=repr(error))
    return ProviderUnavailableError(f"{host} {reason}.")


def _reason(error: Exception) -> str:
    if isinstance(error, httpcore2.ProtocolError):
        return "does not answer as HTTP has it"
    if error.args and isinstance(error.args[0], ssl.SSLCertVerificationError):
        return "shows no certificate for its name that is trusted here"
    return "cannot be reached"
