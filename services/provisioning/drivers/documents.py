"""What an operator's own program is asked, and what it answers: JSON, the same on standard input and over HTTP.

[docs/drivers.md](../../../docs/drivers.md) has it for whoever writes such a program. An answer is not trusted: it is
small, is what RFC 8259 calls JSON, and has no field that nobody knows, which would be a typing mistake.
"""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from services.provisioning.drivers.port import Done, Environment, Inspection, Next, Outcome, Refused, Retry, Task
from shared.http.body import check_json
from shared.http.problems import Problem
from shared.text import Count, Flag

LARGEST = 1024 * 1024
"""How many bytes an answer may have."""

LONGEST_WAIT = timedelta(days=1)
"""How long an answer may put the next step off."""

Document = Mapping[str, Any]

_Seconds = Annotated[float, Field(strict=True, ge=0, le=LONGEST_WAIT.total_seconds())]
_Code = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_]{0,62}$")]
_Stage = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=100)]
_Sentence = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=500)]
_Counts = dict[str, Count]
Part = TypeVar("Part", bound=BaseModel)


class Operation(StrEnum):
    """What is asked for."""

    PROVISION = "provision"
    DEPROVISION = "deprovision"
    MOVE = "move"
    THROTTLE = "throttle"
    DEPLOY = "deploy"
    INSPECT = "inspect"


class MalformedAnswerError(Exception):
    """An answer is not what it should be; the text is a sentence that begins with what it is about."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


class _Next(_Part):
    stage: _Stage
    notes: dict[str, Any] = Field(default_factory=dict)
    after_seconds: _Seconds = 0
    said: _Sentence | None = None
    has_switched: Flag = False


class _Refused(_Part):
    code: _Code
    detail: _Sentence


class _Retry(_Part):
    detail: _Sentence
    after_seconds: _Seconds = 0


class _Answer(_Part):
    """One of `next`, `refused` and `retry`, or what there is when all is done."""

    resources: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    next: _Next | None = None
    refused: _Refused | None = None
    retry: _Retry | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(each is not None for each in (self.result, self.next, self.refused, self.retry)) > 1:
            raise ValueError("must have only one of `result`, `next`, `refused` and `retry`")
        if self.resources is not None and (self.refused or self.retry):
            raise ValueError("must not have `resources` besides `refused` or `retry`")
        return self


class _Inspection(_Part):
    exists: Flag
    is_throttled: Flag = False
    isolation: str | None = None
    products: dict[str, str] = Field(default_factory=dict)
    detail: dict[str, Any] = Field(default_factory=dict)


class _Removal(BaseModel):
    result: _Counts


def question(operation: Operation, task: Task) -> dict[str, Any]:
    """Return what is asked for a step, ready to be written as JSON."""
    return {
        "operation": operation.value,
        "environment": described(task.environment),
        "target": None if task.target is None else described(task.target),
        "stage": task.stage,
        "notes": dict(task.notes),
    }


def described(environment: Environment) -> dict[str, Any]:
    """Return an environment in the words of the outside."""
    return {
        "environmentId": str(environment.environment_id),
        "tenantId": environment.owner,
        "product": environment.product,
        "isolation": environment.isolation,
        "region": environment.region,
        "connections": environment.connections,
        "isThrottled": environment.is_throttled,
        "products": dict(environment.products),
        "parameters": dict(environment.parameters),
        "resources": dict(environment.resources),
    }


def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object that was answered.

    Raises:
        MalformedAnswerError: it is none, or has what no database keeps.
    """
    if not body.strip():
        raise MalformedAnswerError("The answer is empty; one that has nothing to say is {}.")
    try:
        check_json(body)
    except Problem as problem:
        raise MalformedAnswerError(problem.detail.replace("The body", "The answer", 1)) from None
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise MalformedAnswerError("The answer is no JSON object.")
    return document


def outcome_of(document: Document, operation: Operation, task: Task) -> Outcome:
    """Return what an answer to a step says.

    Resources that it does not name are as they were; after a move, as the target has them.

    Raises:
        MalformedAnswerError: it says nothing that could be understood.
    """
    answer = _validated(_Answer, document)
    if answer.refused is not None:
        return Refused(code=answer.refused.code, detail=answer.refused.detail)
    if answer.retry is not None:
        return Retry(detail=answer.retry.detail, after=timedelta(seconds=answer.retry.after_seconds))
    if answer.next is not None:
        return _step(answer, answer.next, operation, task)
    if operation is Operation.DEPROVISION:
        return Done(result=_validated(_Removal, {"result": answer.result or {}}).result)
    return Done(resources=_resources(answer, operation, task, has_moved=True), result=answer.result or {})


def refusal_of(document: Document, *, detail: str) -> Refused:
    """Return a refusal of which an answer says more: ``code`` and ``detail``, or one of them, or nothing.

    Args:
        detail: where it does not say that.

    Raises:
        MalformedAnswerError: it says something else.
    """
    refused = _validated(_Refused, {"code": "refused", "detail": detail, **document})
    return Refused(code=refused.code, detail=refused.detail)


def retry_of(document: Document, *, detail: str) -> Retry:
    """Return a retry of which an answer says more: ``detail`` and ``afterSeconds``; see `refusal_of`."""
    retry = _validated(_Retry, {"detail": detail, **document})
    return Retry(detail=retry.detail, after=timedelta(seconds=retry.after_seconds))


def check_outcome(document: Document) -> None:
    """Find out whether an answer can be understood, whatever it is an answer to.

    Raises:
        MalformedAnswerError: it cannot.
    """
    _validated(_Answer, document)


def inspection_of(document: Document) -> Inspection:
    """Return what somebody has found who was to look.

    Raises:
        MalformedAnswerError: it says nothing that could be understood.
    """
    found = _validated(_Inspection, document)
    return Inspection(
        exists=found.exists,
        is_throttled=found.is_throttled,
        isolation=found.isolation,
        products=found.products,
        detail=found.detail,
    )


def _step(answer: _Answer, step: _Next, operation: Operation, task: Task) -> Next:
    if step.has_switched and operation is not Operation.MOVE:
        raise MalformedAnswerError(f"`next.hasSwitched` is for `move`, not for `{operation}`.")
    return Next(
        stage=step.stage,
        resources=_resources(answer, operation, task, has_moved=step.has_switched),
        notes=step.notes,
        after=timedelta(seconds=step.after_seconds),
        said=step.said,
        has_switched=step.has_switched,
    )


def _resources(answer: _Answer, operation: Operation, task: Task, *, has_moved: bool) -> Document:
    if answer.resources is not None:
        return answer.resources
    if operation is Operation.MOVE and has_moved and task.target is not None:
        return task.target.resources
    return task.environment.resources


def _validated(model: type[Part], document: Document) -> Part:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise MalformedAnswerError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """Name the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(each) for each in first["loc"])
    subject = f"`{field}` of the answer" if field else "The answer"
    complaint = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{subject} {complaint if complaint.startswith('must ') else f'is wrong: {complaint}'}."
