"""One's own question over a set in sentences: what the answer falls most without, what is made up for, what steers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.causal.thresholds import ADDS, COSTS, MADE_UP
from visit.runs.moments import CONFIDENCE
from visit.text.node_id import part_name
from visit.text.numbers import band, percent, short, signed
from visit.text.visible import Sentence

_WITHOUT = {"zero": "without it", "mean": "with its mean instead", "from": "with the partner's instead"}
_LACKING = {"zero": "without", "mean": "with the mean in place of", "from": "with the partner's values of"}


def set_story(table: pd.DataFrame) -> list[Sentence]:
    """What a set says of its parts, the largest effect first. `table`: `visit.head_question`, with its `.attrs`.

    A part is named only where its band is on one side of 0, so that a few prompts claim little.
    """
    falls, rises = _moves_most(table, -1), _moves_most(table, 1)
    count = table.attrs["prompts"]
    over = f"Over {count:,} prompt{'s' if count != 1 else ''}"
    if falls is None and rises is None:
        what = {"heads": "head", "layers": "layer's sum", "neurons": "neuron"}[table.attrs["nodes"]]
        text = f"{over} no {what} moves the answer for sure: every band contains 0, or little changes."
        return [[(text, None)], _answer_told(table)]
    told: list[Sentence] = []
    for row, verb in ((falls, "falls"), (rises, "rises")):
        if row is not None:
            lead = "the answer" if told else f"{over} the answer"
            lead = f"{lead[0].upper()}{lead[1:]} {verb} most {_LACKING[table.attrs['how']]} "
            text = f" ({with_band(row, 'effect')} logits); {_adds(row)}."
            told.append([(lead, None), (part_name(row["node"]), row["node"]), (text, None)])
    named = [None if row is None else row["node"] for row in (falls, rises)]
    more = [_made_up(table), _steerer(table)]
    told += [one for one in more if one is not None and one[0][1] not in named]
    return [*told, *_roles_told(table), _answer_told(table)]


def sure(table: pd.DataFrame, measure: str) -> pd.Series:
    """Whether the band of each part lies on one side of 0; all of them where one prompt leaves no bands."""
    low, high = table[f"{measure}_low"], table[f"{measure}_high"]
    return (low > 0) | (high < 0) | low.isna()


def with_band(row: Any, measure: str) -> str:
    """`−2.4 [−2.6, −2.2]`; the number alone where there is no band."""
    low, high = row[f"{measure}_low"], row[f"{measure}_high"]
    return signed(row[measure]) + ("" if low != low else f" {band(low, high)}")


def _moves_most(table: pd.DataFrame, sign: int) -> Any:
    """The part without which the answer falls (`sign` −1) or rises (1) most; None where none is sure to do so."""
    rows = table[sure(table, "effect") & (sign * table["effect"] > ADDS)]
    return None if rows.empty else rows.loc[(sign * rows["effect"]).idxmax()]


def _adds(row: Any) -> str:
    adds = row["contribution"]
    if abs(adds) < ADDS:
        return "directly it adds nothing" + (": it steers others that do" if row["effect"] < -COSTS else "")
    return f"directly it adds {signed(adds)}" if adds > 0 else f"directly it takes {short(-adds)}"


def _made_up(table: pd.DataFrame) -> Sentence | None:
    """The part that adds most of those whose removal costs next to nothing, and for sure not all that they add."""
    adds = table["contribution"]
    little = (-table["effect"] < MADE_UP * adds) & ~(table["effect_low"] < -adds)
    rows = table[sure(table, "contribution") & (adds > ADDS) & little]
    if rows.empty:
        return None
    row = rows.loc[rows["contribution"].idxmax()]
    lost = row["effect"]
    if lost > ADDS and bool(sure(table, "effect")[row.name]):
        then = f"the answer even rises ({with_band(row, 'effect')}): others more than make up for it"
    elif abs(lost) <= ADDS or not bool(sure(table, "effect")[row.name]):
        then = f"no loss is measured ({with_band(row, 'effect')}): others make up for it"
    else:
        then = f"little is lost ({with_band(row, 'effect')}): others make up for it"
    text = f" adds {with_band(row, 'contribution')} logits directly, and {_WITHOUT[table.attrs['how']]} {then}."
    return [(part_name(row["node"]), row["node"]), (text, None)]


def _steerer(table: pd.DataFrame) -> Sentence | None:
    """The part that adds nothing itself, and whose removal costs most."""
    rows = table[sure(table, "effect") & (table["contribution"].abs() < ADDS) & (table["effect"] < -COSTS)]
    if rows.empty:
        return None
    row = rows.loc[rows["effect"].idxmin()]
    text = (
        f" adds nothing directly, and {_WITHOUT[table.attrs['how']]} the answer falls "
        f"({with_band(row, 'effect')}): it steers others that do."
    )
    return [(part_name(row["node"]), row["node"]), (text, None)]


ROLES_NAMED = 5  # heads of a role, in the sentence
_ROLE_RULES = {  # role → what its heads are ordered by, and the word that they attend to
    "mover": ("contribution", "target"), "negative mover": ("contribution", "target"),
    "suppressor": ("contribution", "distractor"), "inhibitor": ("effect", "distractor"),
}  # fmt: skip


def _roles_told(table: pd.DataFrame) -> list[Sentence]:
    """Which heads have which role, those that add or take most first, and of inhibitors those that cost most.

    A role that no head has is named, too; not one of a word that stands in no prompt, for no head can attend to it.
    """
    if "role" not in table:
        return []
    told: Sentence = []
    nobody = []
    for role, (by, word) in _ROLE_RULES.items():
        rows = table[(table["role"] == role) & sure(table, by)]
        order = rows[by].abs().sort_values(ascending=False, kind="stable").index
        nodes = table.loc[order, "node"].tolist()
        if not nodes:
            nobody += [role] * bool(table[f"attends_{word}"].notna().any())
            continue
        told.append((f"{'; ' if told else 'By their roles: '}{role}{'s' if len(nodes) > 1 else ''} ", None))
        for n, node in enumerate(nodes[:ROLES_NAMED]):
            told += [(", ", None)] * (n > 0) + [(part_name(node), node)]
        if len(nodes) > ROLES_NAMED:
            told.append((f" and {len(nodes) - ROLES_NAMED} more", None))
    if nobody:
        told.append(("; none is" if told else "By their roles: no head is", None))
        roles = [f"{'an' if role[0] in 'aeiou' else 'a'} {role}" for role in nobody]
        told.append((f" for sure {' or '.join(filter(None, (', '.join(roles[:-1]), roles[-1])))}", None))
    if not told:
        return [[("No head has a role here: roles are of heads that attend to the target or the distractor, and "
                  "neither stands in a prompt of this set.", None)]]  # fmt: skip
    return [[*told, (".", None)]]


def _answer_told(table: pd.DataFrame) -> Sentence:
    """What "the answer" is, and how it stands."""
    attrs = table.attrs
    before = attrs["before"]
    what = (
        "target − distractor" if attrs["answer"] == "difference" else "the target's logit above the mean of all words"
    )
    ends = "" if before["low"] != before["low"] else f" {band(before['low'], before['high'])}"
    top = f"the target is the most probable word in {percent(before['top'])} of them"
    return [(f"The answer is {what}: {signed(before['answer'])} logits{ends} as it is, and {top}.", None)]


_CALLED_BY_NODE = {"head": "heads", "mlp_value": "neurons"}  # node → what many of its kind are called


# ---- two sets beside each other --------------------------------------------------------------------------------------
def difference_story(table: pd.DataFrame, names: tuple[str, str]) -> list[Sentence]:
    """What differs between two sets, a and b, on one model: the part that matters more in each, and in both.

    `table`: `causal.head_sets.set_difference`, whose means are b's minus a's; `names`: what a and b are called. Of many
    parts some differ by chance, so that how many do is told beside how many would.
    """
    certain = sure(table, "effect")
    size_a, size_b = table["effect_a"].abs(), table["effect_b"].abs()
    told: list[Sentence] = []
    for larger, smaller, name in ((size_a, size_b, names[0]), (size_b, size_a, names[1])):
        rows = table[certain & (larger > smaller) & (table["effect"].abs() > ADDS)]
        if not rows.empty:
            row = rows.loc[rows["effect"].abs().idxmax()]
            first, second = (signed(row[f"effect_{side}"]) for side in "ab")
            text = (
                f" matters more in {name}: without it the answer moves by {first} logits in {names[0]}, by {second} in "
                f"{names[1]}; the difference is {with_band(row, 'effect')}."
            )
            told.append([(part_name(row["node"]), row["node"]), (text, None)])
    named = [sentence[0][1] for sentence in told]
    alike = table[(table["effect_a"] * table["effect_b"] > 0) & ~table["node"].isin(named)]
    both = pd.concat([size_a, size_b], axis=1).min(axis=1)[alike.index]
    if len(both) and both.max() > COSTS:
        row = table.loc[both.idxmax()]
        apart = "" if bool(certain[row.name]) else ", no difference is sure"
        text = (
            f" matters in both: without it the answer moves by {' and '.join(signed(row[f'effect_{s}']) for s in 'ab')}"
        )
        told.append([(part_name(row["node"]), row["node"]), (f"{text}{apart}.", None)])
    count, chance = int(certain.sum()), round((1 - CONFIDENCE) * len(table))
    many = "none differs" if not count else f"{count:,} differ{'s' if count == 1 else ''}"
    would = f"; where none did, about {chance:,} would seem to" if chance else ""
    kind = next((name for part, name in _CALLED_BY_NODE.items() if f".{part}" in table["node"].iloc[0]), "sums")
    return [*told, [(f"Of {len(table):,} {kind} {many} for sure{would}.", None)]]
