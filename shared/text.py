"""Everything a person or a client types, cleaned once at the edge.

Each type here is an annotated type for pydantic models: it refuses what no database, log line or screen should see and
normalises what may be written in more than one way. Past the edge nobody checks again. Numbers are strict: ``true`` and
``"7"`` are no integers. In paths and query strings, where everything is text, take a plain ``int`` with bounds.
"""

import re
import unicodedata
import zoneinfo
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

NAME_MAXIMUM = 200
"""The most characters of a customer's name, before and after normalisation."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LAYOUT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Unicode's general categories control, format, surrogate, private use and unassigned (UAX #44, table 12)."""

_ADDRESS_MAXIMUM = 254
_LOCAL_MAXIMUM = 64
_DOMAIN_MAXIMUM = 253
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])")

_TIME_ZONES = zoneinfo.available_timezones() - {"localtime", "Factory"}  # of the machine, and of nowhere

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def _refusal(kind: str, sentence: str) -> PydanticCustomError:
    """Build the error whose message follows the field's name: "<field> <sentence>."."""
    return PydanticCustomError(kind, sentence)


def _without_controls(value: str) -> str:
    if _CONTROL.search(value):
        raise _refusal("control_character", "must not contain control characters")
    return value


def _without_controls_but_layout(value: str) -> str:
    unified = value.replace("\r\n", "\n")
    if _CONTROL_BUT_LAYOUT.search(unified):
        raise _refusal("control_character", "must not contain control characters other than newline and tab")
    return unified


def _clean_name(value: str) -> str:
    normal = unicodedata.normalize("NFKC", value)
    categories = {unicodedata.category(character) for character in normal}
    if categories & _UNSEEN:
        raise _refusal("unseen_character", "must not contain control, format or unassigned characters")
    if not any(category[0] in "LN" for category in categories):
        raise _refusal("nameless", "must contain at least one letter or digit")
    collapsed = " ".join(normal.split())
    if len(collapsed) > NAME_MAXIMUM:  # one character of a ligature can become eighteen
        raise _refusal("string_too_long", "must have at most 200 characters after Unicode normalisation")
    return collapsed


def name_key(name: str) -> str:
    """Return what two names have in common exactly when they are the same name: THE comparison of names.

    NFKC, case folded, trimmed, inner whitespace collapsed; repeated until nothing changes, because folding can undo the
    normalisation of a few characters (Unicode Standard, section 3.13, D146). Idempotent.
    """
    key, previous = name, ""
    while key != previous:
        previous, key = key, " ".join(unicodedata.normalize("NFKC", key).casefold().split())
    return key


def _clean_address(value: str) -> str:
    local, at, domain = value.rpartition("@")
    if not at or not local or not domain:
        raise _refusal("email_address", "must be an e-mail address like ada@example.com")
    if len(local) > _LOCAL_MAXIMUM or len(domain) > _DOMAIN_MAXIMUM:
        raise _refusal("email_address", "must have at most 64 characters before the @ and 253 after it")
    if not _LOCAL_PART.fullmatch(local):
        raise _refusal("email_address", "has characters before the @ that an e-mail address cannot have")
    if not _DOMAIN.fullmatch(domain.lower()):
        raise _refusal("email_address", "must have a domain like example.com after the @ (xn-- form if not ASCII)")
    return f"{local}@{domain.lower()}"


def email_key(address: str) -> str:
    """Return what two addresses have in common exactly when they reach the same person: THE comparison of addresses.

    RFC 5321 leaves the case of the local part to the receiving host; none in use tells two people apart by it.
    """
    return address.strip().lower()


def is_time_zone(name: str) -> bool:
    """Tell whether this is the name of a time zone in the IANA's list."""
    return name in _TIME_ZONES


def _known_time_zone(value: str) -> str:
    if not is_time_zone(value):
        raise _refusal("time_zone", "must be a time zone of the IANA's list, like Europe/Berlin")
    return value


def _known_currency(value: str) -> str:
    if value not in CURRENCIES:
        raise _refusal("currency", "must be an active ISO 4217 currency code in capitals, like USD")
    return value


def _day(value: Any) -> Any:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise _refusal("calendar_date", "must be a date written YYYY-MM-DD")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise _refusal("calendar_date", "must be a day that exists, written YYYY-MM-DD") from None


def _moment(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise _refusal("instant", "must be a time with offset like 2026-03-01T12:00:00Z")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _refusal("instant", "must be a time that exists, like 2026-03-01T12:00:00Z") from None


Text = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=500),
    AfterValidator(_without_controls),
]
"""One line of text as it was typed, trimmed. Narrow it with ``Annotated[Text, Field(max_length=100)]``."""

Paragraph = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=2000),
    AfterValidator(_without_controls_but_layout),
]
"""Text of several lines, such as an address: newline and tab are allowed, Windows line ends become newlines."""

Name = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=NAME_MAXIMUM),
    AfterValidator(_clean_name),
]
"""A customer's name: NFKC, trimmed, inner whitespace collapsed, nothing invisible. Compare with `name_key`."""

EmailAddress = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=3, max_length=_ADDRESS_MAXIMUM),
    AfterValidator(_clean_address),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": _ADDRESS_MAXIMUM}),
]
"""An address that mail can be sent to: a dot-atom (RFC 5322, 3.4.1), an ``@`` and a domain of at least two labels.

The lengths are RFC 5321's (4.5.3.1; 254 in all by RFC 3696, erratum 1690). Quoted local parts, address literals and
non-ASCII local parts (RFC 6531) are refused: valid, but not deliverable by most hosts.
"""

PhoneNumber = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, pattern=r"^\+?[0-9(][0-9 ()./-]{1,30}[0-9]$")
]
"""A telephone number as people write it, 3 to 32 characters."""

Slug = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""The name of a tier, product, version, region, plan or meter; compared exactly."""

Identifier = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""An opaque identity that a client hands back."""

Currency = Annotated[
    str,
    StringConstraints(strict=True, max_length=64),
    AfterValidator(_known_currency),
    WithJsonSchema({"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217"}),
]
"""An active currency of ISO 4217."""

TimeZone = Annotated[
    str,
    StringConstraints(strict=True, max_length=64),
    AfterValidator(_known_time_zone),
    WithJsonSchema(
        {"type": "string", "maxLength": 64, "description": "In the IANA's list.", "examples": ["Europe/Berlin"]}
    ),
]
"""The name of a time zone in the IANA's list."""

_TagKey = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]
_TagValue = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, max_length=256), AfterValidator(_without_controls)
]
Tags = Annotated[dict[_TagKey, _TagValue], Field(max_length=50)]
"""At most 50 labels of a customer's own: keys up to 64 characters, values up to 256, possibly empty."""

Int4 = Annotated[int, Field(strict=True, ge=-(2**31), le=2**31 - 1)]
"""An integer that a column of type ``integer`` holds."""

Int8 = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
"""An integer that a column of type ``bigint`` holds."""

Count = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
"""How many: zero or more, within a column of type ``integer``."""

Flag = Annotated[bool, Field(strict=True)]
"""``true`` or ``false``, not 1, not ``"yes"``."""

CalendarDate = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
"""A day written ``YYYY-MM-DD``, without a time of day."""

Instant = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
"""A moment written as RFC 3339 with an offset, given back in UTC."""

CURRENCIES = frozenset(
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP
    CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR
    IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU
    MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG
    SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST
    XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
    """.split()  # noqa: SIM905 - a table of codes reads better than 153 quoted strings
)
"""ISO 4217 codes of the money of countries in 2026; without funds, metals, tests and withdrawn codes."""
