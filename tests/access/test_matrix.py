"""Every route x everybody x one's own, another's and nobody's: what is answered is what the route's rule says."""

import sys
from collections import defaultdict
from collections.abc import Sequence

import httpx2
import pytest

from shared.http.authorization import Everybody
from shared.testing import eventually
from tests.access.cast import Cast
from tests.access.cells import AIMS, FURTHER_RULES, SELF_JUDGED, SIGNED, Answer, Cell, was_reached
from tests.access.matrix import heard, leaks
from tests.access.routes import MissingExampleError, Route, kinds_of, routes_of
from tests.access.rows import changes, quiet_rows
from tests.system import System

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

MOST_SHOWN = 40

UNREACHED = {
    "POST /oauth/authorize": "its form needs a cookie",
    "POST /oauth/token": "what it takes is good once",
    "POST /v1/invitations/accept": "what it takes is good once",
    "POST /oauth/authorize/organisation": "its form needs a cookie",
    "GET /oauth/callback/{tenant_id}": "it needs a cookie of who has set out",
    "PUT /v1/identity-providers/{tenant_id}": "the issuer has to answer",
    "POST /v1/driver-callbacks/{key}": "what it takes is signed",
    "POST /v1/payment-webhooks/stripe": "what it takes is signed",
}
"""Routes to which an example is not good enough; why each is tested elsewhere."""


@pytest.fixture(scope="module")
def answers() -> dict[Cell, Answer]:
    """Filled by the first test, which the others look at."""
    return {}


async def test_an_example_is_known_of_everything_that_routes_take(system: System) -> None:
    missing = []
    for route in routes_of(system.services.values()):
        try:
            kinds_of(route)
        except MissingExampleError as error:
            missing.append(str(error))

    assert not missing, "\n".join(missing)


async def test_everybody_gets_what_the_rule_says_and_nobody_learns_of_another_tenant(
    cast: Cast, answers: dict[Cell, Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    others_marks = cast.marks[cast.b.id]
    before = await quiet_rows(cast.system.audited, others_marks)

    answers.update(
        await heard(cast.client, cast.routes, cast.credentials, owners=cast.owners, throwaway=cast.throwaway)
    )

    await eventually(lambda: nothing_is_under_way(cast.system), within=60, describe="the end of all workflows")
    after = await quiet_rows(cast.system.audited, others_marks)
    found = leaks(cast.judge, answers)
    size = f"{len(cast.routes)} routes x {len(cast.credentials)} credentials: {len(answers)} cells"
    with capsys.disabled():
        sys.stdout.write(f"\n{size}, {len(found)} leaks\n")
    assert not found, shown(found)
    assert len(answers) == len(cast.routes) * len(cast.credentials) * len(AIMS)
    assert changes(before, after) == [], "\n".join(changes(before, after))


async def test_no_route_is_missing(cast: Cast) -> None:
    document = (await cast.system.client.get("/openapi.json")).json()
    published = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}

    missing = published - {route.name for route in cast.routes}

    assert not {each for each in missing if each.split("/")[1] in {"v1", "oauth", ".well-known"}}
    assert {route.service for route in cast.routes} == set(cast.system.services)


async def test_each_route_was_asked_for_something_that_is_there(answers: dict[Cell, Answer]) -> None:
    by_route: dict[Route, dict[Cell, Answer]] = defaultdict(dict)
    for cell, answer in answers.items():
        if cell.aim == "own":
            by_route[cell.route][cell] = answer

    assert [
        each.name for each, of in by_route.items() if not was_reached(each, of) and each.name not in UNREACHED
    ] == []


async def test_each_kind_of_credential_is_let_in_somewhere_or_nowhere(cast: Cast, answers: dict[Cell, Answer]) -> None:
    let_in = {
        cell.credential
        for cell, answer in answers.items()
        if not isinstance(cell.route.rule, Everybody) and answer.status < httpx2.codes.BAD_REQUEST
    }

    assert let_in == {each for each in cast.credentials if each.is_good}


async def test_no_exception_is_for_a_route_that_is_gone(cast: Cast) -> None:
    names = {route.name for route in cast.routes}

    assert {*FURTHER_RULES, *UNREACHED} <= names
    assert {*SELF_JUDGED, *SIGNED} <= {route.path for route in cast.routes}


async def nothing_is_under_way(system: System) -> bool:
    running = [await system.items("/v1/workflows", status=status) for status in ("running", "compensating")]
    return not any(running)


def shown(found: Sequence[str]) -> str:
    return "\n".join([f"{len(found)} leaks:", *found[:MOST_SHOWN]])
