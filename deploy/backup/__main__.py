"""`make backup` and `make restore`: keep the Compose stack as it is at one moment, and make it what it was."""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from deploy.backup import compose
from deploy.backup.compose import NotNowError
from deploy.backup.programs import ProgramFailedError, Say
from deploy.backup.quiet import NeverQuietError
from deploy.backup.record import Record, UnusableBackupError

_FAILURES = (NotNowError, NeverQuietError, ProgramFailedError, UnusableBackupError, OSError)


def main() -> int:
    """Do what the command line asks and return the exit code: 1 where it could not be done."""
    options = _arguments()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", flush=True)

    try:
        if options.command == "save":
            _tell_saved(options.folder, compose.save(options.folder, say), say)
        else:
            record = compose.restore(options.folder, say)
            say(f"The stack runs, as it was at {record.moment:%Y-%m-%d %H:%M:%S} UTC.")
            say("Look whether all agrees: docker compose run --rm operator deploy.audit")
    except _FAILURES as error:
        say(f"Not done: {error}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted; nothing was kept." if options.command == "save" else "Interrupted.")
        return 130
    return 0


def _tell_saved(folder: Path, record: Record, say: Say) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(
        f"Publishers were held for {record.held_seconds:.1f} s; all as it was at {record.moment:%Y-%m-%d %H:%M:%S} UTC."
    )
    say(f"{size / 1e6:,.1f} MB in {folder}: with every secret of the installation. Take it elsewhere, and encrypt it.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    save = commands.add_parser("save", help="back the running stack up: make backup TO=folder")
    save.add_argument("folder", type=Path, nargs="?", default=Path("backups") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    restore = commands.add_parser("restore", help="make an empty stack of a backup: make restore FROM=folder")
    restore.add_argument("folder", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
