"""What is left behind where a connection to the broker breaks while it is made."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def leftovers_ignored() -> Iterator[None]:
    """Bear what aio-pika leaves behind: a coroutine that closes a connection, and that nobody awaits."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="coroutine 'Connection.close' was never awaited")
        yield
        gc.collect()  # here, or whichever test comes later would be told of it
