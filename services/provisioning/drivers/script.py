"""Environments made by an operator's own program: a shell script, Terraform or OpenTofu, Ansible.

The program is run for each step. It reads what is asked for as JSON and prints what has come of it; see
[docs/drivers.md](../../../docs/drivers.md).
"""

import asyncio
import fcntl
import os
import re
import shutil
import stat
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import orjson
import structlog

from services.provisioning.drivers.documents import (
    LARGEST,
    MalformedAnswerError,
    Operation,
    inspection_of,
    outcome_of,
    parsed,
    question,
    refusal_of,
    retry_of,
)
from services.provisioning.drivers.port import (
    Capacity,
    Done,
    Environment,
    Inspection,
    Outcome,
    Retry,
    Task,
)
from services.provisioning.drivers.processes import Bounds, Ran, run_program

log = structlog.get_logger(__name__)

ISOLATIONS = ("pool", "bridge", "silo")

TRY_AGAIN = os.EX_TEMPFAIL
"""The exit code 75: not yet, or not now."""

REFUSALS = (os.EX_USAGE, os.EX_DATAERR)
"""The exit codes 64 and 65: this cannot be done."""

_TELLING = (TRY_AGAIN, *REFUSALS)
_ALWAYS_PASSED = ("PATH", "HOME", "LANG")
_NO_NAME = re.compile(r"[^A-Z0-9_]")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_LONGEST_DETAIL = 300
_MARGIN = timedelta(seconds=15)


class UnusableScriptError(ValueError):
    """A program cannot be the driver's; the text says what to do."""


class ScriptFailedError(Exception):
    """The program could not look at an environment."""


class _StillRunningError(Exception):
    """An earlier run for the same environment has not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptTerms:
    """Which program it is, and what it gets.

    Attributes:
        program: an absolute path.
        timeout: how long a run may take.
        passed: the variables of our own environment that it gets besides ``PATH``, ``HOME`` and ``LANG``.
        folder: where each environment has a folder in which the program works and keeps what it likes until the
            environment is removed; None for a new one in every run.
        isolations: what it can make.
        at_once: how many runs there may be at a time.
        grace: how long a run that is to stop may take for that.
    """

    program: Path
    timeout: timedelta = timedelta(minutes=15)
    passed: Sequence[str] = ()
    folder: Path | None = None
    isolations: Sequence[str] = ISOLATIONS
    at_once: int = 4
    grace: timedelta = timedelta(seconds=10)


class _Asked(NamedTuple):
    operation: Operation
    task: Task


class ScriptDriver:
    """The `Driver` that runs a program.

    Args:
        variables: our own environment.

    Raises:
        UnusableScriptError: there is no such program, or whoever likes could change it.
    """

    name = "script"

    def __init__(self, terms: ScriptTerms, *, variables: Mapping[str, str] = os.environ) -> None:
        self._program = _checked(terms.program)
        self._terms = terms
        self._passed = {name: variables[name] for name in (*_ALWAYS_PASSED, *terms.passed) if name in variables}
        self._bounds = Bounds(
            seconds=terms.timeout.total_seconds(), grace_seconds=terms.grace.total_seconds(), output=LARGEST
        )

    @property
    def isolations(self) -> Sequence[str]:
        """What the operator says that the program can make."""
        return tuple(self._terms.isolations)

    def capacity(self, isolation: str) -> Capacity:  # noqa: ARG002 - the same for each
        """One step a run; a run ends by itself before it would be cancelled."""
        step = self._terms.timeout + self._terms.grace + _MARGIN
        return Capacity(batch=1, at_once=self._terms.at_once, step=step)

    async def provision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.provision`."""
        return [await self._step(_Asked(Operation.PROVISION, task)) for task in tasks]

    async def deprovision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.deprovision`; the environment's folder goes too."""
        return [await self._step(_Asked(Operation.DEPROVISION, task)) for task in tasks]

    async def move(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.move`."""
        return [await self._step(_Asked(Operation.MOVE, task)) for task in tasks]

    async def throttle(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.throttle`."""
        return [await self._step(_Asked(Operation.THROTTLE, task)) for task in tasks]

    async def deploy(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """See `Driver.deploy`."""
        return [await self._step(_Asked(Operation.DEPLOY, task)) for task in tasks]

    async def inspect(self, environments: Sequence[Environment]) -> Sequence[Inspection]:
        """See `Driver.inspect`.

        Raises:
            ScriptFailedError: the program has failed, or prints what is no inspection.
        """
        return [await self._look(environment) for environment in environments]

    async def _step(self, asked: _Asked) -> Outcome:
        try:
            async with self._workplace(asked.task.environment) as place:
                outcome = self._outcome(asked, await self._run(asked, place))
                place.is_over = asked.operation is Operation.DEPROVISION and isinstance(outcome, Done)
        except _StillRunningError:
            return Retry(detail="An earlier run for this environment has not ended yet.")
        except OSError as error:
            return Retry(detail=f"The program cannot be run: {error.strerror or error}.")
        return outcome

    async def _look(self, environment: Environment) -> Inspection:
        asked = _Asked(Operation.INSPECT, Task(environment=environment))
        async with self._lookout(environment) as place:
            ran = await self._run(asked, place)
        if (failure := _failure(ran, self._terms)) is not None:
            raise ScriptFailedError(failure)
        try:
            return inspection_of(parsed(ran.output))
        except MalformedAnswerError as error:
            raise ScriptFailedError(str(error)) from None

    async def _run(self, asked: _Asked, place: "_Workplace") -> Ran:
        ran = await run_program(
            self._program,
            given=orjson.dumps(question(*asked)),
            environment=self._passed | _facts(asked),
            folder=place.folder,
            bounds=self._bounds,
            kept_open=place.kept_open,
        )
        log.info(
            "a program has run",
            action="script_ran",
            operation=asked.operation.value,
            stage=asked.task.stage,
            tenant_id=asked.task.environment.owner,
            product=asked.task.environment.product,
            environment_id=str(asked.task.environment.environment_id),
            exit_code=ran.exit_code,
            said=ran.log.decode(errors="replace"),
        )
        return ran

    def _outcome(self, asked: _Asked, ran: Ran) -> Outcome:
        if (failure := _failure(ran, self._terms)) is not None:
            return _told(ran, failure)
        try:
            return outcome_of(parsed(ran.output), *asked)
        except MalformedAnswerError as error:
            return Retry(detail=f"{error} {_last_line(ran)}".rstrip())

    @asynccontextmanager
    async def _workplace(self, environment: Environment) -> "AsyncIterator[_Workplace]":
        """Give a run a folder, which no other run has at the time.

        Raises:
            _StillRunningError: another has; it may be what a process of ours that was killed has left behind.
        """
        if self._terms.folder is None:
            async with _passing() as place:
                yield place
            return
        folder = self._folder(environment)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder) as lock:
            place = _Workplace(folder, (lock,))
            yield place
            if place.is_over:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @asynccontextmanager
    async def _lookout(self, environment: Environment) -> "AsyncIterator[_Workplace]":
        """Give a run that changes nothing the environment's folder, if it has one."""
        folder = self._folder(environment)
        if folder.is_dir():
            yield _Workplace(folder)
            return
        async with _passing() as place:
            yield place

    def _folder(self, environment: Environment) -> Path:
        return (self._terms.folder or Path(os.devnull)) / str(environment.environment_id)


@dataclass(slots=True)
class _Workplace:
    """Where a run works, and the file descriptors that it inherits.

    Attributes:
        is_over: nothing in the folder is needed any more.
    """

    folder: Path
    kept_open: Sequence[int] = ()
    is_over: bool = False


@asynccontextmanager
async def _passing() -> AsyncIterator[_Workplace]:
    """Make a folder for one run."""
    folder = TemporaryDirectory(prefix="tenure-", ignore_cleanup_errors=True)
    try:
        yield _Workplace(Path(folder.name))
    finally:
        await asyncio.to_thread(folder.cleanup)


def _checked(program: Path) -> Path:
    """Return a program that can be run and that only its owner's like can change."""
    if not program.is_absolute():
        raise UnusableScriptError(f"{program} must be an absolute path.")
    if not program.is_file():
        raise UnusableScriptError(f"There is no file {program}.")
    if not os.access(program, os.X_OK):
        raise UnusableScriptError(f"{program} cannot be executed: chmod +x it.")
    found = program.resolve()
    if found.stat().st_mode & stat.S_IWOTH:
        raise UnusableScriptError(f"{program} can be changed by everybody: chmod o-w it.")
    folder = found.parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        raise UnusableScriptError(f"{program} is in a folder that everybody can change: chmod o-w {found.parent}.")
    return program


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Lock a folder for as long as the block and all programs last that inherit the descriptor."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _StillRunningError from None
        yield descriptor
    finally:
        os.close(descriptor)


def _facts(asked: _Asked) -> dict[str, str]:
    """Return the main facts of a question as variables, for programs that do not read JSON."""
    environment, target = asked.task.environment, asked.task.target
    facts = {
        "TENURE_OPERATION": asked.operation.value,
        "TENURE_STAGE": asked.task.stage,
        "TENURE_TENANT_ID": environment.owner,
        "TENURE_PRODUCT": environment.product or "",
        "TENURE_ENVIRONMENT_ID": str(environment.environment_id),
        "TENURE_ISOLATION": environment.isolation,
        "TENURE_REGION": environment.region,
        "TENURE_IS_THROTTLED": _text(environment.is_throttled),
    }
    if target is not None:
        facts |= {"TENURE_TARGET_ISOLATION": target.isolation, "TENURE_TARGET_REGION": target.region}
    parameters = (target or environment).parameters
    return {f"TENURE_PARAMETER_{_variable(name)}": _text(parameters[name]) for name in sorted(parameters)} | facts


def _variable(name: str) -> str:
    return _NO_NAME.sub("_", name.upper())


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else orjson.dumps(value).decode()).replace("\0", "")


def _failure(ran: Ran, terms: ScriptTerms) -> str | None:
    """Say why a run came to nothing; None if it did not."""
    if ran.is_excessive:
        return f"The program prints more than {LARGEST} bytes."
    said = _last_line(ran)
    if ran.is_late:
        return f"The program took longer than {terms.timeout.total_seconds():g} s. {said}".rstrip()
    if ran.exit_code in _TELLING:
        return said or f"The program says no more than exit code {ran.exit_code}."
    if ran.exit_code < 0:
        return f"The program was ended by signal {-ran.exit_code}. {said}".rstrip()
    if ran.exit_code:
        return f"The program failed with exit code {ran.exit_code}. {said}".rstrip()
    return None


def _told(ran: Ran, failure: str) -> Outcome:
    """Return a refusal or a retry, with what the program itself has printed about it."""
    has_ended = not (ran.is_late or ran.is_excessive)
    is_refused = ran.exit_code in REFUSALS and has_ended
    tell = refusal_of if is_refused else retry_of
    if has_ended and ran.exit_code in _TELLING and ran.output.strip():
        try:
            return tell(parsed(ran.output), detail=failure)
        except MalformedAnswerError as error:
            log.warning("a program's words are not understood", action="script_unclear", error=str(error))
    return tell({}, detail=failure)


def _last_line(ran: Ran) -> str:
    lines = [line.strip() for line in ran.log.decode(errors="replace").splitlines() if line.strip()]
    return _UNSEEN.sub(" ", lines[-1])[:_LONGEST_DETAIL] if lines else ""
