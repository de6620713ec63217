"""Text as a PDF needs it: broken into lines, in the order in which it is seen, each character in a font that has it.

DejaVu Sans is embedded: it has Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic. Chinese, Japanese and
Korean are set in fonts that are only named, as PDF knows them (ISO 32000, 9.7.5.2): each reader has its own for them.
Everything else is seen as a box.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from arabic_reshaper import reshape
from bidi import get_base_level, get_display
from bidi.mirror import MIRRORED
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.pdfmetrics import getFont, registerFont, stringWidth
from reportlab.pdfbase.ttfonts import TTFont

BOX = "\N{WHITE VERTICAL RECTANGLE}"
"""Seen in place of a character that no font has."""

REGULAR, BOLD = "DejaVuSans", "DejaVuSans-Bold"

_FONTS = Path(__file__).with_name("fonts")
_EAST_ASIAN: Mapping[str, str] = {"HeiseiKakuGo-W5": "cp932", "STSong-Light": "gbk", "HYGothic-Medium": "cp949"}
"""The fonts that are only named, each with the encoding of the characters that it has."""

_IS_EAST_ASIAN = re.compile("[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef]")
_IS_ARABIC = re.compile("[\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff]")
_VARIATIONS = range(0xFE00, 0xFE10)
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN", "RLE", "RLO", "RLI"})
_LAST_PLAIN = "\uffff"
_MARK = "\N{VARIATION SELECTOR-1}"
_HAS_MIRROR_IMAGE = re.compile(f"[{re.escape(''.join(MIRRORED))}]")
_MARKED = re.compile(f"{_MARK}({_HAS_MIRROR_IMAGE.pattern})|({_HAS_MIRROR_IMAGE.pattern}){_MARK}")

for _name in (REGULAR, BOLD):
    registerFont(TTFont(_name, str(_FONTS / f"{_name}.ttf"), shapable=False))
for _name in _EAST_ASIAN:
    registerFont(UnicodeCIDFont(_name))


@dataclass(frozen=True, slots=True)
class Run:
    """Characters beside each other in one font, in the order in which they are seen."""

    font: str
    text: str


@dataclass(frozen=True, slots=True)
class Style:
    """How text is set.

    Attributes:
        size: of the font, in points.
    """

    size: float
    is_bold: bool = False


def wrapped(text: str, style: Style, width: float, *, most: int | None = None) -> Sequence[str]:
    """Break a text into lines, between words where that is possible; `runs` takes each.

    Args:
        width: what there is for a line, in points.
        most: lines; what is left out is told by an ellipsis.
    """
    lines = list(_lines(reshape(text) if _IS_ARABIC.search(text) else text, style, width)) or [""]
    if most is None or len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"{lines[most - 1]}\N{HORIZONTAL ELLIPSIS}"]


def runs(line: str, style: Style) -> Sequence[Run]:
    """Return a line as it is seen from left to right."""
    if line.isascii():
        return [Run(BOLD if style.is_bold else REGULAR, line)]
    line = _visual(line)
    font = _east_asian(line)
    glyphs = (_glyph(each, style.is_bold, font) for each in line)
    return [Run(name, "".join(text for _, text in run)) for name, run in groupby(glyphs, key=lambda glyph: glyph[0])]


def breadth(line: str, style: Style) -> float:
    """Return how wide a line is, in points."""
    return sum(stringWidth(run.text, run.font, style.size) for run in runs(line, style))


def has_gaps(text: str) -> bool:
    """Tell whether a text has a character that no font has."""
    if text.isascii():
        return False
    font = _east_asian(text)
    return any(_is_missing(each, font) for each in text)


def _visual(line: str) -> str:
    """Put a line in the order in which it is seen (UAX 9).

    The library reorders characters and does not mirror brackets. A mark after a bracket goes where the bracket goes;
    where it comes to stand before it, the bracket is read from right to left.
    """
    if not any(unicodedata.bidirectional(each) in _RIGHT_TO_LEFT for each in line):
        return line
    marked = _HAS_MIRROR_IMAGE.sub(rf"\g<0>{_MARK}", line)
    seen = get_display(marked, base_dir="R" if get_base_level(line) else "L")
    return _MARKED.sub(lambda found: MIRRORED[found[1]] if found[1] else found[2], seen)


def _lines(text: str, style: Style, width: float) -> Iterator[str]:
    font, space = _east_asian(text), _advance(" ", style, None)
    line, used = "", 0.0
    for word in text.split():
        advances = [_advance(each, style, font) for each in word]
        length = sum(advances)
        gap = space if line else 0.0
        if used + gap + length <= width:
            line, used = f"{line}{' ' if line else ''}{word}", used + gap + length
            continue
        if line and length <= width:
            yield line
            line, used = word, length
            continue
        # Too long for any line: it is broken wherever the line is full, as text without spaces is.
        line, used = (f"{line} ", used + gap) if line else ("", 0.0)
        for character, advance in zip(word, advances, strict=True):
            if used + advance > width and line:
                yield line.rstrip()
                line, used = "", 0.0
            line, used = line + character, used + advance
    if line:
        yield line


def _advance(character: str, style: Style, east_asian: str | None) -> float:
    return _unit_width(*_glyph(character, style.is_bold, east_asian)) * style.size


@lru_cache(maxsize=4096)
def _unit_width(font: str, text: str) -> float:
    return float(stringWidth(text, font, 1))


@lru_cache(maxsize=4096)
def _glyph(character: str, is_bold: bool, east_asian: str | None) -> tuple[str, str]:  # noqa: FBT001 - for the cache
    """Return the font that a character is set in, and what is set for it."""
    embedded = BOLD if is_bold else REGULAR
    if _is_missing(character, east_asian):
        return embedded, "" if unicodedata.category(character) in {"Mn", "Me"} else BOX
    if _is_unseen(character):
        return embedded, ""
    if _has(embedded, character):
        return embedded, character
    if _has(REGULAR, character):
        return REGULAR, character
    assert east_asian is not None
    return east_asian, character


def _is_missing(character: str, east_asian: str | None) -> bool:
    if _is_unseen(character) or _has(REGULAR, character):
        return False
    return east_asian is None or not _encodes(east_asian, character)


def _is_unseen(character: str) -> bool:
    """Tell whether a character only says how others are seen."""
    return unicodedata.category(character) in {"Cf", "Cc"} or ord(character) in _VARIATIONS


def _has(font: str, character: str) -> bool:
    """Tell whether an embedded font has a character that readers can copy, too."""
    return character <= _LAST_PLAIN and ord(character) in getFont(font).face.charToGlyph  # type: ignore[attr-defined]


@lru_cache(maxsize=1024)
def _east_asian(text: str) -> str | None:
    """Return the font that has the most of a text's Chinese, Japanese and Korean characters; None if it has none."""
    characters = _IS_EAST_ASIAN.findall(text)
    if not characters:
        return None
    return max(_EAST_ASIAN, key=lambda font: sum(_encodes(font, each) for each in characters))


def _encodes(font: str, character: str) -> bool:
    if character > _LAST_PLAIN or not _IS_EAST_ASIAN.match(character):
        return False
    try:
        character.encode(_EAST_ASIAN[font])
    except UnicodeEncodeError:
        return False
    return True
