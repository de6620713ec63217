"""Where the programs of an installation are run: the words that come before a program's own."""

from collections.abc import Sequence
from dataclasses import dataclass

Words = Sequence[str]

_EXECUTE = ("docker", "compose", "exec", "--no-TTY")
_RUN = ("docker", "compose", "run", "--rm", "--no-TTY", "--no-deps")


@dataclass(frozen=True)
class Places:
    """Prefixes of commands.

    Attributes:
        postgres: beside the running server, as its superuser: ``psql`` and ``pg_basebackup`` need no more words.
        rabbitmq: beside the running node, as who may control it.
        operator: before one of the operator's modules, such as ``deploy.parking``.
        vacant: where the server's data will be, in ``PGDATA``, as their owner, while no server runs.
    """

    postgres: Words
    rabbitmq: Words
    operator: Words
    vacant: Words


COMPOSE = Places(
    postgres=(*_EXECUTE, "--user", "postgres", "postgres"),
    rabbitmq=(*_EXECUTE, "rabbitmq"),
    operator=(*_RUN, "operator"),
    vacant=(*_RUN, "--user", "postgres", "--entrypoint", "env", "postgres"),
)
"""The Compose stack of this folder; ``COMPOSE_PROJECT_NAME`` names another one."""


def beside(service: str) -> Words:
    """Return what runs a program beside a running service of the Compose stack."""
    return (*_EXECUTE, service)


def instead_of(service: str) -> Words:
    """Return what runs a program with the volumes of a service of the Compose stack, whether that runs or not."""
    return (*_RUN, "--entrypoint", "env", service)
