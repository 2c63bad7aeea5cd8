"""The lines of path patching: a prompt, its partner, two words, a position; and the heads whose inputs are replaced.

What cannot be used of a set is left out with its line and the reason, as in every run over a set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from visit.errors import VisitError, check_choice, check_kind, check_range
from visit.models.model import Model, tokenize
from visit.runs.prompts import Note, PromptSet, Row, named_prompts
from visit.text.node_id import NodeId

PATH_KINDS = ("q", "k", "v")
LOGITS = "logits"  # the receiver that is the stream after the last block
ALL_AT_ONCE = "together"  # what all heads that receive are called, where all take what they get at once
PARTNER = "abc"  # the column that holds a line's partner


@dataclass(frozen=True)
class PathLine:
    """One prompt as it is run: up to the position that is looked at, with a partner of as many tokens.

    `pos`: where the sender stands, and what receives. `prompt`: what a job weighs the line by.
    """

    prompt: str
    ids: tuple[int, ...]
    partner: tuple[int, ...]
    target: int
    distractor: int
    pos: int


@dataclass(frozen=True)
class Receiver:
    """Where paths end: the stream after the last block (no heads), or inputs of heads `(layer, head)`, all at once."""

    name: str
    heads: tuple[tuple[int, int], ...] = ()

    def layers(self, model: Model) -> tuple[int, int]:
        """The first and the last block that receives; behind the last one for the logits."""
        return (model.n_layers, model.n_layers) if not self.heads else (self.heads[0][0], self.heads[-1][0])


# ---- who receives ----------------------------------------------------------------------------------------------------
def receivers_of(model: Model, receivers: str | Iterable[str], kind: str) -> list[Receiver]:
    """The receivers asked for, each by itself; before them all heads together where there are several.

    Raises `VisitError` for what is no receiver here, and for one that no head stands before.
    """
    check_choice("kind", kind, PATH_KINDS)
    check_kind("receivers", receivers, (str, Iterable), 'a list of "logits" and ids of heads such as "L9.head6"')
    names = list(dict.fromkeys([receivers] if isinstance(receivers, str) else receivers))
    if not names:
        raise VisitError('receivers must be "logits" or at least one head such as L9.head6; got none.')
    found = [_receiver(model, str(name), kind) for name in names]
    several = [one for one in found if one.heads]
    if len(several) > 1:
        found.insert(0, Receiver(ALL_AT_ONCE, tuple(sorted({head for one in several for head in one.heads}))))
    return found


def _receiver(model: Model, name: str, kind: str) -> Receiver:
    if name == LOGITS:
        return Receiver(name)
    node = NodeId.parse(name)
    if node is None or node.layer is None or node.kind not in ("head", "kv_head"):
        raise VisitError(
            'A receiver is "logits", a head (L9.head6), or with kind k or v also a shared key/value head '
            f"(L9.kv_head2); got {name!r}."
        )
    check_range(f"Layers of {model.name}", node.layer, model.n_layers)
    if node.layer == 0:
        raise VisitError(f"Nothing but the embedding comes before the heads of layer 0: no head sends to {name}.")
    if node.head is not None:
        check_range(f"Heads of {model.name}", node.head, model.n_heads)
        return Receiver(name, ((node.layer, node.head),))
    if kind == "q":
        raise VisitError(f"Queries belong to one head each, keys and values may be shared; got {name!r} with kind 'q'.")
    assert node.kv_head is not None
    check_range(f"Key/value heads of {model.name}", node.kv_head, model.n_kv_heads)
    group = model.n_heads // model.n_kv_heads
    return Receiver(name, tuple((node.layer, node.kv_head * group + n) for n in range(group)))


# ---- the set ---------------------------------------------------------------------------------------------------------
def table_rows(table: Any, model_name: str, what: str = "prompts") -> tuple[list[dict[str, Any]], list[Note]]:
    """A table as a list of rows by column names, with notes about what was left out.

    `table`: a file's path or a shipped set's name, a `PromptSet`, a DataFrame, or a list of rows, dicts or prompts.
    """
    if isinstance(table, str | Path):
        table = named_prompts(table, model_name)
    notes: list[Note] = []
    if isinstance(table, PromptSet):
        table, notes = table.rows, list(table.notes)
    elif isinstance(table, pd.DataFrame):
        if "prompt" not in table:
            raise VisitError(
                f"The table of {what} needs a column prompt; it has {', '.join(map(str, table)) or 'none'}."
            )
        blank = table.astype(object).where(table.notna(), None)
        table = blank.to_dict("records")
    check_kind(what, table, Sequence, "a table with a column prompt, a list of prompts, or a file")
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(table, start=1):
        if isinstance(row, Row):
            row = {
                **dict(row.others),
                **{n: getattr(row, n) for n in ("prompt", "target", "distractor", "line", "pos")},
                PARTNER: row.abc,
            }
        elif not isinstance(row, Mapping):
            row = {"prompt": row}
        rows.append({**row, "line": row.get("line") or number})
    if not rows:
        raise VisitError(f"The table of {what} is empty. Give at least one line.")
    return rows, notes


def path_lines(
    model: Model,
    prompts: Any,
    abc: Any = None,
    receivers: Sequence[Receiver] = (Receiver(LOGITS),),
    sender_pos: int | str = -1,
    receiver_pos: int | str = -1,
    first_token: bool = False,
) -> tuple[list[PathLine], list[Note]]:
    """Every line that can be run, and notes about the others. See `visit.paths`.

    Raises `VisitError` where none is left, or prompts and partners do not stand side by side.
    """
    rows, notes = table_rows(prompts, model.name)
    partners = _partners(rows, notes, abc, model.name)
    at_end = any(not one.heads for one in receivers)
    lines: list[PathLine] = []
    for row, partner in zip(rows, partners, strict=True):
        try:
            line = _checked_line(model, row, partner, sender_pos, receiver_pos, first_token)
            if at_end and line.pos != len(line.ids) - 1:
                raise VisitError(
                    f"the logits are read at position {len(line.ids) - 1}, and with all other heads frozen nothing "
                    f"gets there from position {line.pos}"
                )
        except VisitError as error:
            notes.append(Note(row["line"], str(error).removesuffix(".")))
        else:
            lines.append(line)
    if not lines:
        raise VisitError(f"No line can be used for path patching; {notes[0]}.")
    return lines, notes


def _partners(rows: list[dict[str, Any]], notes: list[Note], abc: Any, model_name: str) -> list[Any]:
    """The partner of every row: of a column, or of a second table's rows in their order."""
    column = PARTNER if abc is None else abc if isinstance(abc, str) and any(abc in row for row in rows) else None
    if column is not None:
        return [row.get(column) for row in rows]
    others, more = table_rows(abc, model_name, "partners")
    if len(others) != len(rows):
        raise VisitError(
            f"Every prompt needs its partner, line by line; got {len(rows):,} prompts and {len(others):,} partners."
        )
    if left_out := [*notes, *more]:
        raise VisitError(
            f"Prompts and partners do not stand side by side: {left_out[0]}. Mend it, or give both in one file."
        )
    return [row["prompt"] for row in others]


def _checked_line(
    model: Model, row: dict[str, Any], partner: Any, sender_pos: int | str, receiver_pos: int | str, first_token: bool
) -> PathLine:
    for column in ("target", "distractor"):
        if row.get(column) is None:
            raise VisitError(f"no {column}: path patching follows target − distractor")
    if partner is None:
        raise VisitError("no partner: give a column abc, or a second table, whose runs the sender's values come from")
    target, distractor = (word_id(model, row[column], column, first_token) for column in ("target", "distractor"))
    if target == distractor:
        raise VisitError(f"target and distractor must differ; both are {model.vocabulary[target]!r}")
    ids, other = tokenize(model, row["prompt"]), tokenize(model, partner)
    if len(ids) != len(other):
        raise VisitError(f"the partner must have as many tokens as the prompt, {len(ids)}; it has {len(other)}")
    end = _index(-1 if row.get("pos") is None else row["pos"], len(ids))
    ids, other = ids[: end + 1], other[: end + 1]
    sender, receiver = (_stands_at(model, row, given, ids) for given in (sender_pos, receiver_pos))
    if sender != receiver:
        raise VisitError(
            f"the sender stands at position {sender}, what receives at {receiver}: every other head is frozen, so that "
            "nothing passes from one position to another. A query, key or value is named by the position it is made at"
        )
    text = row["prompt"] if isinstance(row["prompt"], str) else " ".join(map(str, ids))
    return PathLine(text, ids, other, target, distractor, sender)


def word_id(model: Model, word: Any, name: str, first_token: bool) -> int:
    """The token of a target or distractor, called `name`. Of a word of several tokens the first, where `first_token`
    says so; else a `VisitError`."""
    try:
        return model.token_id(word, name)
    except VisitError:
        if not first_token or not (ids := pieces_of(model, word)):
            raise
        return ids[0]


def pieces_of(model: Model, word: Any) -> list[int]:
    """The tokens of a word that may have several; none of what is no text."""
    return list(model.tokenizer.encode(word, add_special_tokens=False)) if isinstance(word, str) else []


def _index(pos: int, length: int) -> int:
    if isinstance(pos, bool) or not hasattr(pos, "__index__") or not -length <= pos < length:
        raise VisitError(f"a position must be from 0 to {length - 1}, or negative from the end; got {pos!r}")
    return int(pos) % length


def _stands_at(model: Model, row: dict[str, Any], given: int | str, ids: Sequence[int]) -> int:
    """A position of the row, -1 the looked-at one, or what a column names: a number, or a word's last place."""
    if not isinstance(given, str):
        return _index(given, len(ids))
    if given not in row or row[given] is None:
        raise VisitError(
            f"no column {given!r}; it has {', '.join(n for n in row if row[n] is not None and n != 'line')}"
        )
    value = row[given]
    if not isinstance(value, str):
        return _index(value, len(ids))
    if re.fullmatch(r"-?[0-9]{1,6}", value.strip(), re.ASCII):
        return _index(int(value), len(ids))
    word = model.token_id(value, given)
    if word not in ids:
        raise VisitError(f"{value!r} of column {given} does not stand in the prompt")
    return max(i for i, token in enumerate(ids) if token == word)
