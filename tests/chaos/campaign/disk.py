"""A small disk of its own for Postgres, which can be filled up: a file system in memory, where that is possible."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

SIZE_MEGABYTES = 8000
"""Room for hundreds of databases: each tenant of the dearest tier has one, of 8 MB."""
WAL_MEGABYTES = 192
"""What Postgres keeps of its log, so that the disk can be small."""


class SmallDisk:
    """A mounted file system in memory.

    Attributes:
        trouble: why there is none; empty where there is.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.trouble = ""
        self._ballast = place / "ballast"

    def mount(self) -> None:
        """Put it in place, if the machine lets us."""
        if os.geteuid() != 0:
            self.trouble = "only root may mount a file system"
            return
        self.place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MEGABYTES}m,mode=0700", "tmpfs", str(self.place)]
        outcome = subprocess.run(command, check=False, capture_output=True, text=True)
        self.trouble = outcome.stderr.strip()

    def unmount(self) -> None:
        """Take it away with all that is on it."""
        if not self.trouble:
            subprocess.run(["umount", "--lazy", str(self.place)], check=True)

    def fill(self) -> None:
        """Leave no room on it; again, where some has become free."""
        with self._ballast.open("ab") as file, suppress(OSError):  # somebody may take the last of it before us
            file.seek(0, os.SEEK_END)
            if free := shutil.disk_usage(self.place).free:
                os.posix_fallocate(file.fileno(), file.tell(), free)

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)
