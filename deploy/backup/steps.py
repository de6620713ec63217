"""What is done whatever runs the servers: databases are kept as of one moment, and restored, and what is parked."""

import time
from datetime import UTC, datetime
from pathlib import Path

from deploy.backup.cluster import open_cluster, recover
from deploy.backup.places import Places
from deploy.backup.programs import Say, said
from deploy.backup.quiet import PATIENCE_SECONDS, quiet_moment
from deploy.backup.record import Record

PARKED = "parked.jsonl"

_TOOL = "deploy.backup.parked"


def save(folder: Path, places: Places, say: Say, *, patience: float = PATIENCE_SECONDS) -> Record:
    """Keep all databases as they are at one quiet moment, and what is parked then.

    Args:
        folder: exists, for its owner alone.
        patience: as of `quiet_moment`.

    Raises:
        NeverQuietError: there was no such moment; what is in the folder is of no use.
        ProgramFailedError: a server did not do its part.
    """
    parked = ""
    with open_cluster(places.postgres) as cluster:
        say("copying the databases")
        cluster.copy(folder, say)
        say("waiting for a quiet moment")
        with quiet_moment(places.rabbitmq, say, patience=patience) as quiet:
            if quiet.parked:
                parked = said(*places.operator, _TOOL, "read")
            moment = datetime.now(UTC)
            point = f"tenure-{moment:%Y%m%dT%H%M%S.%fZ}"
            last = cluster.mark(point)
        held = time.monotonic() - quiet.since
        cluster.copy_log(folder, last, say)
    (folder / PARKED).write_text(parked, encoding="utf-8")
    return Record(point, moment, held)


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
