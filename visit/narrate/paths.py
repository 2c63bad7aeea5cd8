"""Path patching in sentences: which head reaches the answer through what, by how much, and that the others do not."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Any

import pandas as pd

from visit.causal.path_lines import ALL_AT_ONCE, LOGITS
from visit.causal.thresholds import ADDS, COSTS
from visit.text.node_id import part_name
from visit.text.numbers import band, short, signed
from visit.text.visible import Sentence

INPUTS = {"q": ("query", "queries"), "k": ("key", "keys"), "v": ("value", "values")}
NAMED_SENDERS = 3
NAMED_HEADS = 6  # of receivers together, that a sentence lists
SMALL_PATH = 0.05  # logits: paths below are told as none


def path_story(table: pd.DataFrame, receiver: str | None = None) -> str:
    """What a table of `visit.paths` says of one receiver (None: its first), in a sentence, with bands."""
    return "".join(text for text, _ in path_pieces(table, receiver))


def path_pieces(table: pd.DataFrame, receiver: str | None = None) -> Sentence:
    """The same in pieces, each head with its id."""
    receiver = table["receiver"].iloc[0] if receiver is None else receiver
    rows = table[table["receiver"] == receiver]
    rows = rows.loc[rows["effect"].abs().sort_values(ascending=False, kind="stable").index].to_dict("records")
    through, lines, largest = through_words(table, receiver), table.attrs["prompts"], rows[0]
    over = f"logits of {short(table.attrs['difference'])}, "
    over += f"on average over {lines:,} prompts" if lines > 1 else "in 1 prompt"
    first = (part_name(largest["sender"]), largest["sender"])
    if abs(largest["effect"]) < SMALL_PATH:
        lead = f"No head reaches the answer {through}: the largest of {len(rows):,} is "
        return [(lead, None), first, (f", {signed(largest['effect'])} {over}.", None)]
    unsure = largest["low"] <= 0 <= largest["high"]
    reaches = "may reach" if unsure else "reaches"
    taken = f"with its partner’s value there the answer changes by {effect_with_band(largest)} {over}"
    found: Sentence = [first, (f" {reaches} the answer {through}: {taken}", None)]
    if unsure:
        found.append((" (a band that holds 0)", None))
    named = [
        row for row in rows[1:NAMED_SENDERS]
        if abs(row["effect"]) >= SMALL_PATH and not row["low"] <= 0 <= row["high"]
    ]  # fmt: skip
    for n, row in enumerate(named):
        found += [(", " if n else "; then ", None), (part_name(row["sender"]), row["sender"])]
        found.append((f" {effect_with_band(row)}", None))
    left = [row for row in rows[1:] if row not in named]
    others = "the other head stays" if len(left) == 1 else f"the other {len(left):,} heads stay"
    rest = f"; {others} within ±{_rounded_up(abs(left[0]['effect']))}" if left else ""
    return [*found, (f"{rest}.", None)]


def _rounded_up(value: float) -> str:
    """A bound that no number behind it exceeds: two digits, the last one rounded up."""
    step = 10.0 ** (floor(log10(value)) - 1) if value > 0 else 1.0
    return short(ceil(value / step - 1e-9) * step)


def inhibitor_story(found: pd.DataFrame, otherwise: pd.DataFrame) -> Sentence:
    """Which heads are inhibitors by `path_patching.inhibitors_of`, each with its two numbers; `otherwise`: by their
    effect alone, of `inhibitors_otherwise`."""
    if found.empty:
        return [(
            f"No head is an inhibitor by its paths: it adds less than {ADDS:g} either way, and through the movers’ "
            f"queries it moves the answer by more than {COSTS:g} logits against the repeated word.", None
        ), *_by_effect_alone(otherwise)]  # fmt: skip
    pieces: Sentence = [("Inhibitors by their paths: " if len(found) > 1 else "Inhibitor by its path: ", None)]
    for n, row in enumerate(found.to_dict("records")):
        adds, moves = signed(row["contribution"]), signed(row["effect"])
        told = f" ({adds}, {moves})" if n else f" (adds {adds} itself, through the movers’ queries {moves})"
        pieces += [(", " if n else "", None), (part_name(row["sender"]), row["sender"]), (told, None)]
    return [*pieces, (".", None), *_by_effect_alone(otherwise)]


def _by_effect_alone(rows: pd.DataFrame) -> Sentence:
    """Inhibitors of the table above that are none here: else the two lists would seem to contradict each other."""
    pieces: Sentence = []
    for n, row in enumerate(rows.to_dict("records")):
        lead = ", " if n else " By its effect above, but not by this way: "
        pieces += [(lead, None), (part_name(row["sender"]), row["sender"]), (f" ({signed(row['effect'])})", None)]
    return [*pieces, (".", None)] if pieces else []


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


def effect_with_band(row: dict[str, Any]) -> str:
    """`−0.91 [−1.4, −0.43]`; the number alone where one prompt leaves no band."""
    known = row["low"] == row["low"]
    return f"{signed(row['effect'])} {band(row['low'], row['high'])}" if known else signed(row["effect"])
