"""What both calculators refuse, by the name of the field; there is nothing that they cannot answer."""

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from services.billing.api.previews import PRICE_EXAMPLES, PRORATION_EXAMPLES
from services.billing.tests.support import all_routes
from shared.http import create_api
from shared.postgres import Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "a-key-of-the-administrator"
PRICE, PRORATION = "/v1/price-preview", "/v1/proration-preview"
NO_DATABASE = cast("Pool", None)
"""Nothing that is asked for here is looked up."""

Body = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    api = create_api("billing", routers=[all_routes(NO_DATABASE)], admin_key=KEY, checks={}, version="1")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://test", headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        yield client


def tiers(*each: tuple[str | None, str]) -> list[Body]:
    """Make tiers of bounds and unit amounts."""
    return [{"upTo": up_to, "unitAmount": unit_amount} for up_to, unit_amount in each]


PLAIN = {"currency": "USD", "quantity": "1"}
SOUND = PLAIN | {"model": "per_unit", "unitAmount": "1"}
IN_TIERS = PLAIN | {"model": "volume"}
IN_PACKAGES = PLAIN | {"model": "package"}


@pytest.mark.parametrize(
    "written",
    [
        *("1e5", "1E5", "+1", "-1", "-0", " 1 ", "1 ", "1\n", "1_000", "1,000", "1.", ".5", "", "0x1", "½"),
        *(
            "٣",
            "\N{FULLWIDTH DIGIT ONE}",
            "NaN",
            "Infinity",
            "-Infinity",
            "sNaN",
            "9" * 16,
            "9" * 5000,
            "0." + "1" * 13,
            "1.5.5",
        ),
        *(1, 1.5, 10**30, True, None, [], ["1"], {}),
    ],
)
@pytest.mark.parametrize("pointer", ["/quantity", "/unitAmount"])
async def test_a_number_that_is_not_written_plainly_is_refused(
    client: httpx2.AsyncClient, pointer: str, written: Any
) -> None:
    answer = await client.post(PRICE, json={**SOUND, pointer[1:]: written})

    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({**SOUND, "currency": "XXX"}, ["/currency"]),
        ({**SOUND, "currency": "XAU"}, ["/currency"]),
        ({**SOUND, "currency": "usd"}, ["/currency"]),
        ({**SOUND, "currency": "DEM"}, ["/currency"]),
        ({**SOUND, "model": "stairs"}, ["/model"]),
        ({**SOUND, "model": ["flat"]}, ["/model"]),
        ({**SOUND, "colour": "red"}, ["/colour"]),
        ({**SOUND, "minimum": "-1"}, ["/minimum"]),
        ({**SOUND, "alreadyBilled": "-1"}, ["/alreadyBilled"]),
        ({**SOUND, "taxRate": "15 %"}, ["/taxRate"]),
        ({**SOUND, "flatAmount": "1"}, ["/flatAmount"]),
        ({**SOUND, "flatOnZero": True}, ["/flatOnZero"]),
        ({**SOUND, "flatOnZero": "yes"}, ["/flatOnZero"]),
        ({**SOUND, "model": "flat"}, ["/flatAmount", "/unitAmount"]),
        ({**SOUND, "unitAmount": None}, ["/unitAmount"]),
        ({**PLAIN, "model": "per_unit"}, ["/unitAmount"]),
        (IN_PACKAGES, ["/package"]),
        ({**PLAIN, "model": "graduated"}, ["/tiers"]),
        (IN_TIERS, ["/tiers"]),
        ({"currency": "USD", "model": "flat", "flatAmount": "1"}, ["/quantity"]),
        ({**IN_PACKAGES, "package": {"size": "0", "amount": "1"}}, ["/package/size"]),
        ({**IN_PACKAGES, "package": {"size": "0.000", "amount": "1"}}, ["/package/size"]),
        ({**IN_TIERS, "tiers": []}, ["/tiers"]),
        ({**IN_TIERS, "tiers": tiers(*[(None, "1")] * 101)}, ["/tiers"]),
        ({**IN_TIERS, "tiers": tiers(("10", "1"))}, ["/tiers/0/upTo"]),
        ({**IN_TIERS, "tiers": tiers(("0", "1"), (None, "1"))}, ["/tiers/0/upTo"]),
        ({**IN_TIERS, "tiers": tiers((None, "1"), (None, "1"))}, ["/tiers/0/upTo"]),
        ({**IN_TIERS, "tiers": tiers(("10", "1"), ("10.0", "1"), (None, "1"))}, ["/tiers/1/upTo"]),
        ({**IN_TIERS, "tiers": tiers(("10", "1"), ("9", "1"), ("9.5", "1"))}, ["/tiers/1/upTo", "/tiers/2/upTo"]),
        ({**IN_TIERS, "tiers": [{"unitAmount": "1"}, *tiers((None, "1"))]}, ["/tiers/0/upTo"]),
        ({**IN_TIERS, "tiers": [{"upTo": None}]}, ["/tiers/0/unitAmount"]),
        ({**IN_TIERS, "tiers": tiers((None, "-1"))}, ["/tiers/0/unitAmount"]),
    ],
)
async def test_a_price_that_cannot_be_is_refused_by_every_field(
    client: httpx2.AsyncClient, body: Body, pointers: list[str]
) -> None:
    answer = await client.post(PRICE, json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers


MAY = PRORATION_EXAMPLES["by day"]["value"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"changeAt": "2026-06-01"}, "/changeAt"),
        ({"changeAt": "2026-04-30T23:59:59.999999Z"}, "/changeAt"),
        ({"changeAt": "2026-05-32"}, "/changeAt"),
        ({"changeAt": "2026-05-11T24:00:00Z"}, "/changeAt"),
        ({"changeAt": "2026-05-11T10:00:00"}, "/changeAt"),
        ({"changeAt": "yesterday"}, "/changeAt"),
        ({"changeAt": 1_800_000_000}, "/changeAt"),
        ({"changeAt": None}, "/changeAt"),
        ({"periodEnd": "2026-05-01"}, "/periodEnd"),
        ({"periodEnd": "2026-04-01"}, "/periodEnd"),
        ({"periodEnd": "2026-05-01", "mode": "second"}, "/periodEnd"),
        ({"periodEnd": "2026-04-01", "mode": "second"}, "/periodEnd"),
        ({"periodEnd": "2026-05-01T23:00:00Z", "changeAt": "2026-05-01"}, "/periodEnd"),  # no day ends in it
        ({"periodStart": "0001-01-01"}, "/periodStart"),
        ({"periodStart": "0001-01-01T00:00:00+14:00"}, "/periodStart"),
        ({"periodEnd": "9999-12-31", "timeZone": "America/New_York"}, "/periodEnd"),
        ({"periodEnd": "9999-12-31T23:59:59-14:00"}, "/periodEnd"),
        ({"timeZone": "Mars/Olympus"}, "/timeZone"),
        ({"timeZone": "europe/berlin"}, "/timeZone"),
        ({"timeZone": "Europe"}, "/timeZone"),  # a directory of them
        ({"timeZone": "../../etc/passwd"}, "/timeZone"),
        ({"timeZone": "/etc/localtime"}, "/timeZone"),
        ({"timeZone": ""}, "/timeZone"),
        ({"timeZone": "x" * 100_000}, "/timeZone"),
        ({"timeZone": None}, "/timeZone"),
        ({"mode": "hour"}, "/mode"),
        ({"currency": "XXX"}, "/currency"),
        ({"fromAmount": "-0"}, "/fromAmount"),
        ({"toAmount": "1e3"}, "/toAmount"),
        ({"toAmount": 1}, "/toAmount"),
        ({"rounding": "up"}, "/rounding"),
    ],
)
async def test_a_change_that_cannot_be_is_refused_by_its_field(
    client: httpx2.AsyncClient, change: Body, pointer: str
) -> None:
    answer = await client.post(PRORATION, json={**MAY, **change})

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_what_is_less_than_a_day_is_previewed_by_second(client: httpx2.AsyncClient) -> None:
    hours = {
        name: f"2026-05-01T{hour}:00:00Z" for name, hour in (("periodStart", 10), ("changeAt", 13), ("periodEnd", 14))
    }

    by_day = await client.post(PRORATION, json=MAY | hours)
    by_second = await client.post(PRORATION, json=MAY | hours | {"mode": "second"})

    assert (by_day.status_code, by_day.json()["errors"][0]["pointer"]) == (422, "/periodEnd")
    assert by_second.json() == {"credit": "5.00", "charge": "10.00", "net": "5.00"}


ODD_TEXT = st.one_of(
    st.sampled_from(["0", "1", "10", "0.000000000001", "9" * 15, "9" * 15 + "." + "9" * 12, "1e5", "٣", "-0", "NaN"]),
    st.sampled_from(["USD", "XXX", "flat", "volume", "graduated", "day", "second", "UTC", "Africa/Cairo", "Europe"]),
    st.sampled_from(["2026-03-01", "2999-12-31", "1900-01-01", "2026-03-01T00:00:00+23:59", "9999-12-31T23:59:59Z"]),
    st.text(max_size=8),
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["upTo", "unitAmount", "size"]), inner),
    max_leaves=6,
)


@st.composite
def odd_requests(draw: st.DrawFn) -> tuple[str, Body]:
    """Draw requests that are sound but for some fields, each of which may be anything."""
    path, sound = draw(
        st.sampled_from(
            [
                *((PRICE, {"minimum": "1", "taxRate": "1"} | each["value"]) for each in PRICE_EXAMPLES.values()),
                *((PRORATION, {"mode": "day"} | each["value"]) for each in PRORATION_EXAMPLES.values()),
            ]
        )
    )
    changed = draw(st.dictionaries(st.sampled_from(sorted(sound)), ODD_TEXT | ODD, max_size=3))
    return path, {**sound, **changed}


@given(request=odd_requests())
@settings(max_examples=300, deadline=None)
async def test_whatever_is_sent_is_calculated_or_refused(client: httpx2.AsyncClient, request: tuple[str, Body]) -> None:
    path, body = request

    answer = await client.post(path, json=body)

    assert answer.status_code in {200, 400, 422}, answer.text
    if answer.status_code == 400:  # NUL and the like, for which there is no JSON
        assert answer.json()["code"] == "malformed_json"
    if answer.status_code == 422:
        assert all(error["pointer"] for error in answer.json()["errors"])
