"""What is done whatever runs the servers: databases are kept as of one moment, and restored, and what is parked."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from deploy.backup.cluster import Cluster, open_cluster, recover
from deploy.backup.places import Places, Words
from deploy.backup.programs import Say, said
from deploy.backup.quiet import PATIENCE_SECONDS, at_quiet_moment
from deploy.backup.record import Record

PARKED = "parked.jsonl"

_TOOL = "deploy.backup.parked"


def save(folder: Path, places: Places, say: Say, *, patience: float = PATIENCE_SECONDS) -> Record:
    """Keep all databases as they are at one quiet moment, and what is parked then.

    Args:
        folder: exists, for its owner alone.
        patience: as of `at_quiet_moment`.

    Raises:
        NeverQuietError: there was no such moment; what is in the folder is of no use.
        ProgramFailedError: a server did not do its part.
    """
    with open_cluster(places.postgres) as cluster:
        say("copying the databases")
        cluster.copy(folder, say)
        say("waiting for a quiet moment")
        quiet = at_quiet_moment(places.rabbitmq, partial(_mark, cluster, places.operator), say, patience=patience)
        mark = quiet.result
        cluster.copy_log(folder, mark.last, say)
    (folder / PARKED).write_text(mark.parked, encoding="utf-8")
    return Record(mark.point, mark.moment, quiet.held_seconds)


@dataclass(frozen=True)
class _Mark:
    point: str
    moment: datetime
    last: str
    parked: str


def _mark(cluster: Cluster, operator: Words, parked: int) -> _Mark:
    """Name this moment, and look at what is parked."""
    lines = said(*operator, _TOOL, "read") if parked else ""
    moment = datetime.now(UTC)
    point = f"tenure-{moment:%Y%m%dT%H%M%S.%fZ}"
    return _Mark(point, moment, cluster.mark(point), lines)


def restore(folder: Path, record: Record, places: Places, say: Say) -> None:
    """Make the data of a Postgres server, which must not run, as they were at the moment of a backup.

    Raises:
        ProgramFailedError: there are data already, or these do not lead to that moment.
    """
    say("unpacking the databases")
    recover(folder, record.point, places.vacant, say)


def park_again(folder: Path, places: Places) -> str:
    """Put what was parked into the parking of a broker that runs; return what to say of it.

    Raises:
        ProgramFailedError: something is parked already.
    """
    return said(*places.operator, _TOOL, "put", given=(folder / PARKED).read_text(encoding="utf-8")).strip()
