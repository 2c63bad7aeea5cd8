"""Five steps over one pass: what was predicted, where it appears, which head, from which word, what if it is removed.

The first four say what was read and what adds up to the answer; only the fifth, which was measured, speaks of a cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from visit.causal.named_heads import changed_by
from visit.causal.thresholds import ADDS, AS_MUCH, COSTS, MADE_UP
from visit.narrate.causes import effect_text
from visit.narrate.flow import UNSURE, Facts, appearance, taken
from visit.text.node_id import part_name
from visit.text.numbers import percent, short, signed
from visit.text.visible import Sentence, as_word, quoted


@dataclass(frozen=True)
class GuideStep:
    """One step: what it asks, what this pass answers, and what of it is meant (a node, positions of tokens)."""

    asks: str
    said: list[Sentence]
    node: str | None = None
    tokens: tuple[int, ...] = ()


def guide_steps(
    told: Facts, effects: pd.DataFrame | None = None, without: pd.DataFrame | None = None
) -> list[GuideStep]:
    """The five steps of one prediction. A piece of a sentence with a node id can be clicked.

    `effects`: `visit.effects` of all heads, None while they are not measured; `without`: the `table` of `visit.ablate`
    with the embedding of the source word replaced by its mean over the prompt. Source: ours.
    """
    risen = appearance(told)
    return [
        GuideStep("What does it predict?", [predicted(told)], "logits"),
        GuideStep("Where does it appear?", [risen], next((node for _, node in risen if node), None)),
        which_head(told),
        which_word(told),
        GuideStep("What if it is removed?", removed(told, effects, without)),
    ]


def predicted(told: Facts) -> Sentence:
    """The best guess and its probability; of a word that is not it, both."""
    last = told.states.iloc[-1]
    if last["rank"] > 1:
        return [(f"You ask about {told.word}: the model gives it {percent(last['prob'])} (rank {last['rank']:,}). Its "
                 f"own best guess is “{as_word(last['top'])}” with {percent(last['top_prob'])}.", None)]  # fmt: skip
    said = f"The model reads the text and guesses how it goes on: {told.word}, with {percent(last['prob'])}."
    if last["prob"] < UNSURE:
        said += " That is a weak guess: what follows explains little."
    return [(said, None)]


def which_head(told: Facts) -> GuideStep:
    """The head that adds most, and what adds more where that is an MLP."""
    asks, head = "Which head writes it?", told.strongest
    parts = told.moved
    heads, mlps = (float(parts.loc[parts["kind"] == kind, "contribution"].sum()) for kind in ("head", "mlp_out"))
    sums = f"all heads together {signed(heads)}, all MLPs {signed(mlps)}"
    if head is None:
        return GuideStep(asks, [[(f"None: no head adds to {told.over} ({sums} logits).", None)]])
    said: Sentence = [
        (f"Of all heads, {told.over} gets most from ", None), (part_name(head["node"]), head["node"]),
        (f": {signed(head['contribution'])} logits ({sums}).", None),
    ]  # fmt: skip
    mlp = parts[parts["kind"] == "mlp_out"].sort_values("contribution").iloc[-1]
    if mlp["contribution"] > head["contribution"]:
        said += [
            (" The ", None), (f"MLP of block {mlp['layer']}", mlp["node"]),
            (f" adds more ({signed(mlp['contribution'])}), but it sees this position alone; only heads fetch.", None),
        ]  # fmt: skip
    return GuideStep(asks, [said], head["node"])


def which_word(told: Facts) -> GuideStep:
    """The token that the head takes most of its push from, and what is remembered there."""
    asks, head = "From which word?", told.strongest
    if head is None:
        return GuideStep(asks, [[(f"From none: there is no head to follow that adds to {told.over}.", None)]])
    source = int(head["source_pos"])
    said: Sentence = [(part_name(head["node"]), head["node"]), (" ", None), *taken(told, head)]
    return GuideStep(asks, [said], f"{head['node']}.value{source}", (source,))


def removed(told: Facts, effects: pd.DataFrame | None, without: pd.DataFrame | None) -> list[Sentence]:
    """Whether the head is the cause, by what was measured without it; whether the word is that it draws on."""
    head = told.strongest
    if head is None:
        return [[("There is no head that adds to it, so none to remove.", None)]]
    name: tuple[str, str | None] = (part_name(head["node"]), head["node"])
    if effects is None:
        return [[("So far only sums were read. Is ", None), name, (" the cause? That has to be measured: each head is "
                 "taken out, and the model runs on.", None)]]  # fmt: skip
    before = effects.attrs["before"]
    row = effects[effects["node"] == head["node"]].to_dict("records")[0]
    said: Sentence = [
        ("Is ", None), name, (f" the cause? {head_verdict(row, before)} It {effect_text(row, before)}.", None),
    ]  # fmt: skip
    changes = {one["node"]: changed_by(one, before) for one in effects.to_dict("records")}
    most = min(changes, key=lambda node: changes[node])
    if most != head["node"] and changes[most] < min(-COSTS, changes[head["node"]]):
        other = effects[effects["node"] == most].iloc[0]
        said += [
            (" Most is lost without ", None),
            (part_name(most), most),
            (f" ({_before_after(before, other)}).", None),
        ]
    if int(head["source_pos"]) == len(told.tokens) - 1:
        return [said, [("It draws on its own position, where earlier blocks gathered what other words brought: which "
                        "word it was, this head does not tell.", None)]]  # fmt: skip
    return [said] if without is None else [said, word_verdict(quoted(head["source_token"]), without)]


def head_verdict(row: dict[str, Any], before: dict[str, Any]) -> str:
    """Whether a head is the cause: by whether the word stays the first choice, and how much of its push is missed."""
    contribution, change = float(row["contribution"]), changed_by(row, before)
    if before["rank"] == 1 and row["rank"] > 1:
        return "Yes: without it the model says something else."
    lost = -change / contribution if contribution >= ADDS else 0.0
    if change > -COSTS or lost < MADE_UP:
        return "Not by itself."
    still = ": the word stays the first choice" if before["rank"] == 1 else ""
    return f"In part{still}." if lost < AS_MUCH or still else "Yes, as far as one head can be."


def word_verdict(word: str, without: pd.DataFrame) -> Sentence:
    """Whether the source word is a cause: what is left when its embedding is replaced by the mean of the prompt's."""
    rows = without.set_index("quantity")
    before, after = rows["before"], rows["after"]
    asked = f"Is {word} the cause?"
    moved = f"With the mean of all words of the prompt in its place: {_before_after(before, after)}."
    if before["rank"] > 1:
        return [(f"{asked} {moved}", None)]
    verdict = "Not by itself: the answer stays." if after["rank"] == 1 else "Yes: without it the answer is another."
    return [(f"{asked} {verdict} {moved}", None)]


def _before_after(before: Any, after: Any) -> str:
    """The target's probability, or with a distractor the difference of their logits, before and after."""
    compared = before["difference"] == before["difference"]
    name, text = ("difference", short) if compared else ("prob", percent)
    return f"{text(before[name])} → {text(after[name])}{' logits' if compared else ''}"
