"""Which token of one prompt stands for which token of another: the alignment of two passes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from visit.errors import VisitError
from visit.text.alignment import Texts, token_partners, word_starts
from visit.text.visible import visible

if TYPE_CHECKING:  # a recording is read without torch
    from visit.activations.record import Activations
    from visit.models.model import Model

Kind = Literal["equal", "replaced", "inserted", "deleted"]
Fix = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """Positions that stand for each other; None where one prompt has no such token.

    kind: "equal" (the same token), "replaced", "inserted" (only in B), "deleted" (only in A).
    """

    a: int | None
    b: int | None
    kind: Kind


@dataclass(frozen=True)
class Pairing:
    """All pairs of two prompts, in reading order; every position of both stands in exactly one."""

    pairs: tuple[Pair, ...]

    @cached_property
    def to_b(self) -> dict[int, int]:
        """Position in A → its partner in B, where it has one."""
        return {p.a: p.b for p in self.pairs if p.a is not None and p.b is not None}

    @cached_property
    def to_a(self) -> dict[int, int]:
        """Position in B → its partner in A, where it has one."""
        return {b: a for a, b in self.to_b.items()}

    def table(self, tokens_a: Sequence[str], tokens_b: Sequence[str]) -> pd.DataFrame:
        """A row a pair: `pos_a`, `token_a`, `pos_b`, `token_b`, `kind`."""
        rows = [
            (p.a, None if p.a is None else tokens_a[p.a], p.b, None if p.b is None else tokens_b[p.b], p.kind)
            for p in self.pairs
        ]
        table = pd.DataFrame(rows, columns=["pos_a", "token_a", "pos_b", "token_b", "kind"])
        return table.astype({"pos_a": "Int64", "pos_b": "Int64"})


def pair(model_a: Model, a: Activations, model_b: Model, b: Activations, fixes: Iterable[Fix] = ()) -> Pairing:
    """Align two passes token by token.

    With one vocabulary the token ids are compared. With two vocabularies and one text, tokens that end at the same
    character are paired: what a state knows is the text up to there. Otherwise the tokens' texts are compared.
    `fixes`: (position in A, position in B) pairs that overrule the alignment; None on one side: no partner.
    Raises `VisitError` for a fix that names a position that does not exist, or one position twice. Source: ours.
    """
    if model_a.vocabulary == model_b.vocabulary:
        return pair_tokens(a.token_ids, b.token_ids, fixes, (a.tokens, b.tokens))
    if a.prompt == b.prompt and a.chat is None and b.chat is None:  # two templates are two texts
        ends = [_ends(m.tokenizer, r) for m, r in ((model_a, a), (model_b, b))]
        return _paired(_same_ends(*ends), a.tokens, b.tokens, fixes)
    return pair_tokens(a.tokens, b.tokens, fixes, (a.tokens, b.tokens))


def pair_tokens(
    a: Sequence[Any], b: Sequence[Any], fixes: Iterable[Fix] = (), texts: Texts | None = None
) -> Pairing:  # fmt: skip
    """Align two sequences of token ids or of texts with the fewest changes: `token_partners`, as a table of pairs.

    `texts`: what the tokens read, for words to be aligned before their pieces; None: every token is a word.
    """
    return _paired(token_partners(a, b, texts), a, b, fixes)


def parse_fixes(text: str) -> tuple[Fix, ...]:
    """`"3:5,4:,:6"` as pairs: 3 with 5, A's 4 and B's 6 alone."""
    fixes: list[Fix] = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"(\d{0,6}):(\d{0,6})", part.strip(), re.ASCII)
        if not found or part.strip() == ":":
            raise VisitError(f"Corrections of the alignment are written 3:5,4:,:6 (A:B); got {part[:40]!r}.")
        fixes.append((int(found[1]) if found[1] else None, int(found[2]) if found[2] else None))
    return tuple(fixes)


def _paired(partners: dict[int, int], a: Sequence[Any], b: Sequence[Any], fixes: Iterable[Fix]) -> Pairing:
    to_b = _fixed(dict(partners), tuple(fixes), len(a), len(b))
    taken = set(to_b.values())
    single = [j for j in range(len(b)) if j not in taken]
    pairs: list[Pair] = []
    for i in range(len(a)):
        j = to_b.get(i)
        while j is not None and single and single[0] < j:
            pairs.append(Pair(None, single.pop(0), "inserted"))
        kind: Kind = "deleted" if j is None else "equal" if a[i] == b[j] else "replaced"
        pairs.append(Pair(i, j, kind))
    return Pairing((*pairs, *(Pair(None, j, "inserted") for j in single)))


def _fixed(to_b: dict[int, int], fixes: tuple[Fix, ...], length_a: int, length_b: int) -> dict[int, int]:
    """The partners with the user's corrections; a former partner of a corrected token stays alone."""
    for side, length in (("A", length_a), ("B", length_b)):
        named = [n for n in (fix[side == "B"] for fix in fixes) if n is not None]
        if wrong := [n for n in named if n >= length]:
            raise VisitError(f"Prompt {side} has the positions 0 to {length - 1}; the correction names {wrong[0]}.")
        if len(set(named)) < len(named):
            raise VisitError(f"The corrections name one position of prompt {side} twice: {sorted(named)}.")
    for a, b in fixes:
        to_b = {i: j for i, j in to_b.items() if i != a and j != b}
        if a is not None and b is not None:
            to_b[a] = b
    return to_b


def _same_ends(ends_a: list[int], ends_b: list[int]) -> dict[int, int]:
    """Tokens that end at the same character; of several (a character of many bytes) the last ones together."""
    where: dict[int, list[int]] = {}
    for j, end in enumerate(ends_b):
        where.setdefault(end, []).append(j)
    partners = {}
    for i in reversed(range(len(ends_a))):
        if where.get(ends_a[i]):
            partners[i] = where[ends_a[i]].pop()
    return partners


def _ends(tokenizer: Any, acts: Activations) -> list[int]:
    """After how many characters of the prompt each token ends; 0 for a start token that is not in the text."""
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(acts.prompt, return_offsets_mapping=True)
        if tuple(encoded["input_ids"]) == acts.token_ids:
            return [end for _, end in encoded["offset_mapping"]]
    ends, at = [], 0
    for token in acts.tokens:  # a slow tokenizer, or ids that were given: the tokens' own lengths
        bare = token.lstrip(" ")
        at += len(token) if acts.prompt.startswith(token, at) else len(bare) * acts.prompt.startswith(bare, at)
        ends.append(at)
    return ends


def word_columns(pairing: Pairing, tokens_a: Sequence[str], tokens_b: Sequence[str]) -> list[tuple[Pair, ...]]:
    """The pairs of each word together: “·Japan” stands for all pieces of “·Kingdom”, not for its last letter."""
    starts_a, starts_b = word_starts(tokens_a), word_starts(tokens_b)
    columns: list[list[Pair]] = []
    for p in pairing.pairs:
        known = columns[-1] if columns else []
        continues = []
        for at, starts, taken in ((p.a, starts_a, any(q.a is not None for q in known)),
                                  (p.b, starts_b, any(q.b is not None for q in known))):  # fmt: skip
            if at is not None:
                continues.append(not starts[at] if taken else None)
        if known and False not in continues and True in continues:
            known.append(p)
        else:
            columns.append([p])
    return [tuple(column) for column in columns]


def describe(pairing: Pairing, tokens_a: Sequence[str], tokens_b: Sequence[str]) -> str:
    """The differences in words: “·Japan” → “·France”, + “·not”, − “·big”; empty for two equal prompts."""
    parts = []
    for column in word_columns(pairing, tokens_a, tokens_b):
        if all(p.kind == "equal" for p in column):
            continue
        a = "".join(tokens_a[p.a] for p in column if p.a is not None)
        b = "".join(tokens_b[p.b] for p in column if p.b is not None)
        both = f"“{visible(a)}” → “{visible(b)}”"
        parts.append(both if a and b else f"+ “{visible(b)}”" if b else f"− “{visible(a)}”")
    return ", ".join(parts)
