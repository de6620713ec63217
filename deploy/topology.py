"""The manifest as RabbitMQ understands it: a definitions file with logins that may do what they must and nothing else.

RabbitMQ loads such a file when it boots (``load_definitions``) or takes it while it runs (``rabbitmqctl
import_definitions``); both are idempotent. Where only an AMQP login is given, `declare` makes the same over AMQP.
"""

import base64
import hashlib
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

import aio_pika

from shared.messaging.topology import (
    STATUS_EXCHANGE,
    Manifest,
    bindings,
    exchanges,
    queues,
    read_by,
    written_by,
)

DEPLOY = "deploy"
"""The login that declares everything and reads or writes no message of a service."""

WATCHER = "watcher"
"""The login for subscribers outside: it may make queues ``sub.*``, bind them to the status exchange, and read them."""

_NOTHING = "^$"
_OWN_QUEUES = r"^sub\."
_WATCHED = rf"^(sub\..*|{re.escape(STATUS_EXCHANGE)})$"


def definitions(
    manifest: Manifest,
    passwords: Mapping[str, str],
    *,
    salt: bytes | None = None,
    administrators: Collection[str] = (),
) -> dict[str, Any]:
    """Return the whole topology in the form of a RabbitMQ definitions file.

    Args:
        passwords: of each service, of `DEPLOY` and of `WATCHER`; only salted hashes of them are written.
        salt: four bytes, random where None.
        administrators: who may import such a file over the management interface while the broker runs.
    """
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            _user(name, password, salt or os.urandom(4), tags="administrator" if name in administrators else "")
            for name, password in passwords.items()
        ],
        "permissions": [_service_permissions(service) for service in manifest.services]
        + [
            _permissions(DEPLOY, configure=".*", write=_NOTHING, read=_NOTHING),
            _permissions(WATCHER, configure=_OWN_QUEUES, write=_OWN_QUEUES, read=_WATCHED),
        ],
        "exchanges": exchanges(manifest),
        "queues": queues(manifest),
        "bindings": bindings(manifest),
    }


async def declare(url: str, manifest: Manifest) -> None:
    """Make exchanges, queues and bindings over AMQP, on a broker whose logins are somebody else's matter.

    Args:
        url: a login that may configure everything.

    Raises:
        aio_pika.exceptions.AMQPError: a queue exists with other arguments, or the login may not.
    """
    async with await aio_pika.connect(url, timeout=10.0) as connection, connection.channel() as channel:
        for each in exchanges(manifest):
            await channel.declare_exchange(each["name"], each["type"], durable=True)
        for each in queues(manifest):
            await channel.declare_queue(each["name"], durable=True, arguments=each["arguments"])
        for each in bindings(manifest):
            queue = await channel.get_queue(each["destination"], ensure=False)
            await queue.bind(each["source"], each["routing_key"])


def _service_permissions(service: str) -> dict[str, str]:
    write, read = _any_of(written_by(service)), _any_of(read_by(service))
    return _permissions(service, configure=_NOTHING, write=write, read=read)


def _any_of(names: list[str]) -> str:
    return f"^({'|'.join(re.escape(name) for name in names)})$"


def _permissions(user: str, *, configure: str, write: str, read: str) -> dict[str, str]:
    return {"user": user, "vhost": "/", "configure": configure, "write": write, "read": read}


def _user(name: str, password: str, salt: bytes, *, tags: str) -> dict[str, Any]:
    """Hash a password the way RabbitMQ does: base64 of the salt and of SHA-256 over salt and password."""
    hashed = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return {
        "name": name,
        "password_hash": hashed,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": tags,
        "limits": {},
    }
