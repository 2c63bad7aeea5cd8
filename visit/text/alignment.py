"""Which token of one text stands for which token of another, by the fewest changes: words first, then their pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rapidfuzz.distance import Levenshtein

_LAST_OF_SPACED = "\u2e7f"  # scripts after it (Chinese, Japanese, Korean) write no spaces between words
Texts = tuple[Sequence[str], Sequence[str]]


def word_starts(tokens: Sequence[str]) -> list[bool]:
    """Whether each token begins a word: after a space, a sign, or in a script that writes no spaces."""

    def lettered(sign: str) -> bool:
        return sign.isalnum() and sign <= _LAST_OF_SPACED

    found = []
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else ""
        found.append(not (before and token and lettered(before[-1]) and lettered(token[0])))
    return found


def token_partners(a: Sequence[Any], b: Sequence[Any], texts: Texts | None = None) -> dict[int, int]:
    """Position in `a` → its partner in `b`, where it has one: token ids or texts, aligned with the fewest changes.

    `texts`: what the tokens of both read; their words are aligned first, so that a piece of a word never stands for a
    piece of another word's partner. None: every token is a word. Where several words stand for several others, and
    where two words of several pieces stand for each other, they are paired from the last one backwards: a name of many
    tokens is gathered at its last. Source: Levenshtein's distance; the words and the pairing of several are ours.
    """
    words_a, words_b = (_words(side, texts and texts[n]) for n, side in enumerate((a, b)))
    named_a, named_b = ([tuple(side[w.start : w.stop]) for w in words] for side, words in ((a, words_a), (b, words_b)))
    partners: dict[int, int] = {}
    for i, j in _paired_words(named_a, named_b):
        one, other = words_a[i], words_b[j]
        partners |= {one.stop - n: other.stop - n for n in range(min(len(one), len(other)), 0, -1)}
    return partners


def _words(tokens: Sequence[Any], texts: Sequence[str] | None) -> list[range]:
    starts = [i for i, begins in enumerate(word_starts(texts)) if begins] if texts else list(range(len(tokens)))
    return [range(i, j) for i, j in pairwise([*starts, len(tokens)])]


def _paired_words(a: list[Any], b: list[Any]) -> list[tuple[int, int]]:
    equal = [o for o in Levenshtein.opcodes(a, b) if o.tag == "equal"]
    found: list[tuple[int, int]] = []
    i = j = 0
    for start_a, start_b, length in [*((o.src_start, o.dest_start, o.src_end - o.src_start) for o in equal),
                                     (len(a), len(b), 0)]:  # fmt: skip
        both = min(start_a - i, start_b - j)
        found += [(start_a - n, start_b - n) for n in range(both, 0, -1)]
        found += [(start_a + n, start_b + n) for n in range(length)]
        i, j = start_a + length, start_b + length
    return found
