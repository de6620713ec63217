import io
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from deploy.audit import Audit, Finding
from deploy.databases import APPLICATION, DatabasePasswords, create_databases, drop_application, drop_database
from deploy.local import processes
from deploy.local.demonstration import (
    Ending,
    Example,
    Failure,
    Shown,
    _named_anew,
    conclude,
    read_examples,
)
from deploy.local.progress import Progress, showing
from deploy.local.throwaway import Server
from deploy.tests.conftest import ROOT, Up, environment_of
from shared.contracts import SERVICES

LONGEST_SECONDS = 40

UNDONE = Ending(
    status="compensated",
    failure=Failure(step="provision-environment", code="unknown_region", detail="There is no region 'mars'."),
)
CLEAN = Audit(alive=1, gone=1, unfinished=0, findings=())


@pytest.mark.broker
def test_every_tenant_ends_as_the_examples_say_beside_a_running_installation(installation: Up) -> None:
    outcome = demo(environment_of(installation.folder))
    names = {example.name: example.expect for example in read_examples()}
    assert outcome.returncode == 0, outcome.stdout
    assert f"{list(names.values()).count('completed')} onboardings completed" in outcome.stdout
    assert "It failed at provision-environment: unknown_region." in outcome.stdout
    assert "left nothing in any of the six databases" in outcome.stdout
    assert "make up" in outcome.stdout
    lines = outcome.stdout.splitlines()
    for name, expect in names.items():
        steps = [line for line in lines if name in line and line.endswith("done") and "undone" not in line]
        assert len(steps) == 6 if expect == "completed" else 1 <= len(steps) < 6, name
        assert any(name in line and line.endswith("undone") for line in lines) == (expect == "compensated")
    assert "\x1b" not in outcome.stdout
    assert not (installation.folder / "demo").exists()


@pytest.mark.broker
def test_it_runs_on_given_servers(given_servers: dict[str, str], folder: Path) -> None:
    outcome = demo(environment_of(folder / "data", **given_servers))
    assert outcome.returncode == 0, outcome.stdout
    assert "RabbitMQ    given" in outcome.stdout


def test_given_databases_see_names_of_each_run_because_they_know_the_last_one() -> None:
    examples = read_examples()
    first, second = (_named_anew(examples, given=True) for _ in range(2))
    assert not {each.name for each in first} & {each.name for each in (*second, *examples)}
    assert [each.expect for each in first] == [each.expect for each in examples]
    assert _named_anew(examples, given=False) == examples


@pytest.mark.broker
def test_ctrl_c_leaves_nothing_behind(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.local.demo"],
        cwd=ROOT,
        env=environment_of(folder / "data"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert any("RabbitMQ" in line for line in process.stdout)
    family = processes.descendants(process.pid)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=LONGEST_SECONDS)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert not [pid for pid in family if processes.is_alive(pid)]
    assert not (folder / "data" / "demo").exists()


@pytest.mark.parametrize(
    ("endings", "audited", "complaint"),
    [
        ((Ending(status="needs_attention"), UNDONE), CLEAN, "Good should be completed and is needs_attention"),
        ((UNDONE, UNDONE), CLEAN, "Good should be completed and is compensated, because it failed at provision-"),
        ((Ending(status="completed"), Ending(status="completed")), CLEAN, "Bad should be compensated and is completed"),
        (
            (Ending(status="completed"), UNDONE),
            Audit(alive=1, gone=0, unfinished=0, findings=(Finding("billing", "42", "left over: account"),)),
            "billing: tenant 42: left over: account",
        ),
        ((Ending(status="completed"), UNDONE), Audit(0, 1, 1, ()), "1 unfinished"),
    ],
)
def test_anything_else_is_said_and_fails(endings: Sequence[Ending], audited: Audit, complaint: str) -> None:
    out = Console(file=io.StringIO(), soft_wrap=True)
    assert conclude(out, shown(endings), audited) == 1
    assert complaint in printed(out)


def test_what_should_be_undone_has_to_be_there() -> None:
    out = Console(file=io.StringIO(), soft_wrap=True)
    assert conclude(out, shown((Ending(status="completed"), UNDONE)), CLEAN) == 0
    assert conclude(out, shown((Ending(status="completed"),)), CLEAN) == 1


def test_the_examples_are_worth_showing() -> None:
    examples = read_examples()
    orders = [
        (each.onboarding["tier"], *order.values()) for each in examples for order in each.onboarding.get("products", ())
    ]
    assert len(examples) >= 10
    assert {tier for tier, _, _ in orders} == {"free", "standard", "premium"}
    assert {version for _, _, version in orders} == {"1.0", "2.0"}
    assert [each.name for each in examples if each.because] == ["Undone: Mars Base"]
    assert [each.name for each in examples if each.expect == "compensated"] == ["Undone: Mars Base"]
    assert any("&" in each.name for each in examples)
    assert any("\u0590" < character < "\u0700" for each in examples for character in each.name)  # right to left
    assert any(cell_len(each.name) > len(each.name) for each in examples)  # wide


@pytest.mark.parametrize(("width", "has_tier"), [(80, False), (120, True)])
def test_the_table_keeps_its_columns_under_wide_characters(width: int, has_tier: bool) -> None:  # noqa: FBT001
    out = Console(file=io.StringIO(), width=width, height=40, force_terminal=True, soft_wrap=True, color_system=None)
    rows = [Progress(example.name, example.onboarding["tier"]) for example in read_examples()]
    with showing(out, rows) as display:
        for row in rows:
            for event in events():
                row.heard(event)
                display.heard(row, event)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed(out)).replace("\r", "\n")
    heading, *lines = [line for line in drawn.splitlines() if line][-len(rows) - 1 :]
    assert all(cell_len(line.rstrip()) <= width for line in (heading, *lines))
    starts = {cell_len(line[: line.index(" done")]) for line in lines}
    assert starts == {cell_len(heading[: heading.index(" register")])}
    assert ("premium" in "".join(lines)) == has_tier
    assert all(row.name in line for row, line in zip(rows, lines, strict=True))


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_lines_are_shown_where_a_table_is_not_wanted(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = Console(file=io.StringIO(), force_terminal=True, height=40, _environ=os.environ)
    row = Progress("北京书店", "free")
    with showing(out, [row]) as display:
        for event in events():
            row.heard(event)
            display.heard(row, event)
    assert "\x1b" not in printed(out)
    assert [line.split()[-1] for line in printed(out).splitlines()] == ["running", "done", "completed"]


@pytest.fixture
async def given_servers(postgres_server: Server, broker_server: Server) -> AsyncIterator[dict[str, str]]:
    """Yield variables that name servers of somebody else's."""
    prefix = f"tenure_given_{secrets.token_hex(3)}"
    passwords = {name: DatabasePasswords(owner="o", app="a") for name in (*SERVICES, APPLICATION)}
    urls = await create_databases(postgres_server.admin_url, passwords, prefix=prefix)
    given = {f"TENURE_{service.upper()}_DATABASE_URL": urls[service].app for service in SERVICES}
    given |= {f"TENURE_{service.upper()}_DATABASE_OWNER_URL": urls[service].owner for service in SERVICES}
    given["TENURE_APPLICATION_DATABASE_URL"] = urls[APPLICATION].owner
    yield given | {"TENURE_AMQP_URL": broker_server.admin_url}
    for service in SERVICES:
        await drop_database(postgres_server.admin_url, f"{prefix}_{service}")
    await drop_application(postgres_server.admin_url, f"{prefix}_{APPLICATION}")


def demo(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deploy.local.demo"],
        cwd=ROOT,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_SECONDS,
    )


def shown(endings: Sequence[Ending]) -> Sequence[Shown]:
    good = Example(expect="completed", onboarding={"customerName": "Good"})
    bad = Example(expect="compensated", onboarding={"customerName": "Bad"})
    return [Shown(example, ending, 0.1) for example, ending in zip((good, bad), endings, strict=False)]


def events() -> Iterator[dict[str, object]]:
    for kind, step in (("started", None), ("succeeded", "register-tenant"), ("completed", None)):
        yield {"kind": kind, "step": step, "at": "2026-01-01T00:00:00Z", "detail": {}}


def printed(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()
