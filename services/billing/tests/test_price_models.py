"""Price models as they are written, in bodies as in the database."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.billing.api.price_models import PriceModel
from services.billing.price_models import model_of

amounts = st.decimals(0, 10**15 - 1, places=12).map(lambda amount: f"{amount:f}")
sizes = st.decimals("0.000000000001", 10**6, places=12).map(lambda amount: f"{amount:f}")


@st.composite
def tiers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Make tiers with bounds that grow."""
    bounds = sorted(draw(st.sets(st.integers(1, 10**9), max_size=4)))
    return [
        {"upTo": bound and str(bound), "unitAmount": draw(amounts), "flatAmount": draw(amounts)}
        for bound in [*bounds, None]
    ]


prices = st.one_of(
    st.fixed_dictionaries({"model": st.just("flat"), "flatAmount": amounts}),
    st.fixed_dictionaries({"model": st.just("per_unit"), "unitAmount": amounts}),
    st.fixed_dictionaries(
        {"model": st.sampled_from(("graduated", "volume")), "tiers": tiers(), "flatOnZero": st.booleans()}
    ),
    st.fixed_dictionaries(
        {
            "model": st.just("package"),
            "package": st.fixed_dictionaries({"size": sizes, "amount": amounts, "free": amounts}),
        }
    ),
)


@settings(max_examples=200, deadline=None)
@given(price=prices)
def test_a_price_is_written_in_one_way_that_can_be_sent_again(price: dict[str, Any]) -> None:
    """So that asking again for what was shown is asking for the very same."""
    body = PriceModel.model_validate(price)
    written = body.written()

    again = PriceModel.model_validate(written)

    assert list(body.misfits()) == []
    assert again == body
    assert again.written() == written
    assert model_of(written) == model_of(price)


def test_what_no_code_knows_is_not_taken_for_something_else() -> None:
    with pytest.raises(ValueError, match="there is no price model 'percentage'"):
        model_of({"model": "percentage"})
