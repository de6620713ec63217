"""The configuration of the stack's gateway, as nginx reads it."""

import shutil
import tempfile
from pathlib import Path

from deploy.checks.check import ROOT, ask, program

_FOLDER = ROOT / "deploy" / "compose" / "gateway"


def check_gateway(folder: Path = _FOLDER) -> None:
    """Let nginx test its configuration, with what it writes in a folder of its own.

    Raises:
        FoundError: it did not understand it.
        MissingToolError: nginx is not installed and cannot be.
    """
    nginx = program("nginx", package="nginx-light")
    with tempfile.TemporaryDirectory(prefix="tenure-gateway-") as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / "gateway"))
        configuration = copy / "nginx.conf"
        text = configuration.read_text(encoding="utf-8").replace(" /tmp/", f" {scratch}/")
        configuration.write_text(text, encoding="utf-8")
        ask(nginx, "-t", "-q", "-p", scratch, "-c", configuration)
