"""Invoices for people: what they say, as a page and as a PDF, and that nothing but the invoice is in them."""

import base64
import hashlib
import os
import re
import subprocess
import sys
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.pdfbase.pdfmetrics import stringWidth

from services.billing.documents import PAGE_HEADERS, Content, Seller
from services.billing.documents.page import page
from services.billing.documents.pdf import pdf
from services.billing.documents.typesetting import BOLD, BOX, REGULAR, Style, breadth, has_gaps, runs, wrapped
from services.billing.tests.paper import SELLER, content, draft, invoice, line

TEXT = Style(9)
HEADS = ("Description", "Period", "Quantity")
HOSTILE = "</title><script>alert('1')</script>\" onload=x & <b>"

drawn = re.compile(rb"BT 1 0 0 1 (?P<x>-?[\d.]+) (?P<y>-?[\d.]+) Tm (?P<colour>[\d. ]+) rg .*?\((?P<text>.*?)\) Tj")


class Reader(HTMLParser):
    """Reads a page as a browser does: its elements, and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def texts(document: bytes) -> list[str]:
    """Return what is written in plain letters, in the order in which it is drawn."""
    return [found["text"].decode("latin-1") for found in drawn.finditer(document)]


def seen(text: str, style: Style = TEXT) -> str:
    return "".join(run.text for run in runs(text, style))


def test_the_numbers_and_parties_are_there() -> None:
    found = content()

    assert found.name == "Invoice 00000042"
    assert found.seller == ["Tenure Cloud Ltd", "1 Harbour Street", "Dublin 2", "Tax ID IE1234567X"]
    assert found.customer == ["Acme", "Ring 1", "10115 Berlin"]
    assert (found.total_label, found.total, found.currency) == ("Total", "15.81", "USD")


def test_text_is_composed_and_what_is_no_text_is_a_space() -> None:
    found = content(line("one\ntwo\x00"), customer_name="Zoe\u0308\x07A", billing_address="a\r\n\n\x1bb\u2028c")

    assert found.customer == ["Zoë A", "a", "b", "c"]
    assert found.rows[0].description == "one two"


def test_days_are_those_of_the_invoices_time_zone_and_the_last_one_is_included() -> None:
    found = content(line(), line(since="2026-03-10T23:00:00+00:00", until="2026-03-11T23:00:00+00:00"))

    assert dict(found.facts) == {
        "Invoice number": "00000042",
        "Issued": "2026-04-02",
        "Drafted": "2026-04-01",
        "Service period": "2026-03-01 – 2026-03-11",  # noqa: RUF001 - a dash of this length stands for "to"
        "Currency": "USD",
        "Account": "t1",
    }
    assert [row.period for row in found.rows] == [["2026-03-01", "2026-03-10"], ["2026-03-11"]]


def test_a_line_may_lack_what_code_before_did_not_write() -> None:
    found = content(line(since=None, until=None, unit=""))

    assert (found.rows[0].period, found.rows[0].quantity) == ((), "10")
    assert "Service period" not in dict(found.facts)


@pytest.mark.parametrize(
    ("currency", "digits", "amount", "written", "rounding"),
    [
        ("USD", 2, "1234567.80", "1,234,567.80", "to 2 digits of USD"),
        ("JPY", 0, "1234567", "1,234,567", "to whole units of JPY"),
        ("KWD", 3, "0.125", "0.125", "to 3 digits of KWD"),
        ("USD", 2, "-1320.79", "−1,320.79", "to 2 digits of USD"),  # noqa: RUF001 - a real minus
        ("JPY", 0, "0", "0", "to whole units of JPY"),
    ],
)
def test_amounts_have_the_digits_of_the_currency(
    currency: str, digits: int, amount: str, written: str, rounding: str
) -> None:
    found = content(line(amount=amount), currency=currency, digits=digits, total=Decimal(amount))

    assert (found.rows[0].amount, found.rows[0].is_negative, found.total) == (written, amount < "0", written)
    assert found.total_label == ("Total in your favour" if amount < "0" else "Total")
    assert any(rounding in note for note in found.notes)
    assert f"{written} {currency}</td>" in page(found)


@pytest.mark.parametrize(
    ("quantity", "unit", "written"),
    [
        ("10", "day", "10 days"),
        ("1.000", "day", "1 day"),
        ("-18", "day", "−18 days"),  # noqa: RUF001 - a real minus
        ("1204233.5000", "", "1,204,233.5"),
        ("1E+3", "", "1,000"),
        ("0.000000000001", "", "0.000000000001"),
    ],
)
def test_quantities_are_written_with_their_unit_and_without_zeros_that_say_nothing(
    quantity: str, unit: str, written: str
) -> None:
    assert content(line(quantity=quantity, unit=unit)).rows[0].quantity == written


def test_a_draft_says_so_everywhere() -> None:
    found = Content.of(draft(), SELLER)

    assert (found.name, dict(found.facts)["Invoice number"]) == ("Draft invoice", "Draft")
    assert "Issued" not in dict(found.facts)
    assert "<p role=note>Draft" in page(found)
    assert texts(pdf(found)).count("DRAFT") == 1
    assert "DRAFT" not in texts(pdf(content()))


@pytest.mark.parametrize("lines", [(), (line(),)])
def test_without_a_seller_nobody_is_named(lines: tuple[dict[str, Any], ...]) -> None:
    found = Content.of(invoice(billing_address=None) | {"lines": list(lines)}, Seller())

    assert (found.seller, found.customer) == ([], ["Acme"])
    assert "From" not in Reader(page(found)).texts
    assert ("Nothing was charged." in page(found)) is (not lines)
    assert ("Nothing was charged." in texts(pdf(found))) is (not lines)


def test_what_people_have_written_is_text_on_the_page() -> None:
    found = content(
        line(HOSTILE),
        seller=Seller(HOSTILE, HOSTILE, HOSTILE),
        customer_name=HOSTILE,
        billing_address=HOSTILE,
        tenant_id=HOSTILE,
    )

    reader = Reader(page(found))
    plain = Reader(page(content()))

    assert reader.elements == plain.elements[:5] + reader.elements[5:]
    assert {tag for tag, _ in reader.elements} == {tag for tag, _ in plain.elements}
    assert reader.texts.count(HOSTILE) >= 5
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)


def test_the_page_asks_for_nothing_and_its_style_is_the_only_one_let_in() -> None:
    text = page(content())
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert f"default-src 'none'; style-src 'sha256-{digest}';" in PAGE_HEADERS["Content-Security-Policy"]
    assert not {"src", "href", "style"} & {name for _, attributes in Reader(text).elements for name in attributes}
    assert not re.search(r"url\(|@import|https?:", text)


def test_the_table_has_headings_that_can_be_read_aloud() -> None:
    elements = Reader(page(content(line(), line()))).elements

    assert [attributes["scope"] for tag, attributes in elements if tag == "th"] == ["col"] * 4 + ["row"]
    assert {"caption", "thead", "tbody", "tfoot", "h1", "main"} <= {tag for tag, _ in elements}
    assert ("html", {"lang": "en"}) in elements


def test_hundreds_of_lines_go_over_pages_each_with_the_heads_and_its_number() -> None:
    document = pdf(content(*(line(f"line {number:03d} of many") for number in range(500))))
    written = texts(document)
    count = document.count(b"/Type /Page\n")

    assert count > 10
    assert [each for each in written if each.startswith("Page ")] == [f"Page {n + 1} of {count}" for n in range(count)]
    assert [written.count(head) for head in HEADS] == [count] * 3
    assert [each for each in written if each.endswith("of many")] == [f"line {n:03d} of many" for n in range(500)]
    assert all(float(found["y"]) > 30 for found in drawn.finditer(document))


@pytest.mark.parametrize("count", range(1, 45, 4))
def test_the_total_never_stands_alone_on_a_page(count: int) -> None:
    written = texts(pdf(content(*(line(f"line {number} of many") for number in range(count)))))
    ends = [index for index, each in enumerate(written) if each.startswith("Page ")]
    last = written[ends[-2] + 1 if len(ends) > 1 else 0 :]

    assert "Total" in last
    assert f"line {count - 1} of many" in last


def test_amounts_end_at_one_edge() -> None:
    amounts = ["0.05", "15.81", "1234.56", "999999.99"]
    document = pdf(content(*(line(amount=amount) for amount in amounts)))
    edges = {
        round(float(found["x"]) + stringWidth(found["text"].decode(), REGULAR, 8.5), 2)
        for found in drawn.finditer(document)
        if found["text"].decode().replace(",", "") in amounts
    }

    assert len(edges) == 1


def test_what_is_given_back_is_in_another_colour() -> None:
    document = pdf(content(line(), line(amount="-15.81")))
    colours = [found["colour"] for found in drawn.finditer(document) if found["text"].endswith(b"15.81")]

    assert len(colours) == 2
    assert len(set(colours)) == 2
    assert page(content(line(amount="-15.81"))).count("class='number back'") == 1


def test_a_description_of_any_length_is_on_the_pages_as_a_whole() -> None:
    words = [f"word{number:04d}" for number in range(3000)]
    document = pdf(content(line(" ".join(words)), customer_name="W" * 5000, billing_address="x\n" * 500))
    written = " ".join(texts(document)).split()

    assert [word for word in written if word.startswith("word")] == words
    assert max(float(found["x"]) for found in drawn.finditer(document)) < 560


def test_an_address_of_any_length_leaves_room_for_the_rest() -> None:
    document = pdf(content(customer_name="W" * 5000, billing_address="street\n" * 500))
    (short,) = [float(found["y"]) for found in drawn.finditer(document) if found["text"] == b"Period"]

    assert document.count(b"/Type /Page\n") == 1
    assert short > 400
    assert texts(pdf(content(billing_address="street\n" * 12))).count("street") == 12


def test_the_same_invoice_is_the_same_bytes_wherever_it_is_made() -> None:
    """In other processes, that hash otherwise, are elsewhere and have made other documents before."""
    program = """if True:
        import hashlib
        from services.billing.documents.page import page
        from services.billing.documents.pdf import pdf
        from services.billing.tests.paper import content, line
        name = {"customer_name": "株式会社テヌア Ωμέγα شركة (A) 😀"}
        if int(__import__("os").environ["PYTHONHASHSEED"]) > 1:
            pdf(content(line("한국어"), customer_name="Київ"))
        found = content(*[line(str(each)) for each in range(100)], **name)
        print(hashlib.sha256(pdf(found) + page(found).encode()).hexdigest())
    """
    elsewhere = [
        {"PYTHONHASHSEED": "1", "TZ": "UTC"},
        {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1"},
    ]
    running = [
        subprocess.Popen([sys.executable, "-c", program], env=os.environ | each, stdout=subprocess.PIPE, text=True)
        for each in elsewhere
    ]
    digests = {process.communicate(timeout=60)[0] for process in running}

    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_a_pdf_is_of_the_time_of_its_invoice() -> None:
    document = pdf(content())

    assert b"/CreationDate (D:20260401223000Z)" in document
    assert b"/ModDate (D:20260401223000Z)" in document
    assert b"/Title (Invoice 00000042)" in document
    assert b"FlateDecode" not in document


def test_european_names_are_in_the_embedded_font() -> None:
    for name in ("Zoë Łukasiewicz", "Ωμέγα", "Київ", "Ţuţuianu Şerban", "Đặng Văn Hậu"):
        assert not has_gaps(name)
        assert [(run.font, run.text) for run in runs(name, TEXT)] == [(REGULAR, name)]
        assert {run.font for run in runs(name, Style(9, is_bold=True))} == {BOLD}
    assert b"/FontFile2" in pdf(content())


def test_what_is_written_from_right_to_left_is_seen_so() -> None:
    assert seen("תל אביב 5") == "5 ביבא לת"
    assert seen("Acme (שלום) x") == "Acme (םולש) x"
    (shaped,) = wrapped("شركة (Acme) 123", TEXT, 500)
    assert seen(shaped).startswith("123 (Acme) ")
    assert not any("\u0600" <= each <= "\u06ff" for each in seen(shaped)), "the letters are joined to each other"
    assert not has_gaps(shaped)


@pytest.mark.parametrize(
    ("name", "font"),
    [("株式会社テヌア", "HeiseiKakuGo-W5"), ("中华人民共和国", "STSong-Light"), ("한국어 주소", "HYGothic-Medium")],
)
def test_east_asian_names_are_in_fonts_that_readers_have(name: str, font: str) -> None:
    document = pdf(content(customer_name=name))

    assert {run.font for run in runs(name, TEXT) if run.text.strip()} == {font}
    assert not has_gaps(name)
    assert f"/BaseFont /{font}".encode() in document
    assert BOX not in "".join(content(customer_name=name).notes)


def test_a_character_without_a_picture_is_seen_as_a_box_and_the_file_says_so() -> None:
    assert seen("A 😀 ก") == f"A {BOX} {BOX}"
    assert has_gaps("A 😀")
    note = "stands for a character that this file has no picture of"
    assert any(note in each for each in texts(pdf(content(customer_name="A 😀"))))
    assert not any(note in each for each in texts(pdf(content())))


@given(st.text(max_size=80), st.floats(20, 300))
def test_no_line_is_wider_than_it_may_be_and_nothing_is_lost(text: str, width: float) -> None:
    lines = wrapped(text, TEXT, width)

    assert all(breadth(each, TEXT) <= width + 0.01 for each in lines)
    assert "".join("".join(lines).split()) == "".join("".join(wrapped(text, TEXT, 1e9)).split())


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_every_name_can_be_printed(name: str, description: str) -> None:
    found = content(line(description), customer_name=f"x{name}", billing_address=name)

    assert pdf(found).startswith(b"%PDF-1.4")
    assert found.customer[0] in Reader(page(found)).texts
