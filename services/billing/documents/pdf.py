"""An invoice as a PDF: A4, as many pages as it takes, each with its number and the heads of the columns.

Nothing in the file tells when or where it was made. It is not compressed: what zlib makes of the same bytes differs
from one version to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO

from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from services.billing.documents.content import TO, Content, Row
from services.billing.documents.typesetting import BOX, REGULAR, Style, breadth, has_gaps, runs, wrapped

_WIDTH, _HEIGHT = A4
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, _WIDTH - 50.0, _HEIGHT - 50.0, 64.0
_FOOT = 36.0
_COLUMN_GAP, _ROW_GAP = 14.0, 9.0
_LEADING = 1.36
"""From one line to the next, in sizes of the font."""

_TITLE, _PARTY, _NAME, _TOTAL = Style(19, is_bold=True), Style(9), Style(9, is_bold=True), Style(11, is_bold=True)
_TEXT, _HEAD, _SMALL = Style(8.5), Style(7.5, is_bold=True), Style(7.5)
_STAMP = Style(96, is_bold=True)
_INK, _SOFT, _RULE, _BACK, _FAINT = 0x1A1A1A, 0x666666, 0xCCCCCC, 0xA4161A, 0xEFEFEF

_MOST_PARTY_LINES = 14
_MOST_ROW_LINES = 12
_NARROWEST_DESCRIPTION = 130.0


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the columns end; the description begins at the left margin."""

    description: float
    period: float
    quantity: float


@dataclass(frozen=True, slots=True)
class _Piece:
    """A row of the table, or as much of one as is kept on a page."""

    description: Sequence[str]
    period: Sequence[str]
    quantity: Sequence[str]
    amount: str
    is_negative: bool
    is_end: bool

    @property
    def height(self) -> float:
        lines = max(len(self.description), len(self.period), len(self.quantity), 1)
        return lines * _leading(_TEXT) + (_ROW_GAP if self.is_end else 0.0)


def pdf(content: Content) -> bytes:
    """Draw an invoice; a line takes some 0.4 ms and 1 KB."""
    return _Sheets(content).drawn()


class _Canvas(Canvas):
    """A canvas that knows nothing of where it is, not even by the environment variable ``SOURCE_DATE_EPOCH``."""

    def __init__(self, file: BytesIO, written_at: datetime) -> None:
        super().__init__(
            file,
            pagesize=A4,
            pageCompression=0,
            invariant=1,
            pdfVersion=(1, 4),
            initialFontName=REGULAR,  # type: ignore[arg-type]  # the stubs take it for a number
            lang="en",
        )
        # What the file's identity is made of, anew; the stubs do not know of it.
        self._doc.signature = sha256()  # type: ignore[attr-defined]
        self.setDateFormatter(lambda *_: f"D:{written_at:%Y%m%d%H%M%S}Z")


class _Sheets:
    """The pages of one invoice."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._file = BytesIO()
        self._canvas = _Canvas(self._file, content.written_at.astimezone(UTC))
        self._columns = _columns(content)
        self._notes = [line for note in _notes(content) for line in wrapped(note, _SMALL, _RIGHT - _LEFT)]

    def drawn(self) -> bytes:
        """Return the file."""
        self._describe()
        top = self._opening()
        pages = self._pages(top)
        for number, pieces in enumerate(pages, start=1):
            if number > 1:
                self._begin()
                top = _TOP
            bottom = self._table(pieces, top)
            if number == len(pages):
                self._closing(bottom)
            self._foot(number, len(pages))
            self._canvas.showPage()
        self._canvas.save()
        return self._file.getvalue()

    def _describe(self) -> None:
        self._canvas.setTitle(self._content.name)
        self._canvas.setAuthor(next(iter(self._content.seller), ""))
        self._canvas.setSubject(self._content.name)
        self._canvas.setCreator("Tenure")
        self._canvas.setProducer("Tenure")

    def _pages(self, top: float) -> list[list[_Piece]]:
        """Share the rows out among pages; the last one is followed by the total and the notes."""
        ending = _leading(_TOTAL) + 2 * _ROW_GAP + len(self._notes) * _leading(_SMALL)
        pieces = [piece for row in self._content.rows for piece in self._pieces(row)]
        pages: list[list[_Piece]] = [[]]
        left = top - _HEAD_HEIGHT - _BOTTOM
        for index, piece in enumerate(pieces):
            wanted = piece.height + (ending if index == len(pieces) - 1 else 0.0)
            if wanted > left and (pages[-1] or len(pages) == 1):
                pages.append([])
                left = _TOP - _HEAD_HEIGHT - _BOTTOM
            pages[-1].append(piece)
            left -= piece.height
        if not pieces and ending > left:
            pages.append([])
        return pages

    def _pieces(self, row: Row) -> list[_Piece]:
        """Break what could be longer than a page."""
        columns = self._columns
        description = wrapped(row.description, _TEXT, columns.description - _LEFT)
        quantity = wrapped(row.quantity, _TEXT, columns.quantity - columns.period - _COLUMN_GAP)
        count = max(len(description), len(quantity))
        return [
            _Piece(
                description[first : first + _MOST_ROW_LINES],
                _period(row) if first == 0 else (),
                quantity[first : first + _MOST_ROW_LINES],
                row.amount if first == 0 else "",
                row.is_negative,
                first + _MOST_ROW_LINES >= count,
            )
            for first in range(0, count, _MOST_ROW_LINES)
        ]

    def _begin(self) -> None:
        if self._content.is_draft:
            self._canvas.saveState()
            self._canvas.translate(_WIDTH / 2, _HEIGHT / 2)
            self._canvas.rotate(52)
            self._text("DRAFT", _STAMP, -breadth("DRAFT", _STAMP) / 2, -30, colour=_FAINT)
            self._canvas.restoreState()

    def _opening(self) -> float:
        """Draw what is above the table on the first page, and return where that ends."""
        self._begin()
        half = (_RIGHT - _LEFT) / 2 - _COLUMN_GAP
        self._text(self._content.name, _TITLE, _RIGHT, _TOP - _TITLE.size, is_right=True)
        y = min(self._party(self._content.seller, _TOP, half), _TOP - _leading(_TITLE)) - 26
        self._text("Billed to", _HEAD, _LEFT, y - _HEAD.size, colour=_SOFT)
        return min(self._party(self._content.customer, y - _leading(_HEAD) - 1, half), self._facts(y)) - 26

    def _party(self, lines: Sequence[str], y: float, width: float) -> float:
        styled = [
            (each, _PARTY if index else _NAME)
            for index, line in enumerate(lines)
            for each in wrapped(line, _PARTY if index else _NAME, width, most=_MOST_PARTY_LINES)
        ]
        if len(styled) > _MOST_PARTY_LINES:
            styled = [*styled[: _MOST_PARTY_LINES - 1], ("\N{HORIZONTAL ELLIPSIS}", _PARTY)]
        for line, style in styled:
            self._text(line, style, _LEFT, y - style.size)
            y -= _leading(style)
        return y

    def _facts(self, y: float) -> float:
        middle = (_LEFT + _RIGHT) / 2
        for name, value in self._content.facts:
            self._text(name, _SMALL, middle, y - _PARTY.size, colour=_SOFT)
            for line in wrapped(value, _PARTY, _RIGHT - middle - 80, most=3):
                self._text(line, _PARTY, _RIGHT, y - _PARTY.size, is_right=True)
                y -= _leading(_PARTY)
        return y

    def _table(self, pieces: Sequence[_Piece], y: float) -> float:
        """Draw the heads of the columns and rows, and return where they end."""
        columns = self._columns
        baseline = y - _HEAD.size
        self._text("Description", _HEAD, _LEFT, baseline, colour=_SOFT)
        self._text("Period", _HEAD, columns.description + _COLUMN_GAP, baseline, colour=_SOFT)
        self._text("Quantity", _HEAD, columns.quantity, baseline, colour=_SOFT, is_right=True)
        self._text(_amount_head(self._content), _HEAD, _RIGHT, baseline, colour=_SOFT, is_right=True)
        y -= _HEAD_HEIGHT
        self._rule(y + 4, 1.0)
        for piece in pieces:
            self._piece(piece, y)
            y -= piece.height
            if piece.is_end:
                self._rule(y + 4, 0.5)
        return y

    def _piece(self, piece: _Piece, top: float) -> None:
        colour = _BACK if piece.is_negative else _INK
        y = top - _TEXT.size
        self._lines(piece.description, _LEFT, y)
        self._lines(piece.period, self._columns.description + _COLUMN_GAP, y)
        self._lines(piece.quantity, self._columns.quantity, y, is_right=True)
        self._text(piece.amount, _TEXT, _RIGHT, y, colour=colour, is_right=True)

    def _closing(self, y: float) -> None:
        """Draw the total and the notes."""
        if not self._content.rows:
            self._text("Nothing was charged.", _TEXT, _LEFT, y - _TEXT.size)
            y -= _leading(_TEXT)
        y -= _ROW_GAP
        self._text(self._content.total_label, _TOTAL, _LEFT, y - _TOTAL.size)
        total = f"{self._content.total} {self._content.currency}"
        self._text(total, _TOTAL, _RIGHT, y - _TOTAL.size, is_right=True)
        y -= _leading(_TOTAL) + _ROW_GAP
        for line in self._notes:
            self._text(line, _SMALL, _LEFT, y - _SMALL.size, colour=_SOFT)
            y -= _leading(_SMALL)

    def _foot(self, number: int, count: int) -> None:
        author = next(iter(self._content.seller), "")
        (line, *_) = wrapped(" · ".join(filter(None, [self._content.name, author])), _SMALL, 380, most=1)
        self._text(line, _SMALL, _LEFT, _FOOT, colour=_SOFT)
        self._text(f"Page {number} of {count}", _SMALL, _RIGHT, _FOOT, colour=_SOFT, is_right=True)

    def _lines(self, lines: Sequence[str], x: float, y: float, *, is_right: bool = False) -> None:
        for line in lines:
            self._text(line, _TEXT, x, y, is_right=is_right)
            y -= _leading(_TEXT)

    def _text(self, line: str, style: Style, x: float, y: float, *, colour: int = _INK, is_right: bool = False) -> None:
        """Draw one line from ``x`` on, or up to it, standing on ``y``."""
        if is_right:
            x -= breadth(line, style)
        text = self._canvas.beginText(x, y)
        text.setFillColorRGB(*((colour >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)))
        for run in runs(line, style):
            text.setFont(run.font, style.size)
            text.textOut(run.text)
        self._canvas.drawText(text)

    def _rule(self, y: float, thickness: float) -> None:
        self._canvas.setLineWidth(thickness)
        self._canvas.setStrokeColorRGB(*((_RULE >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)))
        self._canvas.line(_LEFT, y, _RIGHT, y)


def _columns(content: Content) -> _Columns:
    """Give amounts and quantities what they need, and the description what is left."""
    amounts = [breadth(_amount_head(content), _HEAD), *(breadth(row.amount, _TEXT) for row in content.rows)]
    quantities = [breadth("Quantity", _HEAD), *(breadth(row.quantity, _TEXT) for row in content.rows)]
    quantity = _RIGHT - max(amounts) - _COLUMN_GAP
    width = breadth(f"2000-00-00 {TO}", _TEXT)
    most = quantity - _COLUMN_GAP - width - _COLUMN_GAP - _LEFT - _NARROWEST_DESCRIPTION
    period = quantity - min(max(quantities), max(most, breadth("Quantity", _HEAD))) - _COLUMN_GAP
    return _Columns(description=period - width - _COLUMN_GAP, period=period, quantity=quantity)


def _amount_head(content: Content) -> str:
    return f"Amount ({content.currency})"


def _notes(content: Content) -> Sequence[str]:
    if any(map(has_gaps, content.texts())):
        return [*content.notes, f"A {BOX} stands for a character that this file has no picture of; the page has it."]
    return content.notes


def _period(row: Row) -> Sequence[str]:
    """Return a line for each day."""
    return [f"{day} {TO}" for day in row.period[:-1]] + list(row.period[-1:])


def _leading(style: Style) -> float:
    return style.size * _LEADING


_HEAD_HEIGHT = _leading(_HEAD) + 7.0
