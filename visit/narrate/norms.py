"""What a norm does to the words at one position, and which neurons speak there, in a sentence or two."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.text.numbers import percent, signed
from visit.text.visible import Sentence, quoted, word_list

_SHOWN = 3  # words of a neuron that a sentence names


def norm_story(table: pd.DataFrame, where: str) -> list[Sentence]:
    """The target's way through a norm, who stands on top before and after, and what loses and gains most.

    `table`: `visit.analyses.norms.token_shift`; `where`: "ln1 of layer 3", "the final norm".
    """
    target = table[table["is_target"]].iloc[0]
    before, after = int(target["before_rank"]), int(target["after_rank"])
    way = "stays at" if before == after else "rises from" if after < before else "falls from"
    ranks = f"rank {before:,}" if before == after else f"rank {before:,} to {after:,}"
    first = f"Through {where} {quoted(target['token'])} {way} {ranks} ({_before_and_after(target)})."
    tops = table.loc[table["before_rank"].idxmin()], table.loc[table["after_rank"].idxmin()]
    if tops[0]["id"] == tops[1]["id"]:
        top = f"{quoted(tops[0]['token'])} stays on top ({_before_and_after(tops[0])})."
    else:
        top = f"On top {quoted(tops[0]['token'])} gives way to {quoted(tops[1]['token'])}."
    loses, gains = table.loc[table["delta"].idxmin()], table.loc[table["delta"].idxmax()]
    parts = [f"{quoted(row['token'])} {verb} most ({_before_and_after(row)})" for row, verb, sign in
             ((loses, "loses", -1), (gains, "gains", 1)) if sign * row["delta"] > 0]  # fmt: skip
    moved = f"Of all words {', '.join(parts)}." if parts else "No word's probability changes."
    return [[(first, None)], [(f"{top} {moved}", None)]]


def _before_and_after(row: pd.Series) -> str:
    before, after = (percent(float(row[f"{side}_prob"])) for side in ("before", "after"))
    return f"{before} → {after}" if before != after else f"{before} before and after"


def neuron_story(table: pd.DataFrame, target: str, kind: str) -> list[Sentence]:
    """The longest neuron of a layer and what it writes; which of those shown push most for and against the target.

    `table`: `visit.analyses.neurons.active_neurons`; `target`: the word as it is shown.
    """
    rows = table[table["neuron"].notna()]
    if rows.empty:
        return []
    row = rows.loc[rows["norm"].idxmax()]
    whole = word_list(row["tokens"], _SHOWN, True)
    words = ", ".join(f"“{w}”" for w in whole) if whole else "no whole word, but pieces, bytes and signs"
    what = "MLP neurons" if kind == "mlp" else "rows of W_O"
    first: Sentence = [(f"Of layer {row['layer']}'s {what} {_norm_name(row)} writes most here: {words}.", None)]
    most, least = rows.loc[rows["contribution"].idxmax()], rows.loc[rows["contribution"].idxmin()]
    said = [f"{_norm_name(one)} {verb} “{target}” most ({signed(one['contribution'])} logits)" for one, verb, sign in
            ((most, "pushes towards", 1), (least, "away from", -1)) if sign * one["contribution"] > 0]  # fmt: skip
    return [first, [(f"Of those shown {', '.join(said)}.", None)]] if said else [first]


def _norm_name(row: Any) -> str:
    return f"N{int(row['neuron'])}"
