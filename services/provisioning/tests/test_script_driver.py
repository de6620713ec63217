"""The script driver, with programs of a few lines; what all drivers promise is in `test_driver_contract`."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from services.provisioning.drivers import Done, Environment, Inspection, Next, Outcome, Refused, Retry, Task
from services.provisioning.drivers.documents import LARGEST, MalformedAnswerError, Operation, outcome_of, parsed
from services.provisioning.drivers.script import ScriptDriver, ScriptFailedError, ScriptTerms, UnusableScriptError
from shared.testing import eventually

ENVIRONMENT_ID = UUID("01a20081-0000-7000-8000-000000000001")
ACME = Environment(
    environment_id=ENVIRONMENT_ID,
    tenant_id="acme",
    isolation="silo",
    region="eu-central",
    connections=5,
    products={"notes": "1.0"},
    parameters={"size": "large", "disk-gb": 20, "high availability": True},
    resources={"place": "here"},
)

Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Write a shell script that can be run."""

    def write(text: str) -> Path:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write


def driver(program: Path, *, variables: Mapping[str, str] | None = None, **terms: Any) -> ScriptDriver:
    return ScriptDriver(
        ScriptTerms(program=program, **terms), variables={"PATH": "/usr/bin:/bin"} if variables is None else variables
    )


async def provisioned(program: Path, **terms: Any) -> Outcome:
    (outcome,) = await driver(program, **terms).provision([Task(environment=ACME)])
    return outcome


async def detail_of_retry(program: Path, **terms: Any) -> str:
    outcome = await provisioned(program, **terms)
    assert isinstance(outcome, Retry)
    return outcome.detail


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def pid_in(path: Path) -> int:
    await eventually(lambda: path.exists() and path.read_text().endswith("\n"), describe="a process id")
    return int(await asyncio.to_thread(path.read_text))


# What it is asked


async def test_it_reads_what_is_asked_as_one_document(program: Program, tmp_path: Path) -> None:
    target = Environment(environment_id=ENVIRONMENT_ID, tenant_id="acme", isolation="pool", region="local")
    task = Task(environment=ACME, target=target, stage="switch", notes={"copied": 3})

    await driver(program(f"cat > {tmp_path}/asked; echo '{{}}'")).move([task])

    assert json.loads((tmp_path / "asked").read_text()) == {
        "operation": "move",
        "environment": {
            "environmentId": str(ENVIRONMENT_ID),
            "tenantId": "acme",
            "product": None,
            "isolation": "silo",
            "region": "eu-central",
            "connections": 5,
            "isThrottled": False,
            "products": {"notes": "1.0"},
            "parameters": {"size": "large", "disk-gb": 20, "high availability": True},
            "resources": {"place": "here"},
        },
        "target": {
            "environmentId": str(ENVIRONMENT_ID),
            "tenantId": "acme",
            "product": None,
            "isolation": "pool",
            "region": "local",
            "connections": None,
            "isThrottled": False,
            "products": {},
            "parameters": {},
            "resources": {},
        },
        "stage": "switch",
        "notes": {"copied": 3},
    }


@pytest.mark.parametrize("operation", ["provision", "deprovision", "move", "throttle", "deploy"])
async def test_it_is_told_which_operation_it_is(program: Program, tmp_path: Path, operation: str) -> None:
    script = driver(program(f"echo $TENURE_OPERATION > {tmp_path}/said; echo '{{}}'"))

    (outcome,) = await getattr(script, operation)([Task(environment=ACME, target=ACME)])

    assert isinstance(outcome, Done)
    assert (tmp_path / "said").read_text() == f"{operation}\n"


async def test_the_main_facts_are_variables_and_of_our_own_there_are_three_and_what_is_named(
    program: Program, tmp_path: Path
) -> None:
    own = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C", "CLOUD_TOKEN": "t", "TENURE_ADMIN_KEY": "secret"}
    script = driver(program(f"env > {tmp_path}/given; echo '{{}}'"), variables=own, passed=["CLOUD_TOKEN", "ABSENT"])

    await script.provision([Task(environment=ACME, stage="wait")])

    given = dict(line.split("=", 1) for line in (tmp_path / "given").read_text().splitlines())
    of_the_shell = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert {name: value for name, value in given.items() if name not in of_the_shell} == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/root",
        "LANG": "C",
        "CLOUD_TOKEN": "t",
        "TENURE_OPERATION": "provision",
        "TENURE_STAGE": "wait",
        "TENURE_TENANT_ID": "acme",
        "TENURE_PRODUCT": "",
        "TENURE_ENVIRONMENT_ID": str(ENVIRONMENT_ID),
        "TENURE_ISOLATION": "silo",
        "TENURE_REGION": "eu-central",
        "TENURE_IS_THROTTLED": "false",
        "TENURE_PARAMETER_SIZE": "large",
        "TENURE_PARAMETER_DISK_GB": "20",
        "TENURE_PARAMETER_HIGH_AVAILABILITY": "true",
    }


async def test_it_is_told_of_which_product_an_environment_is(program: Program, tmp_path: Path) -> None:
    told = f"cat > {tmp_path}/asked; echo $TENURE_TENANT_ID $TENURE_PRODUCT > {tmp_path}/said; echo '{{}}'"
    of_product = replace(ACME, tenant_id="acme:notes", product="notes")

    with capture_logs() as logs:
        await driver(program(told)).provision([Task(environment=of_product)])

    asked = json.loads((tmp_path / "asked").read_text())["environment"]
    assert (asked["tenantId"], asked["product"]) == ("acme", "notes")
    assert (tmp_path / "said").read_text() == "acme notes\n"
    assert [(each["tenant_id"], each["product"]) for each in logs] == [("acme", "notes")]


async def test_a_program_that_reads_nothing_is_none_the_worse_for_it(program: Program) -> None:
    large = Environment(
        environment_id=ENVIRONMENT_ID, tenant_id="a", isolation="pool", region="r", resources={"much": "x" * 500_000}
    )

    (outcome,) = await driver(program("exec <&-; echo '{}'")).deploy([Task(environment=large)])

    assert outcome == Done(resources=large.resources)


# What it answers


async def test_what_there_is_and_what_is_told_is_taken_from_what_it_prints(program: Program) -> None:
    outcome = await provisioned(program("""echo '{"resources": {"place": "there"}, "result": {"url": "x"}}'"""))

    assert outcome == Done(resources={"place": "there"}, result={"url": "x"})


async def test_resources_that_it_does_not_name_are_as_they_were(program: Program) -> None:
    assert await provisioned(program("echo '{}'")) == Done(resources=ACME.resources)


async def test_of_a_removal_nothing_is_left_but_counts(program: Program) -> None:
    script = driver(program("""echo '{"result": {"files": 3}, "resources": {"left": "over"}}'"""))

    assert await script.deprovision([Task(environment=ACME)]) == [Done(result={"files": 3})]


async def test_counts_are_numbers(program: Program) -> None:
    (outcome,) = await driver(program("""echo '{"result": {"files": "3"}}'""")).deprovision([Task(environment=ACME)])

    assert isinstance(outcome, Retry)
    assert "`result.files` of the answer" in outcome.detail


async def test_a_step_may_be_followed_by_another(program: Program) -> None:
    step = {"stage": "wait", "notes": {"id": 7}, "afterSeconds": 2.5, "said": "the account is being made"}

    outcome = await provisioned(program(f"echo '{json.dumps({'next': step})}'"))

    assert outcome == Next(
        stage="wait",
        resources=ACME.resources,
        notes={"id": 7},
        after=timedelta(seconds=2.5),
        said="the account is being made",
    )


async def test_a_move_switches_when_it_says_so_and_nothing_else_does() -> None:
    answer = {"next": {"stage": "clear", "hasSwitched": True}, "resources": {"place": "there"}}

    outcome = outcome_of(answer, Operation.MOVE, Task(environment=ACME, target=ACME))

    assert outcome == Next(stage="clear", resources={"place": "there"}, has_switched=True)
    there = replace(ACME, isolation="pool", resources={"place": "as it was"})
    for answered in ({"next": {"stage": "clear", "hasSwitched": True}}, {}):
        outcome = outcome_of(answered, Operation.MOVE, Task(environment=ACME, target=there))
        assert isinstance(outcome, Done | Next)
        assert outcome.resources == {"place": "as it was"}
    with pytest.raises(MalformedAnswerError, match="hasSwitched"):
        outcome_of(answer, Operation.PROVISION, Task(environment=ACME))


@pytest.mark.parametrize("code", [64, 65])
async def test_a_refusal_says_why(program: Program, code: int) -> None:
    printed = """echo '{"code": "no_quota", "detail": "There is no room."}'"""

    assert await provisioned(program(f"{printed}; exit {code}")) == Refused(code="no_quota", detail="There is no room.")
    assert await provisioned(program(f"echo one >&2; echo 'no room' >&2; exit {code}")) == Refused(
        code="refused", detail="no room"
    )
    assert isinstance(await provisioned(program(f"echo 'no JSON'; exit {code}")), Refused)


async def test_a_refusal_may_be_printed_too(program: Program) -> None:
    outcome = await provisioned(program("""echo '{"refused": {"code": "no_quota", "detail": "No room."}}'"""))

    assert outcome == Refused(code="no_quota", detail="No room.")


async def test_it_is_tried_again_when_it_says_so(program: Program) -> None:
    assert await provisioned(program("echo 'creating' >&2; exit 75")) == Retry(detail="creating")
    assert await provisioned(program("""echo '{"detail": "busy", "afterSeconds": 30}'; exit 75""")) == Retry(
        detail="busy", after=timedelta(seconds=30)
    )


async def test_whatever_else_goes_wrong_is_tried_again(program: Program) -> None:
    assert await detail_of_retry(program("echo first >&2; echo 'disk\tfull' >&2; exit 3")) == (
        "The program failed with exit code 3. disk full"
    )
    assert await detail_of_retry(program("kill -9 $$")) == "The program was ended by signal 9."
    # An answer of a program that failed is none.
    assert "exit code 1" in await detail_of_retry(program("echo '{}'; exit 1"))


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [
        ("", "empty"),
        ("all is well", "not JSON"),
        ("[]", "no JSON object"),
        ('{"resources": {"a": "\\u0000"}}', "NUL"),
        ('{"resources": {"a": 1, "a": 2}}', "twice"),
        ('{"resource": {}}', "`resource` of the answer"),
        ('{"resources": []}', "`resources` of the answer"),
        ('{"next": {"stage": ""}}', "`next.stage` of the answer"),
        ('{"next": {"stage": "a", "afterSeconds": -1}}', "`next.afterSeconds` of the answer"),
        ('{"next": {"stage": "a"}, "result": {}}', "only one of"),
        ('{"refused": {"code": "No Quota", "detail": "x"}}', "`refused.code` of the answer"),
        ('{"retry": {"detail": "x"}, "resources": {}}', "must not have `resources`"),
    ],
)
async def test_what_cannot_be_understood_is_tried_again(program: Program, printed: str, complaint: str) -> None:
    detail = await detail_of_retry(program(f"printf '%s' '{printed}'; echo 'last words' >&2"))

    assert complaint in detail
    assert detail.endswith("last words")


async def test_a_program_that_prints_without_end_is_stopped(program: Program, tmp_path: Path) -> None:
    detail = await detail_of_retry(program(f"echo $$ > {tmp_path}/pid; yes"))

    assert detail == f"The program prints more than {LARGEST} bytes."
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_an_answer_of_any_allowed_length_is_read() -> None:
    assert parsed(b'{"resources": {}}' + b" " * 1000) == {"resources": {}}


# What it says meanwhile


async def test_the_end_of_what_it_says_is_logged_and_what_it_is_given_is_not(program: Program) -> None:
    secret = Environment(
        environment_id=ENVIRONMENT_ID, tenant_id="a", isolation="pool", region="r", parameters={"token": "do-not-show"}
    )
    with capture_logs() as logs:
        await driver(program("echo beginning >&2; yes | head -c 100000 >&2; echo end >&2; echo '{}'")).provision(
            [Task(environment=secret)]
        )

    (line,) = [each for each in logs if each.get("action") == "script_ran"]
    assert line["said"].endswith("y\nend\n")
    assert len(line["said"]) == 64 * 1024
    assert (line["operation"], line["tenant_id"], line["exit_code"]) == ("provision", "a", 0)
    assert "do-not-show" not in repr(logs)


# How long it may take


async def test_a_program_that_takes_too_long_is_asked_to_stop(program: Program, tmp_path: Path) -> None:
    late = program(f"trap 'echo tidied > {tmp_path}/end; exit 0' TERM; echo 'waiting' >&2; sleep 60 & wait")

    detail = await detail_of_retry(late, timeout=timedelta(seconds=0.5))

    assert detail == "The program took longer than 0.5 s. waiting"
    assert (tmp_path / "end").read_text() == "tidied\n"


async def test_one_that_does_not_stop_is_killed_with_all_it_has_started(program: Program, tmp_path: Path) -> None:
    child = f"sh -c 'echo $$ > {tmp_path}/child; sleep 60'"
    stubborn = program(f"trap '' TERM; echo $$ > {tmp_path}/parent; {child} & wait; wait")

    await detail_of_retry(stubborn, timeout=timedelta(seconds=0.5), grace=timedelta(seconds=0.3))

    pids = [await pid_in(tmp_path / name) for name in ("parent", "child")]
    await eventually(lambda: not any(map(is_running, pids)), describe="the end of both")


async def test_what_a_program_leaves_running_is_killed_and_nobody_waits_for_it(
    program: Program, tmp_path: Path
) -> None:
    leaving = program(f"sleep 60 & echo $! > {tmp_path}/child; echo '{{}}'")

    async with asyncio.timeout(10):
        assert isinstance(await provisioned(leaving), Done)

    pid = await pid_in(tmp_path / "child")
    await eventually(lambda: not is_running(pid), describe="its end")


async def test_whoever_leaves_its_group_is_not_waited_for_either(program: Program, tmp_path: Path) -> None:
    fleeing = program(f"setsid sleep 60 & echo $! > {tmp_path}/child; sleep 0.3; echo '{{}}'")

    async with asyncio.timeout(10):
        assert isinstance(await provisioned(fleeing), Done)

    os.kill(await pid_in(tmp_path / "child"), signal.SIGKILL)


async def test_a_step_that_is_cancelled_leaves_nothing_running(program: Program, tmp_path: Path) -> None:
    script = program(f"trap 'echo asked > {tmp_path}/asked; exit 1' TERM; echo $$ > {tmp_path}/pid; sleep 60 & wait")
    step = asyncio.create_task(provisioned(script))
    pid = await pid_in(tmp_path / "pid")

    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step

    assert not is_running(pid)
    assert (tmp_path / "asked").exists()


async def test_a_step_that_is_cancelled_while_it_begins_leaves_nothing_running(
    program: Program, tmp_path: Path
) -> None:
    script = program(f"sleep 60 & echo $! >> {tmp_path}/children; wait")
    for pause in range(30):
        step = asyncio.create_task(provisioned(script))
        await asyncio.sleep(pause / 2000)
        step.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await step

    children = (tmp_path / "children").read_text().split()
    assert children
    await eventually(lambda: not any(map(is_running, map(int, children))), describe="the end of all")


async def test_a_step_that_is_cancelled_twice_waits_for_nobody(program: Program, tmp_path: Path) -> None:
    script = program(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done")
    step = asyncio.create_task(provisioned(script))
    pid = await pid_in(tmp_path / "pid")

    step.cancel()
    await asyncio.sleep(0.1)
    step.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await step

    await eventually(lambda: not is_running(pid), describe="its end")


async def test_it_ends_by_itself_before_it_would_be_cancelled(program: Program) -> None:
    script = driver(program("true"), timeout=timedelta(minutes=2), at_once=3)

    capacity = script.capacity("silo")
    assert (capacity.batch, capacity.at_once) == (1, 3)
    assert capacity.step > timedelta(minutes=2, seconds=10)


# Where it works


async def test_without_a_folder_each_run_has_a_private_one_that_goes(program: Program, tmp_path: Path) -> None:
    script = program(f"pwd >> {tmp_path}/where; stat -c %a . >> {tmp_path}/mode; touch left; echo '{{}}'")

    await provisioned(script)
    await provisioned(script)

    first, second = map(Path, (tmp_path / "where").read_text().splitlines())
    assert first != second
    assert not first.exists()
    assert not second.exists()
    assert (tmp_path / "mode").read_text() == "700\n700\n"


async def test_with_one_what_a_run_leaves_is_there_for_the_next_until_all_is_removed(
    program: Program, tmp_path: Path
) -> None:
    script = driver(program("echo run >> state; echo '{}'"), folder=tmp_path / "work")
    task = Task(environment=ACME)
    state = tmp_path / "work" / str(ENVIRONMENT_ID) / "state"

    await script.provision([task])
    await script.deploy([task])
    assert state.read_text() == "run\nrun\n"
    assert state.parent.stat().st_mode & 0o777 == 0o700

    await driver(program("exit 75"), folder=tmp_path / "work").deprovision([task])
    assert state.exists()
    await driver(program("echo '{}'"), folder=tmp_path / "work").deprovision([task])
    assert list((tmp_path / "work").iterdir()) == []


async def test_two_runs_are_never_in_one_folder(program: Program, tmp_path: Path) -> None:
    script = driver(program(f"echo $$ > {tmp_path}/pid; sleep 0.5; echo '{{}}'"), folder=tmp_path / "work")
    first = asyncio.create_task(_one(script))
    await pid_in(tmp_path / "pid")

    second = await _one(script)

    assert second == Retry(detail="An earlier run for this environment has not ended yet.")
    assert isinstance(await first, Done)
    assert isinstance(await _one(script), Done)


@contextmanager
def without_killing() -> Iterator[None]:
    """Let nobody be killed, as if our process had not lived to do it."""
    with patch.object(os, "killpg"):
        yield


async def _one(script: ScriptDriver) -> Outcome:
    (outcome,) = await script.provision([Task(environment=ACME)])
    return outcome


async def test_a_run_that_has_outlived_our_process_keeps_its_folder(program: Program, tmp_path: Path) -> None:
    script = driver(program(f"sleep 60 & echo $! > {tmp_path}/child; echo '{{}}'"), folder=tmp_path / "work")
    with without_killing():
        assert isinstance(await _one(script), Done)
    child = await pid_in(tmp_path / "child")

    assert isinstance(await _one(script), Retry)

    os.kill(child, signal.SIGKILL)
    await eventually(lambda: not is_running(child), describe="its end")
    assert isinstance(await _one(script), Done)


# Looking


async def test_who_looks_tells_what_there_is(program: Program) -> None:
    found = {"exists": True, "isThrottled": True, "isolation": "silo", "products": {"notes": "1"}, "detail": {"a": 1}}
    script = driver(program(f"echo '{json.dumps(found)}'"))

    assert await script.inspect([ACME]) == [
        Inspection(exists=True, is_throttled=True, isolation="silo", products={"notes": "1"}, detail={"a": 1})
    ]


@pytest.mark.parametrize("text", ["exit 1", "exit 64", "echo '{}'", "echo nothing", """echo '{"exists": "yes"}'"""])
async def test_who_cannot_look_says_so(program: Program, text: str) -> None:
    with pytest.raises(ScriptFailedError):
        await driver(program(text)).inspect([ACME])


async def test_who_looks_does_so_where_the_others_work_but_makes_no_folder(program: Program, tmp_path: Path) -> None:
    place = tmp_path / "w" / str(ENVIRONMENT_ID)

    await driver(program("""echo '{"exists": false}'"""), folder=tmp_path / "w").inspect([ACME])
    assert not place.exists()

    await driver(program("echo x > state; echo '{}'"), folder=tmp_path / "w").provision([Task(environment=ACME)])
    script = driver(program("""[ -e state ] && echo '{"exists": true}'"""), folder=tmp_path / "w")
    (found,) = await script.inspect([ACME])
    assert found.exists


# Which program it may be


def test_a_program_that_is_not_there_or_cannot_be_run_is_told_at_once(program: Program, tmp_path: Path) -> None:
    with pytest.raises(UnusableScriptError, match="absolute"):
        driver(Path("program"))
    with pytest.raises(UnusableScriptError, match="no file"):
        driver(tmp_path / "absent")
    with pytest.raises(UnusableScriptError, match="no file"):
        driver(tmp_path)
    path = program("true")
    path.chmod(0o644)
    with pytest.raises(UnusableScriptError, match=r"chmod \+x"):
        driver(path)


def test_a_program_that_everybody_can_change_is_none(program: Program, tmp_path: Path) -> None:
    path = program("true")
    path.chmod(0o757)
    with pytest.raises(UnusableScriptError, match="chmod o-w"):
        driver(path)

    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(UnusableScriptError, match="chmod o-w"):
        driver(link)

    path.chmod(0o755)
    tmp_path.chmod(0o777)
    with pytest.raises(UnusableScriptError, match="folder"):
        driver(path)
    safe = tmp_path / "safe"
    safe.mkdir(mode=0o755)
    (safe / "link").symlink_to(path)
    with pytest.raises(UnusableScriptError, match="folder"):
        driver(safe / "link")
    tmp_path.chmod(0o1777)
    driver(path)


async def test_a_file_that_is_no_program_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"\x00\x01")
    path.chmod(0o755)

    assert (await detail_of_retry(path)).startswith("The program cannot be run: ")
