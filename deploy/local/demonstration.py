"""The demonstration: real tenants through six services, one of them undone, and the proof that it left nothing."""

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.text import Text

from deploy.audit import Audit, audit
from deploy.local import container, postgres, rabbitmq
from deploy.local.console import console, say_part
from deploy.local.foreground import Interrupts, own_folder, run
from deploy.local.installation import DEFAULT_PORT
from deploy.local.ports import free_port
from deploy.local.progress import Display, Progress, showing
from deploy.local.running import System, running_system
from deploy.operator import data_folder
from shared.contracts import SERVICES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "tenants.json"
"""The tenants that are onboarded."""

_PACE_SECONDS = 0.15  # between two requests: eyes have to follow
_PATIENCE_SECONDS = 60.0


class Example(BaseModel):
    """A tenant of the examples.

    Attributes:
        expect: how its onboarding has to end.
        because: why it has to be undone.
        onboarding: the body of ``POST /v1/onboardings``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    expect: Literal["completed", "compensated"]
    because: str | None = None
    onboarding: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The customer's name."""
        return str(self.onboarding["customerName"])


class Failure(BaseModel):
    """Why a workflow failed."""

    step: str
    code: str
    detail: str

    def __str__(self) -> str:
        """Return it as a person reads it."""
        return f"failed at {self.step}: {self.code}. {self.detail}"


class Ending(BaseModel):
    """How an onboarding ended, as the API tells it."""

    model_config = ConfigDict(alias_generator=to_camel)

    tenant_id: str = ""
    status: str
    failure: Failure | None = None

    def __str__(self) -> str:
        """Return it as a person reads it."""
        return f"{self.status}, because it {self.failure}" if self.failure else self.status


@dataclass(frozen=True)
class Shown:
    """One example with what became of it."""

    example: Example
    ending: Ending
    seconds: float

    @property
    def is_as_expected(self) -> bool:
        """Whether it ended as it should."""
        return self.ending.status == self.example.expect


def read_examples(path: Path = EXAMPLES) -> Sequence[Example]:
    """Return the tenants to onboard."""
    return [Example.model_validate(each) for each in json.loads(path.read_text(encoding="utf-8"))["tenants"]]


def run_demonstration(*, interrupted: int) -> int:
    """Run the demonstration in the foreground and return the exit code.

    Args:
        interrupted: the exit code after a signal.
    """
    out = console()

    async def work(_interrupts: Interrupts) -> int:
        started = time.monotonic()
        with _throw_away_folder() as folder:
            out.print("Starting Tenure to show it. RabbitMQ takes a few seconds to boot.")
            async with running_system(
                folder, port=free_port(), say=lambda line: say_part(out, line), durable=False
            ) as system:
                examples = _named_anew(read_examples(), given=system.stack.postgres is None)
                before = time.monotonic()
                shown = await _show(out, system, examples)
                onboarding_seconds = time.monotonic() - before
                audited = await audit(system.stack.audited)
                code = conclude(out, shown, audited)
                out.print("\nStopping ...", end="")
        seconds = time.monotonic() - started
        out.print(f" done. All of it took {seconds:.1f} s, {onboarding_seconds:.1f} s of them the onboardings.")
        _suggest(out)
        return code

    # Mails of tenants that nobody will sign in to are not worth a line each.
    return run(work, out, interrupted=interrupted, log_level="error")


@contextmanager
def _throw_away_folder() -> Iterator[Path]:
    """Yield an empty folder beside the installation's own data, and remove it with what a killed run left behind."""
    folder = data_folder() / "demo"
    with own_folder(folder, "Another demonstration is running; wait for it, or set TENURE_DATA_DIR."):
        _erase(folder)
        try:
            yield folder
        finally:
            _erase(folder)
            shutil.rmtree(folder)


def _erase(folder: Path) -> None:
    postgres.erase(folder / "postgres")
    container.erase(folder / "rabbitmq")
    rabbitmq.erase(folder / "rabbitmq")


def _named_anew(examples: Sequence[Example], *, given: bool) -> Sequence[Example]:
    """Give customers names of this run where databases are given, which may know them from the run before."""
    if not given:
        return examples
    mark = secrets.token_hex(2)
    return [
        each.model_copy(update={"onboarding": {**each.onboarding, "customerName": f"{each.name} {mark}"}})
        for each in examples
    ]


async def _show(out: Console, system: System, examples: Sequence[Example]) -> Sequence[Shown]:
    rows = [Progress(each.name, each.onboarding.get("tier", "")) for each in examples]
    headers = {"Authorization": f"Bearer {system.stack.admin_key}"}
    out.print(f"\nOnboarding {len(examples)} tenants over {system.url}, each through six steps:\n")
    client = httpx2.AsyncClient(base_url=system.url, headers=headers, timeout=_PATIENCE_SECONDS, trust_env=False)
    with showing(out, rows) as display:
        async with client, asyncio.TaskGroup() as group:
            following = [
                group.create_task(_after(_PACE_SECONDS * place, _onboarder(client, example, row, display)))
                for place, (example, row) in enumerate(zip(examples, rows, strict=True))
            ]
    return [
        Shown(example, task.result(), row.seconds or 0.0)
        for example, task, row in zip(examples, following, rows, strict=True)
    ]


async def _after(seconds: float, action: Callable[[], Awaitable[Ending]]) -> Ending:
    await asyncio.sleep(seconds)
    return await action()


def _onboarder(
    client: httpx2.AsyncClient, example: Example, row: Progress, display: Display
) -> Callable[[], Awaitable[Ending]]:
    async def onboard() -> Ending:
        answer = await client.post("/v1/onboardings", json=example.onboarding)
        if not answer.is_success:
            row.status = "refused"
            return Ending(status=f"refused by the API: {answer.json().get('detail', answer.text)}")
        links = answer.json()["links"]
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await _follow(client, links["events"], row, display)
        except TimeoutError:
            pass  # the state below tells how far it came
        return Ending.model_validate((await client.get(links["self"])).json())

    return onboard


async def _follow(client: httpx2.AsyncClient, path: str, row: Progress, display: Display) -> None:
    """Show what happens to a workflow until it has ended."""
    async with client.stream("GET", path) as events:
        async for line in events.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                row.heard(event)
                display.heard(row, event)


def conclude(out: Console, shown: Sequence[Shown], audited: Audit) -> int:
    """Say how it went and return the exit code."""
    out.print()
    for each in shown:
        if not each.is_as_expected:
            _bad(out, f"{each.example.name} should be {each.example.expect} and is {each.ending}.")
    completed = [each for each in shown if each.is_as_expected and each.example.expect == "completed"]
    undone = [each for each in shown if each.is_as_expected and each.example.expect == "compensated"]
    if completed:
        slowest = max(each.seconds for each in completed)
        _good(out, f"{len(completed)} onboardings completed, the slowest within {slowest * 1000:.0f} ms.")
    for each in undone:
        _tell_undone(out, each)
    clean = _tell_audit(out, audited, len(undone), expected_alive=len(completed))
    return 0 if clean and undone and len(completed) + len(undone) == len(shown) else 1


def _tell_undone(out: Console, shown: Shown) -> None:
    _good(out, f"1 was undone, as it should be: {shown.example.name}, within {shown.seconds * 1000:.0f} ms.")
    failure = shown.ending.failure
    assert failure is not None
    out.print(Text(f"  It failed at {failure.step}: {failure.code}.\n  {failure.detail}"))


def _tell_audit(out: Console, audited: Audit, undone: int, *, expected_alive: int) -> bool:
    for finding in audited.findings:
        _bad(out, str(finding))
    clean = not audited.findings and audited.gone >= undone and audited.alive >= expected_alive
    if clean:
        _good(out, "It left nothing in any of the six databases, nor in the application's:")
        out.print(Text(f"  {', '.join(SERVICES)}."))
        _good(out, f"The {expected_alive} others are complete in every one of them.")
    else:
        _bad(out, f"The audit saw {audited.alive} complete, {audited.gone} gone, {audited.unfinished} unfinished.")
    return clean


def _suggest(out: Console) -> None:
    url = f"http://127.0.0.1:{DEFAULT_PORT}"
    out.print("\nTry next:")
    for command, what in (
        ("make up", "run it and keep it; it prints a curl to try"),
        (f"{url}/docs", "the API, while it is up"),
        ("make up PROCESSES=1", "six processes: kill one of them and watch"),
        ("docs/lifecycles.md", "what you saw, as a diagram"),
    ):
        out.print(Text.assemble(("  " + command.ljust(28), "bold"), what))


def _good(out: Console, sentence: str) -> None:
    out.print(Text.assemble(("✓ ", "green"), sentence))


def _bad(out: Console, sentence: str) -> None:
    out.print(Text.assemble(("✗ ", "bold red"), sentence))
