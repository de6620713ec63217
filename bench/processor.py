"""How much of the machine a process has used."""

import os
from pathlib import Path


def processor_seconds(pid: int) -> float:
    """Return how long a process has been at work on all cores together, by proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
