"""What customers were promised and what they were refused, written down before anything is checked."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson


@dataclass
class Promise:
    """A 202.

    Attributes:
        key: the idempotency key under which it was given.
        lifecycle: what it does; a second onboarding is a ``join``.
        doomed: whether it must come to nothing.
        cancelled: whether an operator was told to stop it.
        status: how it ended, as the customer was told; empty before.
    """

    key: str
    lifecycle: str
    workflow_id: str
    tenant_id: str
    doomed: bool = False
    cancelled: bool = False
    status: str = ""


@dataclass(frozen=True)
class Refusal:
    """An answer that is neither a 202 nor a reason to ask again."""

    key: str
    lifecycle: str
    status: int
    code: str


@dataclass
class Journal:
    """Everything that customers were told, also kept in a file while the campaign runs.

    Attributes:
        setbacks: what came instead of an answer, and how often.
        oddities: answers that nobody should ever get.
        unanswered: the keys of requests that never had an answer: nothing or one workflow may have come of each.
    """

    path: Path
    promises: list[Promise] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    setbacks: Counter[str] = field(default_factory=Counter)
    oddities: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._file = self.path.open("ab", buffering=0)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._file.close()

    def promise(self, promise: Promise) -> Promise:
        """Keep a promise."""
        self.promises.append(promise)
        self._write("promise", promise)
        return promise

    def refuse(self, refusal: Refusal) -> Refusal:
        """Keep a refusal."""
        self.refusals.append(refusal)
        self._write("refusal", refusal)
        return refusal

    def ended(self, promise: Promise, status: str) -> None:
        """Keep how a promised workflow ended."""
        promise.status = status
        self._write("ended", promise)

    def _write(self, what: str, entry: Promise | Refusal) -> None:
        self._file.write(orjson.dumps({"what": what, **asdict(entry)}) + b"\n")
