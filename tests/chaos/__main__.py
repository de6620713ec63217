"""``make chaos``: six real services on a real RabbitMQ and Postgres, customers amid faults, and what became of it all.

python -m tests.chaos [--seed N] [--minutes N] [--faults a,b] [--rate N] [--keep]
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
from tests.chaos.campaign.faults.catalogue import CATALOGUE
from tests.chaos.campaign.prerequisites import trouble_here
from tests.chaos.campaign.run import Options, run

_MINUTES = 20.0
_RATE = 10.0
_INTERRUPTED = 130
_CANNOT = 2


def main() -> int:
    """Read the command line, run a campaign, and return 1 where anything was not as it must be."""
    arguments = _arguments()
    if trouble := trouble_here():
        print(trouble)
        return _CANNOT
    options = Options(arguments.seed, arguments.minutes, arguments.faults, arguments.rate)
    # aio-pika leaves it behind where a connection breaks while it is made; whoever listens for the checker meets that.
    warnings.filterwarnings("ignore", message="coroutine 'Connection.close' was never awaited")
    configure_logs(form="console", level="error")
    folder = Path(tempfile.mkdtemp(prefix="tenure-chaos-"))
    folder.chmod(0o755)  # Postgres runs as a user of its own where we are root
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {line}" if line else "")

    say(f"Seed {options.seed}; repeat its faults with --seed {options.seed}")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            is_sound = runner.run(run(options, folder, say))
    except KeyboardInterrupt:
        say(f"Interrupted, all servers ended; logs and the customers' journal are in {folder}")
        return _INTERRUPTED
    if is_sound and not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"Logs and the customers' journal are in {folder}")
    say("All is as it was promised." if is_sound else "FAILED")
    return 0 if is_sound else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="repeats faults and their order")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="how long it may take altogether")
    parser.add_argument("--rate", type=float, default=_RATE, help="orders a second")
    parser.add_argument("--keep", action="store_true", help="keep logs and journal also when nothing is wrong")
    parser.add_argument(
        "--faults", type=_families, default=list(CATALOGUE), help=f"some of {','.join(CATALOGUE)}; all by default"
    )
    return parser.parse_args()


def _families(text: str) -> list[str]:
    families = text.split(",")
    if unknown := set(families) - CATALOGUE.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {', '.join(CATALOGUE)}")
    return families


if __name__ == "__main__":
    sys.exit(main())
