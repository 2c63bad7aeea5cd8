"""Whether a part's effect is what it adds directly: the three columns that every page of causes carries, side by side.

A head can add much and be made up for when it goes; another adds nothing and moves those that do. The kinds name it, by
thresholds that stand here and on screen.
"""

from __future__ import annotations

import pandas as pd

from visit.causal.thresholds import ADDS, AS_MUCH, COSTS, MADE_UP, MORE, changed_by, steers
from visit.text.node_id import part_name
from visit.text.numbers import percent

AGREEMENT_KINDS = {
    "adds by itself": f"what is lost without it is {AS_MUCH:g} to {MORE:g} times what it adds",
    "others make up": f"less than {percent(MADE_UP)} is lost",
    "make up in part": f"less than {percent(AS_MUCH)} is lost",
    "others build on it": "more is lost than it adds",
    "steers others": f"it adds less than {ADDS:g} logits, or far less than its removal changes: {COSTS:g} or more",
    "little": f"it adds less than {ADDS:g} logits, and little changes without it",
}


def beside_effect(effects: pd.DataFrame) -> pd.DataFrame:
    """The table of `visit.effects` with `name` (L9 H6), `effect` and `kind`, one of `AGREEMENT_KINDS`.

    `effect`: what is lost without the part, in logits of the target (minus the distractor's, where there is one), so
    that it has the sign of a contribution: positive for a part that speaks for the target. `kind` is judged by what
    becomes of the answer (`named_heads.changed_by`), as in the sentences of the flow page: without a distractor by the
    target's odds against all other words, which may rise although its logit falls.
    """
    column = "d_logit" if effects["d_difference"].isna().all() else "d_difference"
    lost = -effects[column].astype(float)
    before = effects.attrs["before"]
    kinds = [kind(float(row["contribution"]), -changed_by(row, before)) for row in effects.to_dict("records")]
    found = effects.assign(name=[part_name(node) for node in effects["node"]], effect=lost, kind=kinds)
    found.attrs = effects.attrs
    return found


def kind(contribution: float, effect: float) -> str:
    """Which of `AGREEMENT_KINDS` a part is, from what it adds and what is lost without it, both in logits."""
    if steers(contribution, -effect):
        return "steers others"
    if abs(contribution) < ADDS:
        return "little"
    lost = effect / contribution
    if lost < AS_MUCH:
        return "others make up" if lost < MADE_UP else "make up in part"
    return "others build on it" if lost > MORE else "adds by itself"
