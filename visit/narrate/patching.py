"""A map of patches in sentences: where B's value moves the answer from A's to B's. Pure functions of `visit.patch`.

The course of the answer through the stream, where every cell is measured, by these rules:
1. The carrier is the position whose value before the first block moves the answer most. It carries nearly the whole
   answer up to the last block before which every effect so far is at least 0.9 (most of it: 0.5, where none is 0.9).
2. The last position carries it from the first block on before which this and every later effect is at least 0.5.
3. Between the two, the middle block's effects at both places are told; any third place that once reaches 0.5 is named.
Of sums and heads the largest effects are named, for B's answer and away from it, as far as they reach 0.1.
Of a map that is partly estimated only measured cells are told; nothing is said of the others but that they are
estimates; of the stream, whose cells of one position are much alike, the largest of each position. Each number leads
to its cell ("L12.resid_pre@3").
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.text.numbers import ratio, short
from visit.text.visible import Sentence, quoted

WHOLE, MOST, PART = 0.9, 0.5, 0.1  # of the way from A's answer to B's
_AT_MOST = 3  # named on either side
_VALUE_OF = {"resid": "stream before", "attn_out": "attention output of", "mlp_out": "MLP output of",
             "heads": "value of"}  # fmt: skip
_OF_ALL = {"resid": "places", "attn_out": "attention outputs", "mlp_out": "MLP outputs", "heads": "heads"}


def patch_story(table: pd.DataFrame) -> list[Sentence]:
    """What was measured, in sentences of (text, id of a cell or None). `table`: `visit.patch`."""
    known = table[table["effect"].notna()]
    measured = known[known["exact"].astype(bool) | (known["changed"] == 0)]
    if len(measured) < len(known):
        told = _largest_effects(measured[measured["changed"] > 0], f"Of the {{}} measured{_ESTIMATED}, ")
        return told or [[(f"Nothing is measured yet{_ESTIMATED}.", None)]]
    if table.attrs["site"] == "resid" and known["pos"].notna().all():
        return _course(known)
    return _largest_effects(measured, f"Of all {{}} {_OF_ALL[table.attrs['site']]}, ")


_ESTIMATED = " (the others are estimates from one backward pass, which miss what is saturated)"


def scale_story(attrs: dict[str, Any]) -> str:
    """What 0 and 1 are: "In A “·Tokyo” leads “·Paris” by 11.1 logits (0); in B “·Paris” leads “·Tokyo” by 9.0 (1)."""
    b, a = (quoted(attrs[name]["token"]) for name in ("target", "distractor"))

    def leads(m: float) -> str:
        first, second = (b, a) if m > 0 else (a, b)
        return f"{first} leads {second} by {short(abs(m))}"

    return f"In A {leads(attrs['m_a'])} logits: that is 0. In B {leads(attrs['m_b'])}: that is 1."


# ---- the stream, block by block --------------------------------------------------------------------------------------
def _course(table: pd.DataFrame) -> list[Sentence]:
    effects = table.pivot(index="layer", columns="pos", values="effect").sort_index()
    layers, last = [int(n) for n in effects.index], int(effects.columns.max())
    carrier = int(effects.iloc[0].astype(float).idxmax())
    start = float(effects.iloc[0][carrier])
    if start < MOST:
        return [[
            ("No single position carries the answer from the start: the most that B’s value of one moves it before "
             f"block {layers[0]} is ", None), (ratio(start), _stream_cell(layers[0], carrier)),
            (f" of the way, at {_token_there(table, carrier)}. What differs stands in several places.", None),
        ]]  # fmt: skip
    level = WHOLE if start >= WHOLE else MOST
    until = _leading_run(effects[carrier], level)
    share = "nearly the whole answer" if level == WHOLE else "most of the answer"
    told: Sentence = [
        (f"{_value_from_b(table, carrier)} carries {share} up to block {until}: put in before any of these blocks, it "
         f"moves at least {ratio(level)} of the way", None),
    ]  # fmt: skip
    if carrier == last:
        return [[*told, (".", None)]]
    since = _leading_run(effects[last][::-1], MOST)
    sentences = [told]
    if since is None:
        told.append(
            (f". The last position, {_token_there(table, last)}, never carries half of it before a block.", None)
        )
    else:
        told.append((". ", None))
        if since - until > 1:
            middle = (until + since) // 2
            told += [(f"Before block {middle} it is on its way: ", None),
                     _share_of_way(effects, middle, carrier), (" there, ", None), _share_of_way(effects, middle, last),
                     (f" at the last position, {_token_there(table, last)}", None), (". ", None)]  # fmt: skip
        told += [(f"From block {since} on the last position, {_token_there(table, last)}, carries it: ", None),
                 _share_of_way(effects, since, last), (f" before block {since}", None)]  # fmt: skip
        if since != layers[-1]:
            told += [(", ", None), _share_of_way(effects, layers[-1], last), (f" before block {layers[-1]}", None)]
        told.append((".", None))
    others = effects.drop(columns=list({carrier, last})).astype(float)
    if others.size and others.max().max() >= MOST:
        place = int(others.max().idxmax())
        block = int(others[place].idxmax())
        sentences.append([(f"On its way it also stands at {_token_there(table, place)}: ", None),
                          _share_of_way(effects, block, place), (f" before block {block}.", None)])  # fmt: skip
    return sentences


def _leading_run(effects: pd.Series, least: float) -> Any:
    """The last block of the run, from the first on, in which every effect is at least `least`; None without one."""
    found = None
    for layer, effect in effects.items():
        if not effect >= least:
            break
        found = layer
    return found


def _share_of_way(effects: pd.DataFrame, layer: int, pos: int) -> tuple[str, str]:
    return ratio(float(effects.loc[layer, pos])), _stream_cell(layer, pos)


def _stream_cell(layer: int, pos: int) -> str:
    return f"L{layer}.resid_pre@{pos}"


def _token_there(table: pd.DataFrame, pos: int) -> str:
    row = table[table["pos"] == pos].iloc[0]
    return f"{quoted(row['token'])} (position {pos})"


def _value_from_b(table: pd.DataFrame, pos: int) -> str:
    row = table[table["pos"] == pos].iloc[0]
    if row["token"] == row["token_b"]:
        return f"B’s value at {_token_there(table, pos)}"
    return f"B’s {quoted(row['token_b'])} put where A has {_token_there(table, pos)}"


# ---- sums and heads --------------------------------------------------------------------------------------------------
def _largest_effects(table: pd.DataFrame, lead: str) -> list[Sentence]:
    """The largest effects, towards B's answer and away from it. `lead`: with a place for how many they are of."""
    if table.empty:
        return []
    order = table.sort_values("effect", key=abs, ascending=False, kind="stable")
    if table.attrs["site"] == "resid":  # from block to block the stream at a position is much the same
        order = order.drop_duplicates("pos")
    top, others = order.iloc[0], order.iloc[1:]
    effect, value = float(top["effect"]), _VALUE_OF[table.attrs["site"]]
    told: Sentence = [(f"{lead.format(f'{len(table):,}')}B’s {value} ", None), *_named_cell(top)]
    if abs(effect) < PART:
        return [[*told, (f" moves the answer most, and by {ratio(abs(effect))} of the way only.", None)]]
    away = ", and away from B’s" if effect < 0 else ""
    told.append((f" moves the answer most{away}: {ratio(abs(effect))} of the way", None))
    for begins, rows in (("; next ", others[others["effect"] >= PART]),
                         (". Away from B’s answer: ", others[others["effect"] <= -PART])):  # fmt: skip
        for n, row in enumerate(rows.head(_AT_MOST).to_dict("records")):
            told += [(", " if n else begins, None), *_named_cell(row), (f" ({ratio(row['effect'])})", None)]
    return [[*told, (".", None)]]


def _named_cell(row: Any) -> Sentence:
    """ "L23 H4", "block 12 at “·Japan” (position 3)": the first words lead to the cell."""
    where = "all" if pd.isna(row["pos"]) else str(int(row["pos"]))
    name = f"block {row['layer']}" if pd.isna(row["head"]) else f"L{row['layer']} H{row['head']}"
    link: Sentence = [(name, f"{row['id']}@{where}")]
    at = pd.isna(row["head"]) and where != "all"
    return [*link, (f" at {quoted(row['token'])} (position {where})", None)] if at else link
