"""What a lesson may ask of a run: a small closed list of phrases, each with the kind of answer that it gives.

A phrase is read word for word; its slots are

- `{nth}`: largest, second largest, third largest; `{set}`: heads, neurons, mlps, attentions (whole layers of each)
- `{node}`: a node such as L4.head1, or a name of `let` that is one
- `{pos}`: last position, position 3, position of "Japan" (the last token that reads so), or a name of `let`
- `{block}`: block 3, last block, or a name of `let` that is a block's number
- `{word}`: a word in quotation marks

Of noise, and of what brings something back, phrases are about the causal trace as its page makes it at first: its own
guess of the subject, and its usual numbers.

On Compare a phrase is about the first text, A; `in B: …` in front of it asks the same of the second one. What else such
a question says in `{…}` is then of B, too, and `in A: …` asks of the first.

Blocks, heads and positions count from 0, as on the pages. What a phrase means is computed in `visit.lessons.queries`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from visit.errors import VisitError
from visit.text.node_id import NodeId
from visit.text.visible import visible

AnswerKind = Literal["node", "position", "token", "number"]
Unit = Literal["", "share", "logits", "length", "count", "block"]
Side = Literal["", "A", "B"]
SETS = ("heads", "neurons", "mlps", "attentions")
NTH = ("largest", "second largest", "third largest")

# phrase -> (its name, the kind of its answer, the unit of a number)
PHRASES: dict[str, tuple[str, AnswerKind, Unit]] = {
    "{nth} contribution among {set}": ("contribution among", "node", ""),
    "{nth} contribution against among {set}": ("against among", "node", ""),
    "{nth} effect among {set}": ("effect among", "node", ""),
    "{nth} norm among {set}": ("norm among", "node", ""),
    "{nth} attention to {pos} among heads": ("attention among", "node", ""),
    "position attended most by {node}": ("attended", "position", ""),
    "source of {node}": ("source", "position", ""),
    "position that brings most back after {block}": ("brings back", "position", ""),
    "last position": ("last position", "position", ""),
    "position {count}": ("position", "position", ""),
    "position of {word}": ("position of", "position", ""),
    "final prediction": ("prediction", "token", ""),
    "second prediction": ("second", "token", ""),
    "target": ("target", "token", ""),
    "distractor": ("distractor", "token", ""),
    "word {word}": ("word", "token", ""),
    "word at {pos}": ("word at", "token", ""),
    "top word after {block}": ("top after", "token", ""),
    "top word after {block} at {pos}": ("top after", "token", ""),
    "top word of {node}": ("top of", "token", ""),
    "top word recalled by {node} at {pos}": ("recalled", "token", ""),
    "probability of target": ("probability", "number", "share"),
    "probability of target after {block}": ("probability after", "number", "share"),
    "probability of target without {node}": ("probability without", "number", "share"),
    "probability of target under noise": ("probability under noise", "number", "share"),
    "attention of {node} to {pos}": ("attention", "number", "share"),
    "rank of target after {block}": ("rank after", "number", "count"),
    "rank of target in {node}": ("rank in", "number", "count"),
    "contribution of {node}": ("contribution", "number", "logits"),
    "effect of removing {node}": ("effect", "number", "logits"),
    "norm of {node}": ("norm", "number", "length"),
    "norm after {block}": ("norm after", "number", "length"),
    "first block where the target is first": ("first block", "number", "block"),
    "last block that brings half back at {pos}": ("half back", "number", "block"),
    "block of {node}": ("block of", "number", "block"),
    "number of tokens": ("tokens", "number", "count"),
    "number of blocks": ("blocks", "number", "count"),
    "number of heads per block": ("heads", "number", "count"),
    "{count}": ("number", "number", "count"),
}

_SLOTS = {
    "nth": "|".join(sorted(NTH, key=len, reverse=True)),
    "set": "|".join(SETS),
    "node": r"[A-Za-z][A-Za-z0-9_.]{0,59}",
    "pos": r'last position|position \d{1,6}|position of "[^"]{1,60}"|[a-z][a-z0-9_]{0,29}',
    "block": r"last block|block \d{1,4}|[a-z][a-z0-9_]{0,29}",
    "word": r'"[^"]{1,60}"',
    "count": r"\d{1,9}(?:\.\d{1,6})?",
}
_PHRASE_FORMS = {
    phrase: re.compile(re.sub(r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{_SLOTS[m[1]]})", re.escape(phrase)), re.ASCII)
    for phrase in PHRASES
}


@dataclass(frozen=True)
class Query:
    """One phrase as it was read. `args`: slot -> what stands there, a text or another query."""

    text: str
    name: str
    kind: AnswerKind
    unit: Unit = ""
    args: tuple[tuple[str, str | Query], ...] = ()
    side: Side = ""  # of two texts, the one that it is about; "": that of the question

    def arg(self, slot: str) -> str | Query | None:
        return dict(self.args).get(slot)


def parse_query(text: str, let: Mapping[str, Query]) -> Query:
    """Read a phrase. `let`: names that stand for queries. Raises `VisitError` that says what is allowed."""
    text = " ".join(text.split())
    if of := re.match(r"in ([AB]): ", text):
        return replace(parse_query(text[of.end() :], let), side="A" if of[1] == "A" else "B")
    if text in let:
        return let[text]
    node = NodeId.parse(text)
    if node is not None:
        return Query(text, "node", "node")
    for phrase, read in _PHRASE_FORMS.items():
        if found := read.fullmatch(text):
            name, kind, unit = PHRASES[phrase]
            args = tuple((slot, _argument(slot, value, let, text)) for slot, value in found.groupdict().items())
            return Query(text, name, kind, unit, args)
    near = get_close_matches(text, PHRASES, n=3, cutoff=0.5)
    offered = near or ["largest contribution among heads", "top word after block 3", "effect of removing L4.head1"]
    raise VisitError(
        f"“{visible(text)[:80]}” is nothing that can be asked of a run. Allowed are phrases such as "
        f"{', '.join(f'“{one}”' for one in offered)}; the guide for teachers lists all {len(PHRASES)}."
    )


def _argument(slot: str, value: str, let: Mapping[str, Query], text: str) -> str | Query:
    if slot == "word":
        return value[1:-1]
    wanted = {"node": "node", "pos": "position", "block": "number"}.get(slot)
    if wanted is None:
        return value
    if value in let and let[value].kind == wanted:
        return let[value]
    if slot == "node" and NodeId.parse(value) is not None:
        return Query(value, "node", "node")
    if slot == "pos" and " " in value:
        return parse_query(value, {})
    if slot == "block" and " " in value:
        return value
    known = [name for name, query in let.items() if query.kind == wanted]
    names = f"; names that stand for one here: {', '.join(known)}" if known else ""
    like = {"node": "a node such as L4.head1", "pos": "last position, position 3 or position of \"Japan\"",
            "block": "block 3 or last block"}[slot]  # fmt: skip
    raise VisitError(f"“{visible(value)[:40]}” in “{visible(text)[:80]}” is unknown: write {like}{names}.")
