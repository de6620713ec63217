"""One session of `psql` that is held open: what lives as long as a session, lives as long as the block."""

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from deploy.backup.places import Words
from deploy.backup.programs import ProgramFailedError, last_words

_PSQL = ("psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--dbname=postgres")
_END = "-- end of answer --"
_SECONDS = 60.0


class Session:
    """Asks one `psql`, one query after the other."""

    def __init__(self, process: subprocess.Popen[str], complaints: IO[bytes]) -> None:
        self._process = process
        self._complaints = complaints

    def ask(self, query: str) -> str:
        """Return the answer to a query, its rows in lines.

        Raises:
            ProgramFailedError: it failed, or took more than a minute; the session is over.
        """
        limit = threading.Timer(_SECONDS, self._process.kill)
        limit.start()
        try:
            lines = self._answer(query)
        except BrokenPipeError:
            lines = []
        finally:
            limit.cancel()
        if not lines or lines.pop().strip() != _END:
            raise ProgramFailedError(f"psql gave no answer to {query}\n{last_words(self._complaints)}")
        return "".join(lines).strip()

    def _answer(self, query: str) -> list[str]:
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        asking.write(f"{query};\n\\echo {_END}\n")
        asking.flush()
        lines = [answering.readline()]
        while lines[-1] and lines[-1].strip() != _END:
            lines.append(answering.readline())
        return lines


@contextmanager
def opened_session(place: Words) -> Iterator[Session]:
    """Open a session until the end of the block.

    Args:
        place: as in `deploy.backup.places.Places.postgres`.
    """
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            (*place, *_PSQL), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process,
    ):
        try:
            yield Session(process, complaints)
        finally:
            process.kill()
