"""Which token of one text stands for which token of another, by the fewest changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein


def token_partners(a: Sequence[Any], b: Sequence[Any]) -> dict[int, int]:
    """Position in `a` → its partner in `b`, where it has one: token ids or texts, aligned with the fewest changes.

    Where several tokens stand for several others they are paired from the last one backwards: a name of many tokens
    is gathered at its last. Source: Levenshtein's distance; the pairing of several is ours.
    """
    equal = [o for o in Levenshtein.opcodes(list(a), list(b)) if o.tag == "equal"]
    partners: dict[int, int] = {}
    i = j = 0
    for start_a, start_b, length in [*((o.src_start, o.dest_start, o.src_end - o.src_start) for o in equal),
                                     (len(a), len(b), 0)]:  # fmt: skip
        both = min(start_a - i, start_b - j)
        partners |= {start_a - n: start_b - n for n in range(1, both + 1)}
        partners |= {start_a + n: start_b + n for n in range(length)}
        i, j = start_a + length, start_b + length
    return partners
