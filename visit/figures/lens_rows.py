"""The lens map as rows and cells: which rows say nothing and are folded, and what class a cell has. No torch.

A real model's lens reads punctuation for most of its depth (SmolLM2: until block 23 of 30). A block says nothing when
at four of five shown positions it reads a sign, white space, a byte, or a function word that the model does not predict
there, or no token above 5 %, and the target is below 5 % everywhere. Three or more such blocks in a row are one row;
the last quarter of the blocks, where the answer forms, and the embedding always stand as they are.

Through a fitted lens the blocks before the first that says more than habit are one row instead, and all of them grey.
A word that is not specific (`overview.lens_map`) is grey, too, and a target that is not gives a cell no colour.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Literal

import pandas as pd

from visit.drawing.style import DOWN, Swatch, pill_class, scale
from visit.graph.flowgraph import Node
from visit.text.numbers import bits, percent
from visit.text.visible import QUIET_KINDS, as_word, explained, visible, word_kind, word_list

MapColor = Literal["target", "rank", "top"]
FAINT = 0.05  # below it a word is grey, and a probability has no colour
EMPTY_SHARE = 0.8  # of the positions: from here on a row says nothing
RUN = 3  # rows that are folded together, at least
_STEPS = (FAINT, 0.1, 0.25, 0.5, 0.9)


def rows_of(
    table: pd.DataFrame, d_vocab: int, color: MapColor, target: str, function_word: Callable[[str], bool],
    whole: bool = False, names: Sequence[str] | None = None, readable_from: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Rows from the last block down to the embedding, as the component `visit.app.lens_map` takes them.

    table: `overview.lens_map`. color: what fills a cell: the target's probability, its rank (in the classes of
    the graph) or the probability of the cell's own word. target: the token followed. whole: the next words named of a
    cell are whole words only. names: what the columns are called (their tokens). readable_from: of the fitted lens that
    the table was read through (`Lens.readable_from`); None for the plain one.

    Returns `heads` and `positions` of the columns, `rows` (each `depth`, `name`, `state`, `habit`: a lens says no more
    than habit there, and `cells`: word, class, grey or not, hint, and the number
    that its fill stands for), `folds` (first and last depth, name, what is read),
    `title` and `fill` (class and meaning: the legend), and `words` (sign and meaning of the signs that occur).
    """
    records: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for cell in _as_records(table):
        records[cell["depth"]].append(cell)
    depths = sorted(records, reverse=True)
    look = _class_of(color, d_vocab)
    habit = range(1, (readable_from or 0) + 1)  # depths
    runs = empty_runs(table, function_word) if readable_from is None else [list(habit)] if len(habit) >= RUN else []
    folds = [_fold(run, records, function_word) for run in runs]
    tokens = [cell["token"] for cell in records[depths[0]]]
    return {
        "heads": list(names or map(visible, tokens)),
        "positions": [int(cell["pos"]) for cell in records[depths[0]]],
        "rows": [
            {
                "depth": int(d), "name": name_of(d), "state": records[d][0]["state"],
                "habit": int(bool(readable_from) and d <= (readable_from or 0)),
                "cells": [_map_cell(cell, look, name_of(d), target, whole, color) for cell in records[d]],
            }
            for d in depths
        ],
        "folds": folds,
        "title": {"target": f"Fill: probability of {as_word(target)}", "rank": f"Fill: rank of {as_word(target)}",
                  "top": "Fill: probability of the word in the cell"}[color],
        "fill": scale("rank", d_vocab, 0.0) if color == "rank" else _share_steps("e" if color == "top" else "t"),
        "words": explained(table["top"]) + ([_HABIT] if "usual" in table else []),
    }  # fmt: skip


def _as_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, without pandas: a row at a time costs it as much as reading the stream of ten tokens."""
    columns = {name: table[name].tolist() for name in table.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


_HABIT = ("grey", "also what any text leads to expect in this block")


def name_of(depth: int) -> str:
    """What a row of the map is called."""
    return "embedding" if depth == 0 else f"block {depth - 1}"


def empty_runs(table: pd.DataFrame, function_word: Callable[[str], bool]) -> list[list[int]]:
    """The runs of depths that say nothing, by the rule above; depth n is the stream after block n − 1."""
    cells = _as_records(table)
    last = max(cell["depth"] for cell in cells)
    final = {cell["pos"]: cell["top"] for cell in cells}  # the last row stands last
    said, seen = defaultdict(list), set()
    for cell in cells:
        if cell["prob"] >= FAINT:
            seen.add(cell["depth"])
        speaks = cell["top_prob"] >= FAINT and _says(cell["top"], final[cell["pos"]], function_word)
        said[cell["depth"]].append(speaks or cell["prob"] >= FAINT)
    shown = range(1, last - last // 4)  # the last quarter stands as it is
    silent = [d for d in shown if sum(said[d]) / len(said[d]) <= 1 - EMPTY_SHARE + 1e-9 and d not in seen]
    runs = [[d for _, d in run] for _, run in groupby(enumerate(silent), lambda pair: pair[1] - pair[0])]
    return [run for run in runs if len(run) >= RUN]


def _says(word: str, final: str, function_word: Callable[[str], bool]) -> bool:
    """Whether a top word tells anything: a word or a piece of one; a function word only where the model predicts it."""
    return word_kind(word) in ("word", "piece") and (word == final or not function_word(word))


def _fold(
    run: list[int], records: dict[int, list[dict[str, Any]]], function_word: Callable[[str], bool]
) -> dict[str, Any]:
    cells = [cell for d in run for cell in records[d]]
    kinds = Counter(_reads(cell, function_word) for cell in cells)
    named = [kind for kind, n in kinds.most_common(3) if n >= 0.15 * len(cells)]
    return {
        "first": run[0], "last": run[-1], "name": f"blocks {run[0] - 1}–{run[-1] - 1}", "reads": _and(named),
    }  # fmt: skip


def _reads(cell: dict[str, Any], function_word: Callable[[str], bool]) -> str:
    kind = word_kind(cell["top"])
    if cell["top_prob"] < FAINT:
        return "nothing above 5 %"
    if kind in ("word", "piece"):
        return "function words" if function_word(cell["top"]) else "other words"
    return {"space": "white space", "byte": "bytes", "sign": "punctuation"}[kind]


def _and(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def _class_of(color: MapColor, d_vocab: int) -> Callable[[dict[str, Any]], str]:
    if color == "rank":
        by_rank = pill_class("rank", d_vocab, 0.0)
        return lambda cell: by_rank(Node("", "", rank=int(cell["rank"])))
    column, letter = ("prob", "t") if color == "target" else ("top_prob", "e")

    def by_share(cell: dict[str, Any]) -> str:
        step = sum(cell[column] >= bound for bound in _STEPS)
        return f"{letter}{step}" if step else "g"

    return by_share


def _share_steps(letter: str) -> list[Swatch]:
    ends = [f"{100 * low:g}–{100 * high:g} %" for low, high in zip(_STEPS, [*_STEPS[1:], 1.0], strict=True)]
    return [("g", "under 5 %"), *((f"{letter}{n}", text) for n, text in enumerate(ends, start=1))]


def _map_cell(
    cell: dict[str, Any], look: Callable[[dict[str, Any]], str], name: str, target: str, whole: bool,
    color: MapColor,
) -> dict[str, Any]:  # fmt: skip
    word, kind = as_word(cell["top"]), look(cell)
    own, of_target = cell.get("specific", True), cell.get("target_specific", True)
    usual, target_usual = cell.get("usual", math.nan), cell.get("target_usual", math.nan)
    if not (own if kind[0] == "e" else of_target):
        kind = "g"
    following = ", ".join(word_list(cell["tokens"][1:], 4, whole))
    # grey words where they can be read: on no fill and on the palest
    faint = cell["top_prob"] < FAINT or word_kind(cell["top"]) in QUIET_KINDS or not own
    grey = kind in ("g", "t1", "e1", "b1") and faint
    hint = (
        f"{word} {percent(cell['top_prob'])}{_expected(usual)}\n"
        f"after {name}, at {visible(cell['token'])} (position {cell['pos']})\n"
        f"next: {following or 'no whole word among the first'}\n{as_word(target)}: {percent(cell['prob'])}, "
        f"{_rank(cell['rank'])}{_expected(target_usual)}\nentropy {bits(cell['entropy'])}"
    )
    beside = {"target": percent(cell["prob"]), "rank": _rank(cell["rank"]), "top": percent(cell["top_prob"])}
    return {"w": f"{DOWN} {word}" if kind[0] == "b" else word, "c": kind, "q": int(grey), "t": hint, "v": beside[color]}


def _rank(rank: int) -> str:
    return "not among the first words" if pd.isna(rank) else f"rank {rank:,}"


def _expected(usual: float) -> str:
    return "" if usual != usual else f" (over any text {percent(usual)} in this block)"
