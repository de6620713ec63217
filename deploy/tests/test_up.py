import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from deploy.local import processes
from deploy.local.children import _PASSED_ON
from deploy.local.installation import onboarding_command, wanted_port
from deploy.local.ports import PortTakenError
from deploy.local.secrets import load_or_create
from deploy.local.system import SERVICES
from deploy.tests.conftest import OF_THE_OPERATOR, ROOT, Up, environment_of
from shared.testing import eventually

pytestmark = pytest.mark.broker

NO_DATABASE = "postgresql://somebody:secret@127.0.0.1:1/nothing"


@pytest.fixture
async def client(installation: Up) -> AsyncIterator[httpx2.AsyncClient]:
    key = (installation.folder / "admin-key").read_text()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=installation.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def runs(folder: Path) -> Iterator[list[Up]]:
    """Further runs that a test starts; ended with it."""
    runs: list[Up] = []
    yield runs
    for up in runs:
        up.remove()


def test_it_says_where_everything_is(installation: Up) -> None:
    output = installation.output
    for part in ("Postgres", "Schemas", "RabbitMQ", "Services", f"{installation.url}/docs", "tenure.status"):
        assert part in output
    assert output.count("RabbitMQ") == 2  # the line while it boots and the line when it is there


def test_the_key_is_printed_at_the_first_start_and_kept_for_its_owner_alone(installation: Up) -> None:
    key_file = installation.folder / "admin-key"
    assert key_file.read_text() == load_or_create(installation.folder).admin_key
    assert key_file.read_text() in installation.output
    assert key_file.stat().st_mode & 0o777 == 0o600


async def test_the_printed_command_works_as_pasted(installation: Up, client: httpx2.AsyncClient) -> None:
    command = installation.output.partition("Onboard a tenant:\n")[2].partition("\n\nCtrl-C")[0]
    shell = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE, cwd="/")
    answer, _ = await shell.communicate()
    ended = await client.get(json.loads(answer)["links"]["self"], params={"wait": 20})
    assert ended.json()["status"] == "completed"
    assert ended.json()["customerName"].startswith("Café Zürich")


def test_the_command_survives_a_folder_with_a_blank_and_a_key_from_the_environment() -> None:
    assert "$(cat '/a b/admin-key')" in onboarding_command("http://x", Path("/a b/admin-key"))
    assert "Bearer $TENURE_ADMIN_KEY" in onboarding_command("http://x", None)


def test_each_process_is_told_its_own_logins_and_nothing_else(installation: Up) -> None:
    secrets = load_or_create(installation.folder)
    passwords = {service: (secrets.databases[service].app, secrets.broker[service]) for service in SERVICES}
    owners = [each.owner for name, each in secrets.databases.items() if name != "application"]
    for service, pid in children(installation).items():
        told = Path(f"/proc/{pid}/environ").read_text()
        assert all(password in told for password in passwords[service])
        others = [password for other in SERVICES if other != service for password in passwords[other]]
        assert not [password for password in (*others, *owners, secrets.broker_deploy) if password in told]
        assert ("TENURE_APPLICATION_DATABASE_URL" in told) == (service == "provisioning")
        assert "TENURE_DATA_DIR" not in told


def test_only_services_that_ask_amazon_are_told_how(installation: Up) -> None:
    told = {service for service, pid in children(installation).items() if "AWS_PROFILE" in environment_in(pid)}
    assert told == {"identity", "metrics", "provisioning"}


def test_the_data_lake_is_beside_the_data(installation: Up) -> None:
    told = {service: environment_in(pid).get("TENURE_METRICS_LAKE") for service, pid in children(installation).items()}
    assert told == dict.fromkeys(SERVICES) | {"metrics": str(installation.folder / "lake")}


def test_of_an_operators_other_variables_only_those_for_scripts_reach_the_service_that_runs_scripts(
    installation: Up,
) -> None:
    told = {
        service: {name for name, value in environment_in(pid).items() if OF_THE_OPERATOR.get(name) == value}
        for service, pid in children(installation).items()
    }
    own = {"AWS_PROFILE", "TENURE_PROVISIONING_SCRIPT_PASS", "TF_PLUGIN_CACHE_DIR", "KUBECONFIG"}
    assert told.pop("provisioning") == own
    assert all(names <= {"AWS_PROFILE"} for names in told.values()), told


def test_every_common_setting_of_a_service_reaches_its_process() -> None:
    for service, (_, settings) in SERVICES.items():
        aliases = [alias for field in settings.model_fields.values() for alias in names_of(field.validation_alias)]
        common = {alias for alias in aliases if not alias.endswith(("_URL", "_KEY")) or "GATEWAY" in alias}
        assert common <= set(_PASSED_ON), service


async def test_a_process_that_dies_is_answered_for_and_started_again(
    installation: Up, client: httpx2.AsyncClient
) -> None:
    pid = children(installation)["billing"]
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not processes.is_alive(pid))
    away = await client.get("/v1/plans")
    assert (away.status_code, away.headers["Retry-After"]) == (503, "1")
    assert away.headers["Content-Type"] == "application/problem+json"
    assert "billing" in away.json()["detail"]
    assert "billing" in (await client.get("/readyz")).json()["detail"]
    assert (await client.get("/v1/tiers")).is_success

    await eventually(lambda: is_ready(client), within=30, describe=lambda: installation.output)
    assert (await client.get("/v1/plans")).is_success
    told = [line for line in installation.output.splitlines() if "SIGKILL" in line]
    assert len(told) == 1
    assert told[0].startswith("billing ")


async def test_events_come_through_the_origin_as_they_happen(client: httpx2.AsyncClient) -> None:
    accepted = await client.post("/v1/onboardings", json={"customerName": "Streamed", "adminEmails": ["a@b.example"]})
    tenant_id = accepted.json()["tenantId"]
    kinds: list[str] = []
    async with asyncio.timeout(20), client.stream("GET", "/v1/events", params={"tenantId": tenant_id}) as events:
        async for line in events.aiter_lines():  # a stream that never ends: whoever buffers it, delivers nothing
            kinds += [line.removeprefix("event: ")] if line.startswith("event: ") else []
            if "completed" in kinds:
                break
    assert kinds[0] == "started"


async def test_one_origin_describes_all_services(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/v1/onboardings", "/v1/tenants", "/v1/users", "/v1/plans", "/v1/quotas", "/v1/environments"} <= set(paths)
    assert set((await client.get("/readyz")).json()["checks"]) == set(SERVICES)


async def test_a_body_that_is_too_large_is_refused_before_a_service_sees_it(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/onboardings", content=b"x" * (1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_second_run_on_the_same_data_is_told_how_to_stand_beside_it(installation: Up) -> None:
    outcome = up_that_fails(installation.folder, TENURE_PORT="8080")
    assert f"is in use by process {installation.process.pid}" in outcome
    assert f"TENURE_DATA_DIR={installation.folder}-2 TENURE_PORT=" in outcome


def test_a_taken_port_is_named_with_its_holder_and_a_free_one(installation: Up, folder: Path) -> None:
    outcome = up_that_fails(folder / "data", TENURE_PORT=str(installation.port))
    assert f"Port {installation.port} is in use by process {installation.process.pid}" in outcome
    assert "make up" in outcome


@pytest.mark.parametrize("port", ["80x", "0", "65536", "-1", "9" * 5000])
def test_a_port_that_is_none_is_named(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_PORT", port)
    with pytest.raises(PortTakenError, match=f"TENURE_PORT is '{port}'"):
        wanted_port()


def test_a_data_folder_that_cannot_be_used_is_named(folder: Path) -> None:
    (folder / "file").touch()
    outcome = up_that_fails(folder / "file")
    assert f"{folder / 'file'} cannot be used" in outcome
    assert "TENURE_DATA_DIR=" in outcome


def test_a_given_broker_that_is_away_is_named_without_its_password(folder: Path) -> None:
    outcome = up_that_fails(folder / "data", TENURE_AMQP_URL="amqp://guest:secret@127.0.0.1:1/")
    assert "TENURE_AMQP_URL names 127.0.0.1:1" in outcome
    assert "secret" not in outcome


def test_given_databases_that_are_away_are_named_without_their_passwords(folder: Path) -> None:
    given = {f"TENURE_{name.upper()}_DATABASE_URL": NO_DATABASE for name in (*SERVICES, "application")}
    outcome = up_that_fails(folder / "data", **given)
    assert "_DATABASE_URL names 127.0.0.1:1" in outcome
    assert "secret" not in outcome


def test_databases_given_in_part_are_named(folder: Path) -> None:
    outcome = up_that_fails(folder / "data", TENURE_BILLING_DATABASE_URL=NO_DATABASE)
    assert "TENURE_TENANT_DATABASE_URL" in outcome


def test_a_missing_broker_is_named_with_what_to_install(folder: Path) -> None:
    outcome = program_that_fails(
        "import shutil, sys; from deploy.local import rabbitmq;"
        "rabbitmq._installed_broker = lambda: None; shutil.which = lambda _: None;"
        "from deploy.local.installation import run_installation;"
        "sys.exit(run_installation(processes=False))",
        environment_of(folder / "data", TENURE_PORT="18080"),
    )
    assert "apt-get install --no-install-recommends rabbitmq-server" in outcome
    assert "docker run" in outcome


def test_an_old_python_is_named_with_what_to_type(folder: Path) -> None:
    outcome = program_that_fails(
        "import sys; sys.version_info = (3, 10, 4, 'final', 0);"
        "from deploy.local.up import main; sys.argv = ['up']; sys.exit(main())",
        environment_of(folder / "data"),
    )
    assert "Python 3.11 or newer" in outcome
    assert "make PYTHON=" in outcome


def test_ctrl_c_at_any_time_leaves_no_process_and_no_broken_data(folder: Path, runs: list[Up]) -> None:
    broken_off = started(runs, folder / "data")
    broken_off.wait_for("Starting Tenure")
    assert processes.wait_until(lambda: "beam.smp" in family_of(broken_off), seconds=20)
    assert broken_off.stop(signal.SIGINT) == 0
    assert "Traceback" not in broken_off.output
    assert "Interrupted" in broken_off.output

    complete = started(runs, folder / "data")
    complete.wait_for("Ctrl-C stops it.")
    complete.process.send_signal(signal.SIGINT)  # make hands a Ctrl-C of the terminal on, so it arrives twice
    assert complete.stop(signal.SIGINT) == 0
    assert "Traceback" not in complete.output


def started(runs: list[Up], folder: Path) -> Up:
    runs.append(Up(folder))
    return runs[-1]


def children(up: Up) -> dict[str, int]:
    """Return the process ids of the services by their names."""
    commands = {
        pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in processes.descendants(up.process.pid)
    }
    return {
        command[2].decode().removeprefix("services."): pid
        for pid, command in commands.items()
        if len(command) > 2 and command[2].startswith(b"services.")
    }


def environment_in(pid: int) -> dict[str, str]:
    """Return what a process was told, as the kernel knows it."""
    told = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
    return dict(line.split("=", 1) for line in told.split("\0") if line)


def family_of(up: Up) -> list[str]:
    return [processes.name_of(pid) for pid in processes.descendants(up.process.pid)]


def names_of(alias: object) -> list[str]:
    choices = getattr(alias, "choices", [alias])
    return [choice for choice in choices if isinstance(choice, str) and choice.startswith("TENURE_")]


async def is_ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/readyz")).is_success


def up_that_fails(folder: Path, **environment: str) -> str:
    return program_that_fails(
        "import sys; from deploy.local.up import main; sys.argv = ['up']; sys.exit(main())",
        environment_of(folder, **environment),
    )


def program_that_fails(program: str, environment: dict[str, str]) -> str:
    """Run a program that ends with exit code 1 and no traceback, and return what it says."""
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 1, outcome.stdout
    assert "Traceback" not in outcome.stdout
    return outcome.stdout
