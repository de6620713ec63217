"""All databases of a Postgres server: a base backup while it works, and its write-ahead log up to a point with a name.

A base backup is of the whole server, so that point is one for every database. postgresql.org/docs/current/backup.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.backup.places import Words
from deploy.backup.programs import ProgramFailedError, Say, read, said, written
from deploy.backup.session import Session, opened_session

BASE = "base.tar.gz"
LOG = "wal.tar.gz"

_RECOVERY_SECONDS = 6 * 3600.0

_UNPACK = """
    umask 077
    mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
    [ -z "$(ls -A "$PGDATA")" ] || { echo "There are data in $PGDATA already." >&2; exit 1; }
    exec tar --extract --directory "$PGDATA"
"""
_UNPACK_LOG = 'exec tar --extract --directory "$PGDATA/pg_wal"'

# What is missing in pg_wal is nowhere else: no command gets it from there (`false`).
_RECOVER = """
    set -e
    gone() {{ tail -n 20 "$PGDATA/recovery.log" >&2 || true; rm -rf "${{PGDATA:?}}"/*; exit 1; }}
    touch "$PGDATA/recovery.log"
    pg_verifybackup --no-parse-wal --quiet --ignore=recovery.log "$PGDATA" || gone
    touch "$PGDATA/recovery.signal"
    options="-c listen_addresses='' -c unix_socket_directories=$PGDATA -c hot_standby=off -c restore_command=false"
    options="$options -c recovery_target_name={point} -c recovery_target_action=promote"
    pg_ctl start --silent --wait --timeout={seconds:.0f} --log="$PGDATA/recovery.log" --options="$options" || gone
    until pg_isready --quiet --host="$PGDATA"; do pg_ctl status > /dev/null || gone; sleep 0.2; done
    pg_ctl stop --silent --wait --mode=fast
    rm "$PGDATA/recovery.log"
"""


class Cluster:
    """A running server that is backed up; its log is kept as long as the block lasts, and no longer.

    Args:
        session: of its superuser.
        place: as in `deploy.backup.places.Places.postgres`.
    """

    def __init__(self, session: Session, place: Words) -> None:
        self._session = session
        self._place = place
        # Reserved by the session alone: whatever becomes of us, the server does not keep its log for us for ever.
        self._first = session.ask(
            "SELECT pg_walfile_name(lsn)"
            " FROM pg_create_physical_replication_slot('tenure_backup_' || pg_backend_pid(), true, true)"
        )

    def copy(self, folder: Path, say: Say) -> None:
        """Keep a copy of all files, without their log."""
        words = ("pg_basebackup", "--format=tar", "--pgdata=-", "--wal-method=none", "--checkpoint=fast")
        written(folder / BASE, (*self._place, *words), say)

    def mark(self, point: str) -> str:
        """Name this moment, and return the last file of the log that is needed to come back to it."""
        last = self._session.ask(f"SELECT pg_walfile_name(pg_create_restore_point('{point}'))")
        self._session.ask("SELECT pg_switch_wal()")  # that file is complete from now on
        return last

    def copy_log(self, folder: Path, last: str, say: Say) -> None:
        """Keep the log from before the copy up to a file."""
        names = self._session.ask(
            "SELECT name FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' OR name LIKE '%.history' ORDER BY name"
        ).split()
        names = [name for name in names if self._first <= name <= last or name.endswith(".history")]
        if not {self._first, last} <= set(names):
            raise ProgramFailedError(f"The server has not kept its log from {self._first} to {last}.")
        data = self._session.ask("SHOW data_directory")
        written(folder / LOG, (*self._place, "tar", "--create", "--directory", f"{data}/pg_wal", *names), say)


@contextmanager
def open_cluster(place: Words) -> Iterator[Cluster]:
    """Begin to keep the log of a running server.

    Args:
        place: as in `deploy.backup.places.Places.postgres`.
    """
    with opened_session(place) as session:
        yield Cluster(session, place)


def recover(folder: Path, point: str, vacant: Words, say: Say) -> None:
    """Make the data of a server anew, as they were at a point.

    Args:
        folder: of the backup.
        vacant: as in `deploy.backup.places.Places.vacant`.

    Raises:
        ProgramFailedError: there are data already, files are not what they were, or the log does not lead to the point.
    """
    read(folder / BASE, (*vacant, "sh", "-c", _UNPACK), say)
    read(folder / LOG, (*vacant, "sh", "-c", _UNPACK_LOG), say)
    say("recovering")
    script = _RECOVER.format(point=point, seconds=_RECOVERY_SECONDS)
    said(*vacant, "sh", "-c", script, seconds=_RECOVERY_SECONDS)
