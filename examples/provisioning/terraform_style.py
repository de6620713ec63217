#!/usr/bin/env python3
"""A program that makes environments for Tenure, in the style of Terraform: plan, apply, keep a state.

It needs nothing but Python. Its cloud is the folder that ``SAMPLE_CLOUD`` names, where an environment is three things:

    <isolation>/<tenant>/data/            what the tenant keeps
    <isolation>/<tenant>/access.json      whether it may work, and with how many connections
    <isolation>/<tenant>/products.json    what runs there

What a product has of its own is in ``<isolation>/<tenant>@<product>``; no tenant's id holds an ``@``.

The state, what has been made so far, is ``state/<environment>.json``. Every run compares what is to be with the state
and does what is missing, so it may be repeated, and may have been killed anywhere. docs/drivers.md says what a program
is asked and what it answers; put something real in the place of the class `Cloud`.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

Wanted = dict[str, Any]

TRY_AGAIN, CANNOT = 75, 65
OPERATIONS = ("provision", "deprovision", "move", "throttle", "deploy", "inspect")
ISOLATIONS = ("pool", "bridge", "silo")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
PRODUCT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Cloud:
    """Where environments are made."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def place(self, isolation: str, name: str) -> Path:
        """Return where an environment is."""
        return self.root / isolation / name

    def create(self, place: Path) -> None:
        """Make a place, if it is not there."""
        (place / "data").mkdir(parents=True, exist_ok=True)

    def set(self, place: Path, name: str, value: Wanted) -> None:
        """Let something about a place be so."""
        write(place / f"{name}.json", value)

    def get(self, place: Path, name: str) -> Wanted:
        """Return something about a place."""
        return read(place / f"{name}.json")

    def copy(self, source: Path, target: Path) -> None:
        """Let all that a tenant keeps be at the target, and nothing else."""
        shutil.rmtree(target / "data", ignore_errors=True)
        shutil.copytree(source / "data", target / "data")

    def digest(self, place: Path) -> tuple[int, str]:
        """Tell what a tenant keeps, as (how many, checksum)."""
        files = sorted(path for path in (place / "data").rglob("*") if path.is_file())
        told = [f"{path.relative_to(place)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
        return len(files), hashlib.sha256("\n".join(told).encode()).hexdigest()

    def destroy(self, place: Path) -> int:
        """Remove a place and return how many files a tenant had there."""
        count, _ = self.digest(place)
        shutil.rmtree(place, ignore_errors=True)
        return count


class State:
    """What has been made for an environment: written before it is made, and erased after it is gone."""

    def __init__(self, cloud: Cloud, environment: Wanted) -> None:
        self.path = cloud.root / "state" / f"{environment['environmentId']}.json"
        self.places = read(self.path)

    def record(self, isolation: str, status: str) -> None:
        """Write down what is made."""
        self.places[isolation] = status
        write(self.path, self.places)

    def erase(self, isolation: str) -> None:
        """Strike out what is gone."""
        self.places.pop(isolation, None)
        if self.places:
            write(self.path, self.places)
        else:
            self.path.unlink(missing_ok=True)


class Run:
    """One step for one environment."""

    def __init__(self, asked: Wanted) -> None:
        self.environment, self.target = asked["environment"], asked["target"]
        self.stage, self.notes = asked["stage"], asked["notes"]
        if not NAME.fullmatch(self.environment["tenantId"]):
            refuse("bad_tenant_id", "A tenant's id must be a name for a folder.")
        if self.environment["product"] is not None and not PRODUCT.fullmatch(self.environment["product"]):
            refuse("bad_product", "A product's name must be a name for a folder.")
        self.cloud = Cloud(os.environ["SAMPLE_CLOUD"])
        self.state = State(self.cloud, self.environment)

    def provision(self) -> Wanted:
        """Make an environment that can be used."""
        if self.environment["region"] == "nowhere":
            refuse("unknown_region", "There is no region nowhere.")
        self.make(self.environment)
        self.converge({**self.environment, "isThrottled": False})
        return {"resources": self.resources(self.environment)}

    def make(self, wanted: Wanted) -> None:
        """Make a place; a silo is only ordered by the first run, and is there when it is asked for again."""
        isolation = wanted["isolation"]
        if isolation not in self.state.places:
            self.state.record(isolation, "creating")
            if isolation == "silo":
                log("creating, ask again")
                sys.exit(TRY_AGAIN)
        self.cloud.create(self.at(wanted))
        self.state.record(isolation, "created")

    def converge(self, wanted: Wanted) -> None:
        """Let a place that is there be as it is to be, and nothing be anywhere else."""
        for isolation in ISOLATIONS:
            if isolation != wanted["isolation"]:
                self.destroy(isolation)
        self.cloud.set(self.at(wanted), "products", wanted["products"])
        self.set_access(wanted, is_open=not wanted["isThrottled"])

    def set_access(self, wanted: Wanted, *, is_open: bool) -> None:
        """Let the tenant work in a place, or not."""
        self.cloud.set(self.at(wanted), "access", {"open": is_open, "connections": wanted["connections"]})

    def deprovision(self) -> Wanted:
        """Remove whatever there is, and tell how much that was."""
        return {"result": {"files": sum(self.destroy(isolation) for isolation in ISOLATIONS)}}

    def destroy(self, isolation: str) -> int:
        """Remove one place, whether it is in the state or not."""
        count = self.cloud.destroy(self.cloud.place(isolation, name_of(self.environment)))
        if isolation in self.state.places:
            self.state.erase(isolation)
        return count

    def throttle(self) -> Wanted:
        """Open an environment, or close it."""
        self.set_access(self.environment, is_open=not self.environment["isThrottled"])
        return {"resources": self.resources(self.environment)}

    def deploy(self) -> Wanted:
        """Let exactly the products run that are named."""
        self.cloud.set(self.at(self.environment), "products", self.environment["products"])
        return {"resources": self.resources(self.environment)}

    def move(self) -> Wanted:
        """Let an environment be at its target, with all that is kept in it; in three steps."""
        source, target = self.environment, self.target
        if source["isolation"] == target["isolation"]:  # it is there already, or a move is given up
            self.converge(target)
            count, _ = self.cloud.digest(self.at(target))
            return {"resources": self.resources(target), "result": {"files": count}}
        if self.stage == "switch":
            return self.switch(source, target)
        self.make(target)
        self.set_access(target, is_open=False)
        self.cloud.copy(self.at(source), self.at(target))  # while the tenant works on
        count, _ = self.cloud.digest(self.at(target))
        return {"next": {"stage": "switch", "said": f"copied {count} files", "notes": {"copied": count}}}

    def switch(self, source: Wanted, target: Wanted) -> Wanted:
        """Let nobody work for a moment, carry what has changed, and compare; the target opens with the next step."""
        self.set_access(source, is_open=False)
        self.cloud.copy(self.at(source), self.at(target))
        if self.cloud.digest(self.at(source)) != self.cloud.digest(self.at(target)):
            self.set_access(source, is_open=not source["isThrottled"])
            log("the copy is not what was copied")
            sys.exit(TRY_AGAIN)
        step = {"stage": "clear", "said": "switched over", "hasSwitched": True}
        return {"resources": self.resources(target), "next": step}

    def inspect(self) -> Wanted:
        """Look at the cloud itself, not at the state."""
        found = [each for each in ISOLATIONS if self.cloud.place(each, name_of(self.environment)).exists()]
        if not found:
            return {"exists": False}
        isolation = self.environment["isolation"] if self.environment["isolation"] in found else found[0]
        place = self.cloud.place(isolation, name_of(self.environment))
        return {
            "exists": True,
            "isolation": isolation,
            "isThrottled": not self.cloud.get(place, "access").get("open", False),
            "products": self.cloud.get(place, "products"),
            "detail": {"places": found},
        }

    def at(self, wanted: Wanted) -> Path:
        """Return where an environment is, or is to be."""
        return self.cloud.place(wanted["isolation"], name_of(wanted))

    def resources(self, wanted: Wanted) -> Wanted:
        """Return what Tenure is to remember and to send with every question."""
        return {"place": str(self.at(wanted))}


def name_of(environment: Wanted) -> str:
    """Return what an environment goes by: a tenant has one of its own, and one for each product that has its own."""
    tenant, product = environment["tenantId"], environment["product"]
    return str(tenant) if product is None else f"{tenant}@{product}"


def read(path: Path) -> Wanted:
    """Return what is in a file; nothing where there is none."""
    try:
        found: Wanted = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def write(path: Path, value: Wanted) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value))
    draft.rename(path)


def refuse(code: str, detail: str) -> NoReturn:
    """Say that something cannot be done, now or later."""
    print(json.dumps({"code": code, "detail": detail}))
    sys.exit(CANNOT)


def log(text: str) -> None:
    """Say something to whoever reads the log; the last line is shown with a failure."""
    print(text, file=sys.stderr)


def main() -> None:
    """Read a question, and print the answer."""
    question = json.load(sys.stdin)
    if question["operation"] not in OPERATIONS:
        refuse("unknown_operation", f"There is no operation {question['operation']}.")
    print(json.dumps(getattr(Run(question), question["operation"])()))


if __name__ == "__main__":
    main()
