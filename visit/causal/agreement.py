"""Whether a part's effect is what it adds directly: the three columns that every page of causes carries, side by side.

A head can add much and be made up for when it goes; another adds nothing and moves those that do. The kinds name it, by
thresholds that stand here and on screen.
"""

from __future__ import annotations

import pandas as pd

from visit.text.node_id import part_name

NOTICED = 0.1  # logits: less of both, and a part does little for this word
LARGE = 0.3  # logits: what contribution and effect must differ by to be told apart
KINDS = {
    "adds by itself": "its effect is about what it adds",
    "others make up": f"it adds at least {LARGE:g} logits, and without it less than half of that is lost",
    "steers others": f"without it more than twice what it adds is lost, and at least {LARGE:g} logits more",
    "little": f"it adds, and its removal changes, less than {NOTICED:g} logits",
}


def beside_effect(effects: pd.DataFrame) -> pd.DataFrame:
    """The table of `visit.effects` with `name` (L9 H6), `effect` and `kind`, one of `KINDS`.

    `effect`: what is lost without the part, in logits of the target (minus the distractor's, where there is one), so
    that it has the sign of a contribution: positive for a part that speaks for the target.
    """
    column = "d_logit" if effects["d_difference"].isna().all() else "d_difference"
    lost = -effects[column].astype(float)
    kinds = [kind(c, e) for c, e in zip(effects["contribution"], lost, strict=True)]
    found = effects.assign(name=[part_name(node) for node in effects["node"]], effect=lost, kind=kinds)
    found.attrs = effects.attrs
    return found


def kind(contribution: float, effect: float) -> str:
    """Which of `KINDS` a part is."""
    if max(abs(contribution), abs(effect)) < NOTICED:
        return "little"
    along = effect if contribution >= 0 else -effect
    if abs(contribution) >= LARGE and along < abs(contribution) / 2:
        return "others make up"
    if abs(effect) > 2 * abs(contribution) and abs(effect) - abs(contribution) >= LARGE:
        return "steers others"
    return "adds by itself"
