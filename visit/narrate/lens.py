"""What a lens says, in sentences that name it: a word that comes first is a fact about the lens before the model."""

from __future__ import annotations

import pandas as pd

from visit.text.numbers import percent

EARLY = 0.15  # of the prompts: a lens that names so many more answers than have arrived names what is not there yet


def which_lens(fitted: bool) -> str:
    """Who says when a word becomes first: it is a fact about the lens, before it is one about the model."""
    return f"as the {'fitted' if fitted else 'plain'} lens reads it"


def after_depth(depth: int) -> str:
    return "in the embedding" if depth == 0 else f"after block {depth - 1}"


def specificity(states: pd.DataFrame, word: str) -> str:
    """Whether what a fitted lens reads is of this prompt: the target where it first leads for good, beside any text's.

    states: `overview.lens_map` of one position through a fitted lens.
    """
    since = len(states) - 1
    while since > 0 and states["rank"].iloc[since - 1] == 1:
        since -= 1
    if since == len(states) - 1:
        return f"As the fitted lens reads it, “{word}” stands first in no block before the last."
    cell = states.iloc[since]
    start = f"As the fitted lens reads it, “{word}” stands first {after_depth(since)}, with {percent(cell['prob'])}"
    if pd.isna(cell["target_usual"]):
        return f"{start}."
    usual = f"{percent(cell['target_usual'])} on average over any text"
    if not cell["target_specific"]:
        return f"{start}, but {usual} in this block: it is mostly what any text leads to expect there."
    return f"{start}, against {usual} in this block: the answer is specific to this prompt."


def trusted(controls: pd.DataFrame) -> list[str]:
    """Why one may believe a fitted lens, in sentences: its controls at the first block where it names most answers.

    controls: `trust.control_table`.
    """
    named = controls[controls["right_rank"] < 2]
    if named.empty or int(named["layer"].iloc[0]) == int(controls["layer"].iloc[-1]):
        return ["In no block before the last does this lens name most of the answers."]
    row = named.iloc[0]
    low = "Wrong answers stay low" if row["wrong_rank"] >= 10 * row["right_rank"] else "Wrong answers stand high, too"
    own, other = row["own_share"], row["other_share"]
    reads = "It reads this prompt" if own >= 2 * other else "What it reads fits other prompts nearly as well"
    return [
        f"{low}: after block {int(row['layer'])}, the first where it names most answers, another prompt's answer "
        f"stands at rank {row['wrong_rank']:,.0f} (median); to the plain lens the right one stands at "
        f"{row['right_rank_plain']:,.0f}.",
        f"{reads}: there {percent(own)} of its five first words are among the fifty that the model finally predicts, "
        f"and {percent(other)} among another prompt's.",
        _arrives(controls),
    ]


def _arrives(controls: pd.DataFrame) -> str:
    """Where an answer is in the state, told by putting it into another prompt, and where the lens names it."""
    early = (controls["names"] - controls["arrives"]).idxmax()
    if controls.loc[early, "names"] > controls.loc[early, "arrives"] + EARLY:
        row = controls.loc[early]
        return (
            f"It names answers before they arrive: after block {int(row['layer'])} in {percent(row['names'])} of the "
            f"prompts, while that state, put into another prompt, brings its answer in {percent(row['arrives'])}."
        )
    place = int((controls["arrives"] >= 0.5).idxmax())
    row = controls.loc[place]
    before = f" (one block earlier in {percent(controls['arrives'][place - 1])})" if place else ""
    return (
        "It names an answer where it causally arrives, not before: put into another prompt, the state after block "
        f"{int(row['layer'])} makes it give this prompt's answer in {percent(row['arrives'])} of the pairs{before}; "
        f"there the fitted lens names that answer first in {percent(row['names'])}, the plain one in "
        f"{percent(row['names_plain'])}."
    )
