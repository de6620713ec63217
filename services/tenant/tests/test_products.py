"""Products and versions that are published, changed, retired and reinstated over HTTP."""

import asyncio
from typing import Any

import pytest

from services.tenant.tests.catalogue import Office, announced, revision
from shared.audit import Details
from shared.clock import ManualClock
from shared.contracts.tenant import CatalogProduct
from shared.postgres import Pool
from shared.testing.decisions import decided

CHESS = {"name": "chess", "description": "A game.\nFor two."}
FULL_CHESS = {
    **CHESS,
    "plan": "standard",
    "isolation": "silo",
    "driver": "script",
    "region": "eu-west-1",
    "parameters": {"size": "large", "boards": [8, 8]},
}
REST: dict[str, Any] = {"plan": None, "isolation": None, "driver": "postgres", "region": None, "parameters": {}}
"""What a product is of which nothing of this is said."""


async def told(pool: Pool) -> list[tuple[str, str, Details | None, Details | None]]:
    """Return what the audit trail was told."""
    assert {each.tenant_id for each in await decided(pool)} <= {"_"}
    return [(each.action, each.subject, each.before, each.after) for each in await decided(pool)]


async def offered(office: Office, product: str) -> list[str]:
    versions: list[str] = (await office.get(f"/v1/products/{product}")).json()["versions"]
    return versions


async def test_a_product_can_be_taken_as_soon_as_it_has_a_version(
    office: Office, pool: Pool, clock: ManualClock
) -> None:
    created = await office.post("/v1/products", CHESS)
    published = await office.post("/v1/products/chess/versions", {"version": "1.0"})

    when = clock.now().isoformat().replace("+00:00", "Z")
    assert (created.status_code, created.headers["Location"]) == (201, "/v1/products/chess")
    assert created.json() == {**CHESS, **REST, "versions": [], "createdAt": when, "retiredAt": None}
    assert (published.status_code, published.json()) == (201, {"version": "1.0", "createdAt": when, "retiredAt": None})
    assert await offered(office, "chess") == ["1.0"]
    notes = CatalogProduct(name="notes", versions=("1.0", "2.0"))
    assert [each.products for each in await announced(pool)] == [
        (notes,),
        (CatalogProduct(name="chess", versions=("1.0",)), notes),
    ]
    assert (await announced(pool))[-1].revision == await revision(pool)
    assert await told(pool) == [
        (
            "product.created",
            "product:chess",
            None,
            {"description": CHESS["description"], "driver": "postgres", "parameters": {}},
        ),
        ("product.version_published", "product:chess", None, {"version": "1.0"}),
    ]


async def test_a_product_is_created_with_all_that_can_be_said(office: Office, pool: Pool) -> None:
    answer = await office.post("/v1/products", FULL_CHESS)

    assert answer.status_code == 201
    assert answer.json() == FULL_CHESS | {"versions": [], "createdAt": answer.json()["createdAt"], "retiredAt": None}
    assert (await office.get("/v1/products/chess")).json() == answer.json()
    ((action, _, _, after),) = await told(pool)
    assert (action, after) == ("product.created", {name: FULL_CHESS[name] for name in FULL_CHESS.keys() - {"name"}})


async def test_whoever_asks_for_the_same_again_gets_it_and_nothing_is_told(office: Office, pool: Pool) -> None:
    asks: list[tuple[str, dict[str, Any]]] = [
        ("/v1/products", FULL_CHESS),
        ("/v1/products/chess/versions", {"version": "1.0"}),
    ]
    first = [(await office.post(*ask)).json() for ask in asks]
    before = await revision(pool)

    again = [await office.post(*ask) for ask in asks]

    assert [answer.status_code for answer in again] == [200, 200]
    assert again[1].json() == first[1]
    assert again[0].json() == first[0] | {"versions": ["1.0"]}
    assert (await revision(pool), len(await told(pool)), len(await announced(pool))) == (before, 2, 2)


@pytest.mark.parametrize("difference", [{"description": "Another one."}, {"plan": "free"}, {"parameters": {"a": 1}}])
async def test_another_product_of_the_same_name_is_refused(office: Office, difference: dict[str, Any]) -> None:
    notes = {"name": "notes", "description": (await office.get("/v1/products/notes")).json()["description"]}
    assert (await office.post("/v1/products", notes)).status_code == 200

    answer = await office.post("/v1/products", notes | difference)

    assert (answer.status_code, answer.json()["code"]) == (409, "product_exists")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/name"]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/products", {"name": "Chess", "description": "A game."}, "/name"),
        ("/v1/products", {"name": "chess"}, "/description"),
        ("/v1/products", {"name": "chess", "description": " "}, "/description"),
        ("/v1/products", {"name": "chess", "description": "x" * 2001}, "/description"),
        ("/v1/products", CHESS | {"versions": ["1.0"]}, "/versions"),
        ("/v1/products", CHESS | {"plan": "no plan"}, "/plan"),
        ("/v1/products", CHESS | {"isolation": "island"}, "/isolation"),
        ("/v1/products", CHESS | {"driver": "../script"}, "/driver"),
        ("/v1/products", CHESS | {"driver": None}, "/driver"),
        ("/v1/products", CHESS | {"region": "EU West"}, "/region"),
        ("/v1/products", CHESS | {"parameters": {"size": 1.5}}, "/parameters"),
        ("/v1/products", CHESS | {"parameters": {"text": "x" * 16_384}}, "/parameters"),
        ("/v1/products", CHESS | {"parameters": None}, "/parameters"),
        ("/v1/products/notes/versions", {"version": "3.0 beta"}, "/version"),
        ("/v1/products/notes/versions", {"version": 3}, "/version"),
        ("/v1/products/notes/versions", {}, "/version"),
    ],
)
async def test_a_bad_value_is_refused_by_the_name_of_its_field(
    office: Office, pool: Pool, path: str, body: dict[str, Any], pointer: str
) -> None:
    before = await revision(pool)

    answer = await office.post(path, body)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert await revision(pool) == before


async def test_a_product_is_described_in_other_words(office: Office, pool: Pool) -> None:
    found = await office.get("/v1/products/notes")

    changed = await office.patch("/v1/products/notes", {"description": "Notes."}, found.headers["ETag"])
    stale = await office.patch("/v1/products/notes", {"description": "Old notes."}, found.headers["ETag"])
    without = await office.patch("/v1/products/notes", {"description": "No notes."}, None)
    same = await office.patch("/v1/products/notes", {"description": "Notes."})
    empty = await office.patch("/v1/products/notes", {})
    null = await office.patch("/v1/products/notes", {"description": None})

    answers = (changed, stale, without, same, empty, null)
    assert [answer.status_code for answer in answers] == [200, 412, 428, 200, 200, 422]
    assert changed.json() == found.json() | {"description": "Notes."} == same.json() == empty.json()
    assert changed.headers["ETag"] == same.headers["ETag"] == empty.headers["ETag"] == '"2"'
    assert await told(pool) == [
        (
            "product.changed",
            "product:notes",
            {"description": found.json()["description"]},
            {"description": "Notes."},
        )
    ]
    assert len(await announced(pool)) == 1


async def test_what_a_change_does_not_name_stays(office: Office, pool: Pool) -> None:
    created = (await office.post("/v1/products", FULL_CHESS)).json()
    change: dict[str, Any] = {"isolation": None, "region": None, "parameters": {"size": "small"}}

    answer = await office.patch("/v1/products/chess", change, '"1"')

    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert answer.json() == created | change == (await office.get("/v1/products/chess")).json()
    assert (await told(pool))[-1] == (
        "product.changed",
        "product:chess",
        {"isolation": "silo", "region": "eu-west-1", "parameters": FULL_CHESS["parameters"]},
        {"parameters": {"size": "small"}},
    )
    assert [each.revision for each in await announced(pool)][-1] == await revision(pool)


@pytest.mark.parametrize(
    "body",
    [
        {"plan": "no plan"},
        {"isolation": "island"},
        {"driver": None},
        {"region": ""},
        {"parameters": {"n": 2**53}},
        {"name": "go"},
    ],
    ids=str,
)
async def test_a_change_to_a_bad_value_is_refused_by_the_name_of_its_field(
    office: Office, pool: Pool, body: dict[str, Any]
) -> None:
    answer = await office.patch("/v1/products/notes", body)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{name}" for name in body]
    assert await told(pool) == []


async def test_what_is_offered_of_a_product_is_part_of_its_edition(office: Office) -> None:
    etags = [(await office.get("/v1/products/notes")).headers["ETag"]]
    for path, body in (
        ("/v1/products/notes/versions", {"version": "3.0"}),
        ("/v1/products/notes/versions/1.0/retire", None),
        ("/v1/products/notes/versions/1.0/reinstate", None),
        ("/v1/products/notes/retire", None),
        ("/v1/products/notes/reinstate", None),
    ):
        assert (await office.post(path, body)).is_success
        etags.append((await office.get("/v1/products/notes")).headers["ETag"])

    assert etags == [f'"{number}"' for number in range(1, 7)]


async def test_a_retired_product_is_not_offered_until_it_is_reinstated(
    office: Office, pool: Pool, clock: ManualClock
) -> None:
    when = clock.now().isoformat()
    retired = await office.post("/v1/products/notes/retire")
    await clock.advance(60)
    again = await office.post("/v1/products/notes/retire")
    refused = [
        await office.patch("/v1/products/notes", {"description": "Notes."}),
        await office.post("/v1/products/notes/versions", {"version": "3.0"}),
        await office.post("/v1/products", {"name": "notes", "description": retired.json()["description"]}),
    ]
    reinstated = await office.post("/v1/products/notes/reinstate")
    once_more = await office.post("/v1/products/notes/reinstate")

    assert [answer.status_code for answer in (retired, again, reinstated, once_more)] == [200] * 4
    assert (retired.json()["versions"], reinstated.json()["versions"]) == ([], ["1.0", "2.0"])
    assert retired.json()["retiredAt"] == again.json()["retiredAt"] == when.replace("+00:00", "Z")
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [
        (409, "product_retired"),
        (409, "product_retired"),
        (409, "product_exists"),
    ]
    assert [len(each.products) for each in await announced(pool)] == [0, 1]
    assert await told(pool) == [
        ("product.retired", "product:notes", None, {"retiredAt": when}),
        ("product.reinstated", "product:notes", {"retiredAt": when}, None),
    ]


async def test_a_retired_version_is_not_offered_until_it_is_reinstated(
    office: Office, pool: Pool, clock: ManualClock
) -> None:
    when, version = clock.now().isoformat(), "/v1/products/notes/versions/1.0"
    retired = await office.post(f"{version}/retire")
    await clock.advance(60)
    again = await office.post(f"{version}/retire")
    refused = await office.post("/v1/products/notes/versions", {"version": "1.0"})
    left = await offered(office, "notes")
    reinstated = await office.post(f"{version}/reinstate")
    once_more = await office.post(f"{version}/reinstate")

    assert retired.json() == again.json()
    assert retired.json()["retiredAt"] == when.replace("+00:00", "Z")
    assert (refused.status_code, refused.json()["code"]) == (409, "version_retired")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/version"]
    assert (left, await offered(office, "notes")) == (["2.0"], ["1.0", "2.0"])
    assert reinstated.json() == once_more.json() == retired.json() | {"retiredAt": None}
    assert [each.products[0].versions for each in await announced(pool)] == [("2.0",), ("1.0", "2.0")]
    assert await told(pool) == [
        (
            "product.version_retired",
            "product:notes",
            {"version": "1.0"},
            {"version": "1.0", "retiredAt": when},
        ),
        (
            "product.version_reinstated",
            "product:notes",
            {"version": "1.0", "retiredAt": when},
            {"version": "1.0"},
        ),
    ]


async def test_what_is_not_there_cannot_be_changed(office: Office) -> None:
    unknown_product = [
        await office.patch("/v1/products/chess", {"description": "A game."}),
        *[
            await office.post(f"/v1/products/chess{path}", body)
            for path, body in (
                ("/retire", None),
                ("/reinstate", None),
                ("/versions", {"version": "1.0"}),
                ("/versions/1.0/retire", None),
                ("/versions/1.0/reinstate", None),
            )
        ],
    ]
    unknown_version = [
        await office.post(f"/v1/products/notes/versions/7.0/{action}") for action in ("retire", "reinstate")
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in unknown_product} == {(404, "unknown_product")}
    assert {(answer.status_code, answer.json()["code"]) for answer in unknown_version} == {(404, "unknown_version")}


async def test_of_many_who_publish_one_version_at_once_one_does(office: Office, pool: Pool) -> None:
    answers = await asyncio.gather(
        *(office.post("/v1/products/notes/versions", {"version": "3.0"}) for _ in range(5)),
        *(office.post("/v1/products/notes/versions", {"version": "4.0"}) for _ in range(3)),
    )

    assert sorted(answer.status_code for answer in answers) == [200] * 6 + [201] * 2
    assert len(await told(pool)) == 2
    assert (await announced(pool))[-1].revision == await revision(pool)
