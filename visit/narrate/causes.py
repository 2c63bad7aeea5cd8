"""Causes in sentences: which heads are for and against a word, and what really happens without each of them.

Pure functions of tables (`visit.effects`, `causal.named_heads`). What a part adds directly is told as such; what it is
needed for is told by what was measured without it, and the two are set side by side.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.causal.thresholds import ADDS, AS_MUCH, COSTS, MADE_UP, MORE, changed_by, steers
from visit.text.numbers import percent, short, signed
from visit.text.visible import Sentence, as_word, quoted

_INSTEAD = {"zero": "without it", "mean": "with its mean instead", "from": "with the other run's instead"}


def cause_story(named: pd.DataFrame) -> list[Sentence]:
    """The heads most for the target, those most against it, those that steer others: a sentence each, behind a lead.

    `named`: `causal.named_heads`. Each sentence tells source, what is recalled there, contribution, measured effect.
    """
    attrs = named.attrs
    words = [None if attrs[name] is None else quoted(attrs[name]["token"]) for name in ("target", "distractor")]
    over = f"{words[0]}" if words[1] is None else f"{words[0]} over {words[1]}"
    leads = {
        "for": f"Most for {over}:",
        "against": f"Most against {over}:",
        "steers": f"What adds next to nothing for {over} itself, and changes what others do:",
    }
    sentences: list[Sentence] = []
    for side, lead in leads.items():
        rows = named[named["side"] == side]
        if len(rows):
            sentences.append([(lead, None)])
            sentences += [_head_sentence(row, attrs, words) for row in rows.to_dict("records")]
    nothing = f"No head adds to {over}, or takes from it, as much as {short(ADDS)} logits, or is missed when it is out."
    return sentences or [[(nothing, None)]]


def _head_sentence(row: dict[str, Any], attrs: dict[str, Any], words: list[str | None]) -> Sentence:
    """ "L23 H3 suppresses “·John” (position 9, pattern 0.74): the negative of its memory value there reads …. It …" """
    where = f"{quoted(row['source_token'])} (position {row['source_pos']}, pattern {short(row['source_pattern'])})"
    reads = ", ".join(f"“{as_word(word)}”" for word in row["recalls"])
    what = {
        "copies": f"copies {where}: its memory value there reads {reads}",
        "suppresses": f"suppresses {where}: the negative of its memory value there reads {reads}",
        "steers others": f"draws most on {where}",
    }.get(row["kind"], f"draws on {where}, whose memory value reads {reads}")
    split = ""
    if words[1] is not None and row["side"] != "steers":
        split = f" ({signed(row['target_part'])} for {words[0]}, {signed(row['distractor_part'])} off {words[1]})"
    return [
        (f"L{row['layer']} H{row['head']}", row["node"]),
        (f" {what}. It {effect_text(row, attrs['before'], attrs['how'], split)}.", None),
    ]


def effect_text(row: dict[str, Any], before: dict[str, Any], how: str = "zero", split: str = "") -> str:
    """What a part adds directly, and what was measured without it: "adds +2.5 directly; without it 99.5 % → 99.4 %:
    others make up for it".

    `row`, `before`: of `visit.effects`; with a distractor the two numbers are the difference of the logits, else the
    target's probability. `split`: said behind the contribution.
    """
    contribution, change = float(row["contribution"]), changed_by(row, before)
    compared = before["difference"] == before["difference"]
    name, text = ("difference", short) if compared else ("prob", percent)
    old, new = text(before[name]), text(row[name])
    direct = f"{'adds ' + signed(contribution) if contribution > 0 else 'takes ' + short(-contribution)} directly"
    if abs(contribution) < ADDS:
        direct, split = "adds nothing directly", ""
    moved = f"still {new}" if old == new else f"{old} → {new}"
    meaning = _meaning(contribution, change)
    return f"{direct}{split}; {_INSTEAD[how]} {moved}{f': {meaning}' if meaning else ''}"


def _meaning(contribution: float, change: float) -> str:
    """What the effect says of the contribution; empty where the removal costs about what the part adds."""
    if steers(contribution, change):
        return "it steers others that do" if change < 0 else "it holds back others that do"
    if abs(contribution) < ADDS:
        return ""
    lost, adds = -change / contribution, contribution > 0
    if lost < 0 and abs(change) > COSTS:
        return "others more than make up for it" if adds else "others take more instead"
    if lost < MADE_UP:
        return "others make up for it" if adds else "others take as much instead"
    if lost < AS_MUCH:
        return "others make up for a part of it" if adds else "others take a part of it instead"
    return f"more than it {'adds' if adds else 'takes'}, so others build on it" if lost > MORE else ""
