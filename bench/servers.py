"""The servers of a benchmark, gone with it."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local.stack import Stack, running_stack


@asynccontextmanager
async def servers() -> AsyncIterator[Stack]:
    """Start Postgres and RabbitMQ on empty folders, and remove everything at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tenure-bench-"))
    try:
        async with running_stack(folder, say=lambda line: print(f"  {line}")) as stack:
            yield stack
    finally:
        shutil.rmtree(folder, ignore_errors=True)
