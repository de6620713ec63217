"""What is sent and what came of it, as parent and child tell each other: one line of JSON each."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)


class Run(_Line):
    """One document, tried out by one identity.

    Attributes:
        service: whose document it is.
        identity: who asks, for those who read the report.
        origin: where to send to.
        authorization: the header; None for nobody.
        phases: of schemathesis: ``examples``, ``coverage``, ``fuzzing`` and ``stateful``.
        cases: the most for each operation while fuzzing, and the most sequences of the stateful phase.
        seed: of everything that is random.
        words: what exists, by the place where it may be named, such as ``path.tenant_id``, or by an operation and its
            place, such as ``GET /v1/users query.cursor``.
        examples: a body that has an effect, by operation, where nobody would find it by trying.
        spared: what must outlast the run, each with what takes its place in a request that could end it.
    """

    service: str
    identity: str
    document: Mapping[str, Any]
    origin: str
    authorization: str | None
    phases: Sequence[str]
    cases: int
    seed: int
    words: Mapping[str, Sequence[str]] = {}
    spared: Mapping[str, str] = {}
    examples: Mapping[str, Mapping[str, Any]] = {}


class Finding(_Line):
    """Something that is wrong.

    Attributes:
        operation: such as ``GET /v1/users``.
        check: what has found it.
        request: a command that sends it again.
        answer: the beginning of what came back.
    """

    operation: str
    check: str
    identity: str
    message: str
    request: str = ""
    answer: str = ""

    def __str__(self) -> str:
        """Return it over several lines."""
        return f"{self.operation} as {self.identity}: {self.check}: {self.message}\n  {self.request}\n  {self.answer}"


class Outcome(_Line):
    """What came of a run.

    Attributes:
        statuses: how often each came back, by operation.
        findings: the first of each kind.
    """

    service: str
    identity: str
    statuses: Mapping[str, Mapping[int, int]]
    findings: Sequence[Finding]

    @property
    def requests(self) -> int:
        """How many were sent and answered."""
        return sum(count for counts in self.statuses.values() for count in counts.values())


def by_status(outcomes: Iterable[Outcome]) -> Counter[int]:
    """Count answers by status."""
    counter: Counter[int] = Counter()
    for outcome in outcomes:
        for counts in outcome.statuses.values():
            counter.update(counts)
    return counter
