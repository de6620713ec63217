"""Each check, shown a service with the one fault that it is there for."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import JSONResponse, PlainTextResponse, Response

from shared.http import HttpServer, Problem, create_api, everybody
from shared.testing import eventually
from tests.openapi.runs import Run
from tests.openapi.senders import senders


class Thing(BaseModel):
    size: int


FAULTS = {
    "undeclared": "status_code_conformance",
    "crash": "nothing_is_away",
    "unavailable": "nothing_is_away",
    "impatient": "response_headers_conformance",
    "misshapen": "response_schema_conformance",
    "mislabelled": "content_type_conformance",
    "bare": "errors_are_problems",
    "talkative": "errors_are_problems",
    "lenient": "negative_data_rejection",
}


def statuses() -> APIRouter:
    router = APIRouter(dependencies=[everybody()])

    @router.get("/v1/sound")
    async def sound(_: Annotated[int, Query(alias="limit", ge=1)] = 1) -> Thing:
        return Thing(size=1)

    @router.get("/v1/undeclared")
    async def undeclared() -> Thing:
        raise Problem(418, code="teapot", detail="No document knows this.")

    @router.get("/v1/crash")
    async def crash() -> Thing:
        return Thing(size=1 // 0)

    @router.get("/v1/unavailable")
    async def unavailable() -> Thing:
        raise Problem(503, code="unavailable", detail="It should not be.", headers={"Retry-After": "1"})

    @router.get("/v1/impatient")
    async def impatient() -> Thing:
        raise Problem(503, code="overloaded", detail="It does not say until when.")

    return router


def contents() -> APIRouter:
    router = APIRouter(dependencies=[everybody()])

    @router.get("/v1/misshapen", response_model=Thing)
    async def misshapen() -> Response:
        return JSONResponse({"size": "large"})

    @router.get("/v1/mislabelled", response_model=Thing)
    async def mislabelled() -> Response:
        return PlainTextResponse("1")

    @router.get("/v1/bare", response_model=Thing)
    async def bare() -> Response:
        return PlainTextResponse("No.", 400)

    @router.get("/v1/talkative")
    async def talkative() -> Thing:
        raise Problem(400, code="mistaken", detail="Traceback (most recent call last): and so on")

    @router.get("/v1/lenient")
    async def lenient(_: Annotated[str, Query(alias="limit", json_schema_extra={"type": "integer"})] = "1") -> Thing:
        return Thing(size=1)

    return router


@asynccontextmanager
async def serving() -> AsyncIterator[Run]:
    """Serve the faults and yield what is to be sent."""
    api = create_api("faults", routers=[statuses(), contents()], admin_key="a-key", checks={}, version="1")
    server = HttpServer(api, host="127.0.0.1", port=0)
    serve = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Run(
            service="faults", identity="nobody", document=api.openapi(), origin=f"http://127.0.0.1:{port}",
            authorization=None, phases=("coverage", "fuzzing"), cases=5, seed=1,
        )  # fmt: skip
    finally:
        server.should_exit = True
        await serve


@pytest.mark.timeout(300)
async def test_each_check_finds_its_fault_and_nothing_is_found_where_there_is_none() -> None:
    async with serving() as run, senders(1) as (sender,):
        outcome = await sender.carry_out(run)
    found: dict[str, set[str]] = defaultdict(set)
    for finding in outcome.findings:
        found[finding.operation.removeprefix("GET /v1/")].add(finding.check)

    assert found.keys() == FAULTS.keys()
    assert {fault: check in found[fault] for fault, check in FAULTS.items()} == dict.fromkeys(FAULTS, True)
    assert outcome.statuses["GET /v1/sound"][200] > 0
