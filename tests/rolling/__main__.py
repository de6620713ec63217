"""``make rolling``: new code over old, one service at a time, amid a load, and what clients have seen of it.

python -m tests.rolling [--from REVISION] [--to REVISION] [--seed N] [--rate N] [--pause N] [--keep]
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import uvloop

from shared.logs import configure_logs
from tests.chaos.campaign.prerequisites import trouble_here
from tests.rolling.release import NoSuchReleaseError, exported, working_tree
from tests.rolling.run import Options, run

_RATE = 10.0
_PAUSE_SECONDS = 5.0
_INTERRUPTED = 130
_CANNOT = 2


def main() -> int:
    """Read the command line, deploy, and return 1 where anything was not as it must be."""
    arguments = _arguments()
    if trouble := trouble_here():
        print(trouble)
        return _CANNOT
    # aio-pika leaves it behind where a connection breaks while it is made; whoever listens for the checker meets that.
    warnings.filterwarnings("ignore", message="coroutine 'Connection.close' was never awaited")
    configure_logs(form="console", level="error")
    folder = Path(tempfile.mkdtemp(prefix="tenure-rolling-"))
    folder.chmod(0o755)  # Postgres runs as a user of its own where we are root
    try:
        is_sound = _deploy(arguments, folder)
    except NoSuchReleaseError as error:
        print(error)
        shutil.rmtree(folder)
        return _CANNOT
    except KeyboardInterrupt:
        print(f"Interrupted, all servers ended; logs and the customers' journal are in {folder}")
        return _INTERRUPTED
    if is_sound and not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"Logs and the customers' journal are in {folder}")
    print("Nothing failed that a client saw." if is_sound else "FAILED")
    return 0 if is_sound else 1


def _deploy(arguments: argparse.Namespace, folder: Path) -> bool:
    old = exported(arguments.old, folder / "old")
    new = exported(arguments.new, folder / "new") if arguments.new else working_tree(folder / "new")
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {line}" if line else "")

    say(f"From {old.name} to {new.name}; seed {arguments.seed}")
    options = Options(arguments.seed, arguments.rate, arguments.pause)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(options, old, new, folder, say))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make rolling", description=__doc__)
    parser.add_argument("--from", dest="old", default="HEAD~1", metavar="REVISION", help="whose code runs at first")
    parser.add_argument(
        "--to", dest="new", metavar="REVISION", help="whose code is deployed; the working tree's if none"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="repeats what customers want")
    parser.add_argument("--rate", type=float, default=_RATE, help="orders a second")
    parser.add_argument("--pause", type=float, default=_PAUSE_SECONDS, help="seconds of load at each stage")
    parser.add_argument("--keep", action="store_true", help="keep logs and journal also when nothing is wrong")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
