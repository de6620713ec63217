"""What a container of the running stack may do, and what it may not: seen from inside, not read from a file."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from shared.contracts import SERVICES
from tests.compose.stack import compose, containers, inspected, within

OURS = (*SERVICES, "origin", "gateway")
MEGABYTE = 1_000_000
MOST = {"billing": 90, "metrics": 95}
"""Of what draws invoices and asks Stripe, and of what writes Parquet: their libraries alone have 40 and 33 MB."""


def host(service: str) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = inspected(service)["HostConfig"]
    return settings


@pytest.mark.parametrize("service", OURS)
def test_it_is_nobody_and_can_write_nothing(service: str) -> None:
    assert within(service, "id -u").stdout.strip() not in {"", "0"}
    for path in ("/", "/app", "/etc", "/run/secrets", "/opt"):
        assert within(service, f"touch {path}/planted").returncode != 0, path
    assert within(service, "touch /tmp/planted && rm /tmp/planted").returncode == 0


@pytest.mark.parametrize("service", [*OURS, "postgres", "rabbitmq"])
def test_it_has_no_capability_that_it_does_not_need(service: str) -> None:
    settings = host(service)

    assert settings["CapDrop"] == ["ALL"]
    added = {each.removeprefix("CAP_") for each in settings["CapAdd"] or ()}  # as engines write it, or do not
    assert added <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert "no-new-privileges:true" in settings["SecurityOpt"]
    assert settings["RestartPolicy"]["Name"] == "unless-stopped"
    assert settings["Memory"] > 0
    assert settings["PidsLimit"] > 0
    if service in OURS:
        assert not settings["CapAdd"]
        assert settings["ReadonlyRootfs"]


def test_nothing_is_published_but_the_gateway_and_that_to_this_machine_alone() -> None:
    published = {
        (each["Service"], publisher["URL"])
        for each in containers()
        for publisher in each["Publishers"] or ()
        if publisher["PublishedPort"]
    }

    assert published == {("gateway", "127.0.0.1")}


@pytest.mark.parametrize("service", SERVICES)
def test_it_finds_its_own_logins_and_nobody_elses(service: str) -> None:
    files = within(service, "ls /run/secrets").stdout.split()

    own = {f"TENURE_{service.upper()}_DATABASE_URL", f"TENURE_{service.upper()}_AMQP_URL", "TENURE_ADMIN_KEY"}
    more = {"identity": {"TENURE_IDENTITY_ENCRYPTION_KEYS"}, "provisioning": {"TENURE_APPLICATION_DATABASE_URL"}}
    assert set(files) == own | more.get(service, set())
    shown = str(inspected(service)["Config"]["Env"])
    assert "postgresql://" not in shown
    assert "amqp://" not in shown


@pytest.mark.parametrize("service", SERVICES)
def test_its_login_opens_its_own_database_and_no_other(service: str) -> None:
    script = f"""
import asyncio, asyncpg, pathlib
url = pathlib.Path("/run/secrets/TENURE_{service.upper()}_DATABASE_URL").read_text()
async def main():
    await (await asyncpg.connect(url)).close()
    for name in {[*(f"tenure_{each}" for each in SERVICES if each != service), "postgres", "template1"]}:
        try:
            await asyncpg.connect(url.rpartition("/")[0] + "/" + name)
        except asyncpg.InsufficientPrivilegeError:
            continue
        print("opened", name)
asyncio.run(main())
"""
    command = ("docker", "compose", "exec", "--no-TTY", service, "python", "-c", script)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_its_image_holds_its_own_code_and_no_tools_to_build(service: str) -> None:
    assert within(service, "ls /app/services").stdout.split() == [service]
    for program in ("gcc", "cc", "make", "strip", "git"):
        assert within(service, f"command -v {program}").returncode != 0, program
    assert within(service, "find /app -name tests -o -name testing | head -1").stdout == ""


@pytest.mark.parametrize("service", SERVICES)
def test_its_image_is_small(service: str) -> None:
    image = _size(inspected(service)["Config"]["Image"])
    base = _size(
        json.loads(compose("config", "--format", "json"))["services"][service]["build"]["args"]["PYTHON_IMAGE"]
    )

    assert image - base < MOST.get(service, 60) * MEGABYTE, f"{(image - base) / MEGABYTE:.1f} MB over its base"


def _size(image: str) -> int:
    done = subprocess.run(("docker", "image", "inspect", image), capture_output=True, text=True, timeout=60, check=True)
    return int(json.loads(done.stdout)[0]["Size"])


def test_the_gateway_does_not_reach_the_servers() -> None:
    for server in ("postgres", "rabbitmq"):
        assert within("gateway", f"curl --max-time 3 {server}:5432").returncode == 6, server  # no such host


def test_the_compose_file_is_what_runs() -> None:
    assert {each["Service"] for each in containers()} >= {*OURS, "postgres", "rabbitmq", "secrets", "prepare"}
    assert {each["State"] for each in containers() if each["Service"] in {"secrets", "prepare"}} == {"exited"}
    compose("config", "--quiet")
