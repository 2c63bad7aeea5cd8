"""Path patching in sentences: which head reaches the answer through what, by how much, and that the others do not."""

from __future__ import annotations

import pandas as pd

from visit.causal.path_lines import ALL_AT_ONCE, LOGITS
from visit.text.node_id import part_name
from visit.text.numbers import band, short, signed

INPUTS = {"q": ("query", "queries"), "k": ("key", "keys"), "v": ("value", "values")}
NAMED_SENDERS = 3
NAMED_HEADS = 6  # of receivers together, that a sentence lists
SMALL_PATH = 0.05  # logits: paths below are told as none


def path_story(table: pd.DataFrame, receiver: str | None = None) -> str:
    """What a table of `visit.paths` says of one receiver (None: its first), in a sentence or two, with bands."""
    receiver = table["receiver"].iloc[0] if receiver is None else receiver
    rows = table[table["receiver"] == receiver]
    rows = rows.loc[rows["effect"].abs().sort_values(ascending=False, kind="stable").index].to_dict("records")
    through = through_words(table, receiver)
    lines = table.attrs["prompts"]
    over = f"of {short(table.attrs['difference'])}, {'on average over' if lines > 1 else 'in'} {lines:,} prompt"
    over += "s" if lines > 1 else ""
    largest = rows[0]
    if abs(largest["effect"]) < SMALL_PATH:
        return (
            f"No head reaches the answer {through}: the largest of {len(rows):,} is "
            f"{part_name(largest['sender'])}, {_with_band(largest)} logits {over}."
        )
    first = f"{part_name(largest['sender'])} reaches the answer {through}: {_with_band(largest)} logits {over}"
    named = [row for row in rows[1:NAMED_SENDERS] if abs(row["effect"]) >= SMALL_PATH]
    then = "".join(f", {part_name(row['sender'])} {_with_band(row)}" for row in named)
    left = rows[1 + len(named) :]
    rest = f"; the other {len(left):,} heads stay within ±{short(abs(left[0]['effect']))}" if left else ""
    return f"{first}{f'; then{then[1:]}' if then else ''}{rest}."


def through_words(table: pd.DataFrame, receiver: str) -> str:
    """How paths to a receiver go: "through the queries of L23 H0, H1 and H7", "past all other heads"."""
    if receiver == LOGITS:
        return "past all other heads"
    heads = table.attrs["receivers"][receiver]
    one, many = INPUTS[table.attrs["kind"]]
    if receiver not in (ALL_AT_ONCE, *heads):  # a key or value that heads share
        return f"through the {one} of {part_name(receiver)}, which {heads_together(heads)} share"
    return f"through the {one if len(heads) == 1 else many} of {heads_together(heads)}"


def heads_together(names: list[str]) -> str:
    """Heads by layer: "L23 H0, H1 and H7"; of many their number: "12 heads of layers 20 to 23"."""
    told = [part_name(name) for name in names]
    layers = list(dict.fromkeys(name.split()[0] for name in told))
    if len(told) > NAMED_HEADS:
        ends = layers[0][1:], layers[-1][1:]
        return f"{len(told)} heads of layer{'' if len(layers) == 1 else 's'} {' to '.join(dict.fromkeys(ends))}"
    if len(layers) == 1:
        told = [told[0], *(name.split()[1] for name in told[1:])]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _with_band(row: dict[str, float]) -> str:
    known = row["low"] == row["low"]
    return f"{signed(row['effect'])} {band(row['low'], row['high'])}" if known else signed(row["effect"])
