"""What an API key looks like, and what does not look like one."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.access import api_keys
from shared.access.api_keys import ApiKey

KEY = api_keys.new_key(api_keys.new_id())


def test_a_key_has_a_prefix_that_scanners_know_its_id_and_a_checksum() -> None:
    assert re.fullmatch(rf"tenure_{KEY.id}_[0-9a-z]{{57}}", KEY.text)
    assert re.fullmatch("[0-9a-z]{16}", KEY.id)


def test_a_key_is_read_back() -> None:
    assert api_keys.parse(KEY.text) == KEY


def test_no_two_are_alike() -> None:
    ids = [api_keys.new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert len({api_keys.new_key(ids[0]).text for _ in range(100)}) == 100


def test_only_its_hash_is_kept() -> None:
    assert KEY.digest == api_keys.digest(KEY.text) == hashlib.sha256(KEY.text.encode()).digest()


def test_a_key_does_not_get_into_a_log_by_being_printed() -> None:
    assert KEY.id in repr(KEY)
    assert KEY.text[24:] not in f"{KEY} {KEY!r}"


@given(place=st.integers(0, len(KEY.text) - 1), letter=st.sampled_from("0123456789abcdefghijklmnopqrstuvwxyz_- A"))
def test_a_mistyped_key_is_none(place: int, letter: str) -> None:
    text = KEY.text[:place] + letter + KEY.text[place + 1 :]
    assert (api_keys.parse(text) is None) == (text != KEY.text)


@given(place=st.integers(0, len(KEY.text) - 2))
def test_a_key_with_two_letters_swapped_is_none(place: int) -> None:
    text = KEY.text[:place] + KEY.text[place + 1] + KEY.text[place] + KEY.text[place + 2 :]
    assert (api_keys.parse(text) is None) == (text != KEY.text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tenure_",
        KEY.text[:-1],
        KEY.text + "0",
        KEY.text + "\n",
        " " + KEY.text,
        KEY.text.upper(),
        KEY.text.replace("tenure_", "tenant_"),
        KEY.text.replace("_", "-"),
        KEY.text[:-1] + "\u0660",  # a digit too
        KEY.text + "\x00",
        KEY.text * 2,
        "é" * len(KEY.text),
        "x" * 1_000_000,
    ],
    ids=range(14),
)
def test_whatever_else_is_sent_is_none(text: str) -> None:
    assert api_keys.parse(text) is None


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    assert api_keys.parse(text) is None


def test_a_checksum_of_something_else_does_not_fit() -> None:
    other = api_keys.new_key(KEY.id)
    mixed = ApiKey(KEY.id, KEY.text[:-7] + other.text[-7:])
    assert api_keys.parse(mixed.text) is None
