"""Tokens as words on a screen: one spelling for what cannot be seen, and widths to cut long words by.

Everything that shows a token goes through `visible`. It makes spaces, line breaks and broken bytes readable and
keeps characters out of files that XML forbids even when escaped; escaping for XML or HTML is a second, separate step.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

EMPTY = "∅"
_NAMED = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
_JOINERS = "\u200c\u200d"  # real letters of Persian, Indic scripts and emoji when they stand between two others

# widths in thousandths of an em of Helvetica, Arial and Liberation Sans, which agree with each other
_WIDTHS = {
    character: width
    for width, characters in {
        191: "'",
        222: "ijl",
        260: "|",
        278: " !,./:;I[\\]ft·",
        334: "{}()-`r",
        355: '"',
        389: "*",
        469: "^",
        500: "Jcksvxyz",
        556: "#$0123456789?L_abdeghnopqué",
        584: "+<=>~−",
        611: "FTZß",
        667: "&ABEKPSVXY",
        722: "CDHNRUw",
        778: "GOQ",
        833: "Mm",
        889: "%",
        944: "W",
        1015: "@←→⏎⇥…—",
    }.items()
    for character in characters
}


def visible(token: str | bytes) -> str:
    """Spell a token so that every character of it can be seen, on one line.

    Outer spaces become `·`, a line break `⏎`, a tab `⇥`, other control characters their control picture, bytes that
    are no UTF-8 (given as bytes or as Python's surrogate escapes) `\\xe9`, direction marks and other characters
    without a shape `\\u202e`. An empty token is `∅`. Letters of every script are left alone.

    The result holds no character that XML forbids; it is not escaped.
    """
    text = token.decode("utf-8", "surrogateescape") if isinstance(token, bytes) else str(token)
    return _visible(text)


@lru_cache(maxsize=65536)
def _visible(text: str) -> str:
    if not text:
        return EMPTY
    head = len(text) - len(text.lstrip(" "))
    tail = len(text) - len(text.rstrip(" ")) if head < len(text) else 0
    inner = text[head : len(text) - tail]
    if not (inner.isascii() and inner.isprintable()):
        inner = "".join(_spell(inner, i) for i in range(len(inner)))
    return "·" * head + inner + "·" * tail


def _spell(text: str, i: int) -> str:
    """The visible form of one character; its neighbours decide about joiners and accents without a letter."""
    character = text[i]
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code < 0x20:
        return chr(0x2400 + code)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character in _JOINERS and 0 < i < len(text) - 1:
        return character
    category = unicodedata.category(character)
    if category in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn") or (category == "Zs" and character != " "):
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    if i == 0 and category in ("Mn", "Me", "Mc"):
        return "◌" + character
    return character


def isolate(text: str) -> str:
    """Wrap a visible text so that its direction cannot reorder the plain text around it (for captions and tables)."""
    return f"\u2068{text}\u2069"


def text_width(text: str, size: float = 12.0) -> float:
    """Width in pixels of `text` set in Helvetica or Arial at `size` pixels; other scripts are estimated, generously."""
    return size * sum(map(_em, text)) / 1000


def _em(character: str) -> int:
    width = _WIDTHS.get(character)
    if width is not None:
        return width
    if unicodedata.east_asian_width(character) in ("W", "F") or ord(character) > 0x2FFF:
        return 1000
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 700


@lru_cache(maxsize=65536)
def fit(text: str, room: float, size: float = 12.0) -> str:
    """Cut `text` with `…` so that it is at most `room` pixels wide at `size` pixels."""
    if text_width(text, size) <= room:
        return text
    left = 1000 * (room / size) - _em("…")
    cut = 0
    while (left := left - _em(text[cut])) >= 0:
        cut += 1
    while cut and unicodedata.category(text[cut]) in ("Mn", "Me", "Mc", "Cf"):
        cut -= 1  # an accent stays with its letter
    return text[:cut] + "…"
