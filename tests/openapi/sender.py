"""A process that sends what documents allow, and what they do not: ``python -m tests.openapi.sender``.

It reads a `Run` a line and answers each with an `Outcome`. It is a process of its own, so that making up requests and
judging answers takes no time from the services, which run in the test's.
"""

import copy
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import schemathesis
from schemathesis import HookContext, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.core import NOT_SET
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.generation.case import Case
from schemathesis.generation.meta import FuzzingPhaseData, StatefulPhaseData
from schemathesis.hooks import GLOBAL_HOOK_DISPATCHER

from tests.openapi import checks
from tests.openapi.runs import Finding, Outcome, Run

LONGEST_WAIT = 0.05
"""Seconds that a request may ask to wait for a workflow; longer waits that are allowed are shortened."""

_FORMS = "/oauth/"
_STREAM_SECONDS = 2.0
_LONGEST_TEXT = 600
_PROBABILITY = 0.85
_COOKIE = "tenure_signin"
_ENDING = frozenset(
    {
        "POST /v1/offboardings",
        "POST /v1/suspensions",
        "POST /v1/api-keys/{key_id}/rotate",
        "PUT /v1/clients/{client_id}",
        "PUT /v1/users/{user_id}/memberships/{tenant_id}",
        "PATCH /v1/tiers/{name}",
        "POST /v1/tiers/{name}/retire",
        "POST /v1/products/{name}/retire",
        "POST /v1/products/{name}/versions/{version}/retire",
    }
)
"""What may end something, besides what deletes."""

_PHASES = ("examples", "coverage", "fuzzing", "stateful")
_LEFT_OUT = (
    # What fits the schema may still be refused: a cursor that no list gave out, a tier that the catalog lacks, a state
    # that forbids it, a version that is not the last. No schema can tell.
    "positive_data_acceptance",
    # `nothing_is_away` takes its place, which lets a 503 pass, but only one that says that there is too much to do.
    "not_a_server_error",
)
_OPERATIONS = (
    # Streams that have not ended go on: a moment is enough to see that they are some, if it has begun by then.
    {
        "include-path-regex": "/events$",
        "request-timeout": _STREAM_SECONDS,
        "request-retries": 2,
        "max-stream-events": 3,
    },
    # Whatever of this is accepted makes a tenant with all its work; some are enough.
    {"include-path": ["/v1/onboardings", "/v1/accounts"], "generation": {"max-examples": 10}},
    # A gateway asks with whatever method its client has used.
    {"include-path": "/v1/authorize", "checks": {"unsupported_method": {"enabled": False}}},
    # A key that was revoked stays in the list, so that everybody can see since when.
    {"include-path": "/v1/api-keys/{key_id}", "checks": {"use_after_free": {"enabled": False}}},
    # `accept` could be an invitation's id too, so GET and DELETE are possible at this path, as `Allow` says.
    {"include-path": "/v1/invitations/accept", "checks": {"allow_header_conformance": {"enabled": False}}},
)


def main() -> None:
    """Answer runs until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
    for line in sys.stdin:
        answers.write(carried_out(Run.model_validate_json(line)).model_dump_json() + "\n")
        answers.flush()


def carried_out(run: Run) -> Outcome:
    """Send everything of a run and judge every answer."""
    schema, manners = schemathesis.openapi.from_dict(_document(run), config=_config(run)), _Manners(run.spared)

    def before_call(_: HookContext, case: Case, __: dict[str, Any]) -> None:  # type: ignore[type-arg]
        manners.apply(case)

    schemathesis.hook(before_call)
    try:
        return _tallied(run, from_schema(schema).execute())
    finally:
        GLOBAL_HOOK_DISPATCHER.unregister(before_call)


@schemathesis.hook
def filter_failure(_: HookContext, failure: Failure, case: Case, __: Response) -> bool:  # type: ignore[type-arg]
    """Leave out what schemathesis takes for wrong and is not."""
    return not isinstance(failure, AcceptedNegativeData) or not (_is_left_out(case) or _has_empty_field(case))


def _is_left_out(case: Case) -> bool:  # type: ignore[type-arg]
    """Return whether nothing was made wrong: a body that may be left out or null is, and counts as wrong."""
    data = None if case.meta is None else case.meta.phase.data
    return (
        case.body in (None, NOT_SET) and isinstance(data, FuzzingPhaseData | StatefulPhaseData) and not data.mutations
    )


def _has_empty_field(case: Case) -> bool:  # type: ignore[type-arg]
    """Return whether a field of a form is empty: then it counts as left out, as RFC 6749 (3.1) has it."""
    return case.path.startswith(_FORMS) and isinstance(case.body, dict) and "" in case.body.values()


def _document(run: Run) -> dict[str, Any]:
    """Return the document with the examples in it."""
    document = copy.deepcopy(dict(run.document))
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if (example := run.examples.get(f"{method.upper()} {path}")) is not None:
                for content in operation["requestBody"]["content"].values():
                    content["example"] = dict(example)
    return document


def _config(run: Run) -> SchemathesisConfig:
    headers = {} if run.authorization is None else {"Authorization": run.authorization}
    return SchemathesisConfig.from_dict(
        {
            "seed": run.seed,
            "base-url": run.origin,
            "headers": headers,
            "request-timeout": 30,
            "continue-on-failure": True,
            "warnings": False,
            "dictionaries": {place: {"values": list(words)} for place, words in run.words.items()},
            "parameters": {place: _taken_from(place) for place in run.words if " " not in place},
            "generation": {
                "max-examples": run.cases,
                "no-shrink": True,
                "with-security-parameters": False,
                "database": "none",
            },
            "phases": {name: {"enabled": name in run.phases} for name in _PHASES},
            "checks": {name: {"enabled": False} for name in _LEFT_OUT},
            "operations": [*_OPERATIONS, *(_with_words(each) for each in run.words if " " in each)],
        }
    )


def _taken_from(words: str) -> dict[str, Any]:
    return {"dictionary": words, "probability": _PROBABILITY}


def _with_words(place: str) -> dict[str, Any]:
    operation, _, name = place.rpartition(" ")
    return {"include-name": operation, "parameters": {name: _taken_from(place)}}


class _Manners:
    """Keeps what is sent from doing what nobody wants to wait for or to lose.

    Args:
        spared: as in `Run`.
    """

    def __init__(self, spared: Mapping[str, str]) -> None:
        self._spared = spared
        self._pattern = re.compile("|".join(map(re.escape, spared))) if spared else None

    def apply(self, case: Case) -> None:  # type: ignore[type-arg]
        """Change a request at the last moment; what is valid stays so, and what is not as well."""
        if _is_long_wait(case.query.get("wait")):
            case.query = {**case.query, "wait": LONGEST_WAIT}
        if case.method == "DELETE" or f"{case.method} {case.path}" in _ENDING:
            case.path_parameters = self._without_spared(case.path_parameters)
            case.body = self._without_spared(case.body)
        if case.path.startswith(checks.PAGE) and case.method == "POST":
            _bring_back_form(case)

    def _without_spared(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._without_spared(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._without_spared(each) for each in value]
        if isinstance(value, str) and self._pattern:
            return self._pattern.sub(lambda match: self._spared[match[0]], value)
        return value


def _is_long_wait(wait: Any) -> bool:
    return isinstance(wait, int | float) and not isinstance(wait, bool) and LONGEST_WAIT < wait <= 60


def _bring_back_form(case: Case) -> None:  # type: ignore[type-arg]
    """Send the cookie that goes with the form, as a browser does: the document has no word for it."""
    body = case.body if isinstance(case.body, dict) else {}
    form_token = body.get("form_token")
    if case.meta is None or case.meta.is_negative_at(ParameterLocation.BODY) or not isinstance(form_token, str):
        return
    if re.fullmatch(r"[\w-]+", form_token, re.ASCII):
        case.cookies = {_COOKIE: form_token}


def _tallied(run: Run, stream: events.EventGenerator | Any) -> Outcome:
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    findings: dict[tuple[str, str, str], Finding] = {}
    for event in stream:
        for operation, status in _answers(event):
            statuses[operation][status] += 1
        for kind, finding in _found(event, run.identity):
            findings.setdefault(kind, finding)
    return Outcome(service=run.service, identity=run.identity, statuses=statuses, findings=list(findings.values()))


def _answers(event: events.EngineEvent) -> Iterator[tuple[str, int]]:
    if isinstance(event, events.ScenarioFinished):
        for case_id, interaction in event.recorder.interactions.items():
            if interaction.response is not None:
                yield event.recorder.cases[case_id].value.operation.label, interaction.response.status_code


def _found(event: events.EngineEvent, identity: str) -> Iterator[tuple[tuple[str, str, str], Finding]]:
    """Yield what is wrong, each with what tells its kind."""
    match event:
        case events.ScenarioFinished():
            yield from _failed_checks(event.recorder, identity)
        case events.NonFatalError():
            message = f"{event.info.title}: {event.info.message}"[:_LONGEST_TEXT]
            finding = Finding(operation=event.label, check="error", identity=identity, message=message)
            yield (event.label, "error", event.info.title), finding
        case events.FatalError():
            raise event.exception
        case events.Interrupted():
            raise KeyboardInterrupt


def _failed_checks(recorder: ScenarioRecorder, identity: str) -> Iterator[tuple[tuple[str, str, str], Finding]]:
    for case_id, nodes in recorder.checks.items():
        for node in nodes:
            if node.failure_info is None:
                continue
            failure, operation = node.failure_info.failure, recorder.cases[case_id].value.operation.label
            response = recorder.interactions[case_id].response
            assert response is not None  # it was checked
            yield (
                (operation, node.name, f"{response.status_code} {failure.title}"),
                Finding(
                    operation=operation,
                    check=node.name,
                    identity=identity,
                    message=f"{response.status_code}: {failure.title}. {failure.message}"[:_LONGEST_TEXT],
                    request=node.failure_info.code_sample[:_LONGEST_TEXT],
                    answer=response.content[:_LONGEST_TEXT].decode(errors="replace"),
                ),
            )


if __name__ == "__main__":
    main()
