"""Rows become a Parquet file: JSON lines first, which are then read a little at a time, so that memory is bounded."""

import time
from collections.abc import Sequence
from tempfile import SpooledTemporaryFile
from typing import IO

from arro3.io import read_json, write_parquet

from services.metrics.lake.streams import Stream

MOST_IN_MEMORY = 4 * 1024 * 1024
"""How many bytes of a file are held in memory; beyond them it is on the disk until it is where it belongs."""

_GROUP_BYTES = 4 * 1024 * 1024
_MOST_IN_GROUP = 10_000
_BATCH = 256


class Spool:
    """Rows of one file, in their order.

    `add` and `write` may wait for the disk, so threads do them, one at a time.
    """

    def __init__(self, stream: Stream) -> None:
        self.row_count = 0
        self._stream = stream
        self._lines = SpooledTemporaryFile(MOST_IN_MEMORY)  # noqa: SIM115 - `close` closes it

    def add(self, lines: Sequence[str]) -> None:
        """Take some more rows, each as a line of JSON."""
        self._lines.writelines(f"{line}\n".encode() for line in lines)
        self.row_count += len(lines)

    def write(self, file: IO[bytes]) -> int:
        """Write all of them as Parquet, and return how many bytes that are."""
        size = self._lines.tell()
        in_group = max(1, min(_MOST_IN_GROUP, _GROUP_BYTES * self.row_count // max(size, 1)))
        self._lines.seek(0)
        write_parquet(
            read_json(_Reader(self._lines), self._stream.schema, batch_size=min(_BATCH, in_group)),  # type: ignore[arg-type] # it asks for no more than that
            file,
            compression="zstd(3)",
            key_value_metadata=dict(self._stream.metadata),
            max_row_group_size=in_group,
            skip_arrow_metadata=True,
        )
        return file.tell()

    def close(self) -> None:
        """Forget the rows."""
        self._lines.close()


class _Reader:
    """Reads, and lets other threads have their turn each time: the library keeps the interpreter all the while."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        time.sleep(0)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
