"""Tokens as words on a screen: one spelling for what cannot be seen, and widths to cut long words by.

Everything that shows a token goes through `visible`. It makes spaces, line breaks and broken bytes readable and
keeps characters out of files that XML forbids even when escaped; escaping for XML or HTML is a second, separate step.
What a vector reads is a token with nothing before it: `as_word` also says which of those are pieces of words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from typing import Literal

EMPTY = "∅"
WordKind = Literal["word", "piece", "sign", "space", "byte"]
QUIET_KINDS = ("space", "byte")  # kinds that are drawn in grey
_BYTES = re.compile(
    r" ?(\\x[0-9a-f]{2})+"
)  # as `visit.models.tokens.token_strings` writes bytes that are no whole character
_CONTROL_SIGNS = {"\n": "⏎", "\t": "⇥"}  # the control pictures of Unicode are boxes where no font has them
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
        1015: "@←→⏎⇥␣…—",
    }.items()
    for character in characters
}


def visible(token: str | bytes) -> str:
    """Spell a token so that every character of it can be seen, on one line.

    Outer spaces become `·`, those of a token that is white space alone `␣` (`␣×8` from four on), a line break `⏎`, a
    tab `⇥`, other control characters `\\x0d`, bytes that are no UTF-8 (given as bytes or as Python's surrogate escapes)
    `\\xe9`, direction marks and other characters without a shape `\\u202e`. An empty token is `∅`. Letters of every
    script are left alone.

    The result holds no character that XML forbids; it is not escaped.
    """
    text = token.decode("utf-8", "surrogateescape") if isinstance(token, bytes) else str(token)
    return _visible(text)


@lru_cache(maxsize=65536)
def _visible(text: str) -> str:
    if not text:
        return EMPTY
    if not text.strip(_WHITE):
        signs = ["␣" if c == " " else _spell(c, 0) for c in text]
        runs = [(sign, len(list(run))) for sign, run in groupby(signs)]
        return "".join(sign * count if count < 4 else f"{sign}×{count}" for sign, count in runs)
    head = len(text) - len(text.lstrip(" "))
    tail = len(text) - len(text.rstrip(" ")) if head < len(text) else 0
    inner = text[head : len(text) - tail]
    if not (inner.isascii() and inner.isprintable()):
        inner = "".join(_spell(inner, i) for i in range(len(inner)))
    return "·" * head + inner + "·" * tail


_WHITE = " \n\t\r\v\f"


def _spell(text: str, i: int) -> str:
    """The visible form of one character; its neighbours decide about joiners and accents without a letter."""
    character = text[i]
    code = ord(character)
    if character in _CONTROL_SIGNS:
        return _CONTROL_SIGNS[character]
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


@lru_cache(maxsize=65536)
def word_kind(token: str) -> WordKind:
    """What a token of the vocabulary is, as far as its own text tells.

    "space": white space and control characters alone; "byte": bytes of a character that takes several tokens; "piece":
    it goes on with a word, for it begins with a lower-case letter (or an accent) and without the space that in
    byte-level and SentencePiece vocabularies belongs to a word's first token; "word": letters, perhaps with `'` or `-`
    inside; "sign": everything else, as punctuation, figures and code. A piece that begins a word (" affili") cannot be
    told from a whole word.
    """
    if all(unicodedata.category(c) in ("Zs", "Cc", "Zl", "Zp") for c in token):
        return "space"
    if _BYTES.fullmatch(token):
        return "byte"
    text = token.removeprefix(" ")
    if text == token and unicodedata.category(text[0]) in ("Ll", "Mn", "Mc", "Me"):
        return "piece"
    inner = [c for i, c in enumerate(text) if not (c in "'’-" and 0 < i < len(text) - 1)]
    return "word" if all(unicodedata.category(c)[0] in "LM" for c in inner) else "sign"


@lru_cache(maxsize=65536)  # every redraw spells some thousand tokens
def as_word(token: str) -> str:
    """A token as what a vector reads: `visible`, and `…` in front of a piece that goes on with a word (`…tion`)."""
    return ("…" if word_kind(token) == "piece" else "") + visible(token)


def word_list(tokens: Iterable[str], count: int, whole: bool = False) -> list[str]:
    """The first `count` of a list of top words, spelled by `as_word`. `whole`: of those that are whole words."""
    return [as_word(t) for t in tokens if not whole or word_kind(t) == "word"][:count]


def explained(tokens: Iterable[str]) -> list[tuple[str, str]]:
    """(sign, meaning) of the signs of `as_word` that occur in these tokens, for a line of legend."""
    seen = "".join({as_word(t) for t in tokens if word_kind(t) in ("space", "piece")})
    found = [(sign, meaning) for sign, meaning in _SIGNS.items() if sign in seen]
    bytes_ = ["a byte of a character"] * any(word_kind(t) == "byte" for t in tokens)
    control = ["a control character"] * ("\\x" in seen)
    return found + [("\\x…", " or ".join(bytes_ + control))] * bool(bytes_ + control)


_SIGNS = {"␣": "a space", "⏎": "a line break", "⇥": "a tab", "…": "in front: goes on with a word"}


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


# ---- sentences -------------------------------------------------------------------------------------------------------
Sentence = list[tuple[str, str | None]]


def quoted(token: str) -> str:
    """A token in a sentence: in quotation marks, its spaces and control characters visible."""
    return f"“{visible(token)}”"
