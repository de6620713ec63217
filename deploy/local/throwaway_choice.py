"""Which servers tests run against: ones that were given, containers, or embedded ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from deploy.local import container, throwaway_containers
from deploy.local.throwaway_containers import MissingImageError

FORCE = "TENURE_TEST_SERVERS"
"""The variable that leaves no choice: the name of a `Way`."""


class Way(StrEnum):
    """How tests come by a server."""

    GIVEN = "given"
    CONTAINERS = "containers"
    EMBEDDED = "embedded"


class MissingServerError(Exception):
    """The servers that were asked for cannot be had; the message says why."""


@dataclass(frozen=True)
class Kind:
    """A kind of server that tests need.

    Attributes:
        name: for people.
        variable: holds the URL of a given one.
        image: what is run in a container.
    """

    name: str
    variable: str
    image: str


POSTGRES = Kind("Postgres", "TENURE_TEST_POSTGRES_URL", "postgres:17")
RABBITMQ = Kind("RabbitMQ", "TENURE_AMQP_URL", container.IMAGE)


@dataclass(frozen=True)
class Choice:
    """How a server is come by.

    Attributes:
        way: that is gone.
        why: for people.
        forced: whether another way would be wrong, rather than second best.
    """

    way: Way
    why: str
    forced: bool = False


@dataclass(frozen=True)
class Engine:
    """What a choice needs to know of Docker.

    Attributes:
        answers: whether there is one.
        require: lets it get an image, or raises `MissingImageError`.
    """

    answers: Callable[[], bool] = container.engine_answers
    require: Callable[[str], None] = throwaway_containers.require_image


def choose(kind: Kind, environment: Mapping[str, str], engine: Engine) -> Choice:
    """Return the way that the environment forces, else the first that is there: given, containers, embedded.

    It may take as long as Docker takes to get an image.

    Raises:
        MissingServerError: the forced way cannot be gone, or is none.
    """
    forced = _forced(environment)
    if forced in (None, Way.GIVEN) and environment.get(kind.variable):
        return Choice(Way.GIVEN, kind.variable, forced=True)
    if forced is Way.GIVEN:
        raise MissingServerError(f"{FORCE} is {forced}, and {kind.variable} is not set.")
    if forced is Way.EMBEDDED:
        return Choice(Way.EMBEDDED, f"{FORCE} says so", forced=True)
    missing = _missing(kind, engine)
    if not missing:
        return Choice(Way.CONTAINERS, kind.image, forced=forced is not None)
    if forced:
        raise MissingServerError(f"{FORCE} is {forced}, and {missing}")
    return Choice(Way.EMBEDDED, missing)


def _forced(environment: Mapping[str, str]) -> Way | None:
    asked = environment.get(FORCE)
    if not asked:
        return None
    if asked not in list(Way):
        raise MissingServerError(f"{FORCE} is {asked!r}; it is one of {', '.join(Way)}.")
    return Way(asked)


def _missing(kind: Kind, engine: Engine) -> str:
    """Say why there is no container, or nothing."""
    if not engine.answers():
        return "no Docker engine answers"
    try:
        engine.require(kind.image)
    except MissingImageError as error:
        return str(error)
    return ""
