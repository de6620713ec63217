"""An invoice as a page: made on the server, without a script or a request to anywhere else, fit to be printed."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from services.billing.documents.content import TO, Content, Row

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent);
  --back: light-dark(#a4161a, #ff9b9b); --mark: light-dark(#8a5a00, #ffc46b) }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 56rem;
  overflow-wrap: anywhere }
header, .parties { display: flex; justify-content: space-between; align-items: flex-start; gap: 2rem; flex-wrap: wrap }
header { margin-bottom: 2.2rem } h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 }
header > *, .parties > * { min-width: 0 }
h2 { font-size: .8rem; font-weight: 600; margin: 0 0 .2rem; opacity: .7 }
address { font-style: normal; max-width: 24rem } address b { display: block }
address bdi { display: block; text-align: left }
dl { display: grid; grid-template-columns: auto auto; gap: .1rem 1.2rem; margin: 0 } dt { opacity: .7 }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums }
[role=note] { border-left: 3px solid var(--mark); color: var(--mark); padding: .3rem .8rem; margin: 0 0 1.6rem }
table { border-collapse: collapse; width: 100%; margin: 2.2rem 0 1.5rem }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
th, td { text-align: left; vertical-align: top; padding: .5rem 0 .5rem 1.2rem }
tr { border-bottom: 1px solid var(--line) } thead tr { border-bottom-width: 2px } tfoot tr { border: 0 }
th:first-child, td:first-child { padding-left: 0 }
thead th { font-size: .8rem; opacity: .7 }
.number { text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: normal; white-space: nowrap }
thead .number { white-space: normal } .period { white-space: nowrap; font-variant-numeric: tabular-nums }
.description { min-width: 9rem } .back { color: var(--back) } main { overflow-x: auto }
tfoot th, tfoot td { font-size: 1.15rem; font-weight: 700; padding-top: .8rem }
footer { font-size: .85rem; opacity: .75 } footer p { margin: 0 0 .3rem }
@media (max-width: 40rem) { body { padding: 1.2rem .9rem 3rem; font-size: 13px } th, td { padding-left: .6rem }
  .description { min-width: 6rem } }
@page { margin: 18mm 16mm;
  @bottom-right { content: "Page " counter(page) " of " counter(pages); font: 8pt system-ui, sans-serif } }
@media print {
  :root { color-scheme: light } body { font-size: 9pt; max-width: none; padding: 0 }
  main { overflow: visible }
  thead { display: table-header-group } tfoot { display: table-row-group }
  tr, footer { break-inside: avoid } tbody tr:last-child, tfoot tr { break-before: avoid }
}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
"""What a browser is told of the page."""


def page(content: Content) -> str:
    """Write an invoice in HTML; names and descriptions are in the direction of their own script."""
    seller, *more = content.seller or ("",)
    title = escape(content.name)
    note = "<p role=note>Draft: not issued yet.</p>" if content.is_draft else ""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}{f' · {escape(seller)}' if seller else ''}</title><style>{_STYLE}</style>"
        f"<header>{_address('From', [seller, *more]) if seller else '<span></span>'}<h1>{title}</h1></header>"
        f"{note}<main><div class=parties>{_address('Billed to', content.customer)}{_facts(content.facts)}</div>"
        f"{_table(content)}</main><footer>{_each('p', content.notes)}</footer></html>\n"
    )


def _address(heading: str, lines: Sequence[str]) -> str:
    name, *more = lines
    return (
        f"<section><h2>{heading}</h2><address><b><bdi>{escape(name)}</bdi></b>{_each('bdi', more)}</address></section>"
    )


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd><bdi>{escape(value)}</bdi></dd>' for name, value in facts)}</dl>"


def _table(content: Content) -> str:
    currency = escape(content.currency)
    return (
        f"<table><caption>What is charged</caption><thead><tr><th scope=col>Description</th><th scope=col>Period</th>"
        f"<th scope=col class=number>Quantity</th><th scope=col class=number>Amount ({currency})</th></tr></thead>"
        f"<tbody>{''.join(map(_row, content.rows)) or _NO_ROWS}</tbody><tfoot><tr>"
        f"<th scope=row colspan=3>{escape(content.total_label)}</th>"
        f"<td class=number>{escape(content.total)} {currency}</td></tr></tfoot></table>"
    )


_NO_ROWS = "<tr><td colspan=4>Nothing was charged.</td></tr>"


def _row(row: Row) -> str:
    days = f" {TO}<br>".join(row.period)
    return (
        f"<tr><td class=description><bdi>{escape(row.description)}</bdi></td><td class=period>{days}</td>"
        f"<td class=number>{escape(row.quantity)}</td>"
        f"<td class='number{' back' if row.is_negative else ''}'>{escape(row.amount)}</td></tr>"
    )


def _each(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
