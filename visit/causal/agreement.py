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
    "adds by itself": f"without it the answer moves back by {AS_MUCH:g} to {MORE:g} times what it adds",
    "others make up": f"it moves back by less than {percent(MADE_UP)} of that",
    "make up in part": f"by less than {percent(AS_MUCH)}",
    "others build on it": "by more than it adds",
    "steers others": f"it adds less than {ADDS:g} logits, or far less than its removal changes: {COSTS:g} or more",
    "little": f"it adds less than {ADDS:g} logits, and little changes without it",
}


def beside_effect(effects: pd.DataFrame) -> pd.DataFrame:
    """The table of `visit.effects` with `name` (L9 H6), `effect` and `kind`, one of `AGREEMENT_KINDS`.

    `effect`: how the answer changes without the part, in logits of the target (minus the distractor's, where there is
    one), as in every table of effects: below 0 it falls, so that the part speaks for the target. `kind` is judged by
    what becomes of the answer (`thresholds.changed_by`), as in the sentences of the flow page: without a distractor by
    the target's odds against all other words, which may rise although its logit falls.
    """
    column = "d_logit" if effects["d_difference"].isna().all() else "d_difference"
    before = effects.attrs["before"]
    kinds = [kind(float(row["contribution"]), changed_by(row, before)) for row in effects.to_dict("records")]
    found = effects.assign(
        name=[part_name(node) for node in effects["node"]], effect=effects[column].astype(float), kind=kinds
    )
    found.attrs = effects.attrs
    return found


def kind(contribution: float, effect: float) -> str:
    """Which of `AGREEMENT_KINDS` a part is, from what it adds and how the answer changes without it, in logits."""
    if steers(contribution, effect):
        return "steers others"
    if abs(contribution) < ADDS:
        return "little"
    lost = -effect / contribution
    if lost < AS_MUCH:
        return "others make up" if lost < MADE_UP else "make up in part"
    return "others build on it" if lost > MORE else "adds by itself"
