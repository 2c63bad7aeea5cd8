"""Five steps over one pass: what was predicted, where it appears, which head, from which word, what if it is removed.

The first four say what was read and what adds up to the answer; only the fifth, which was measured, speaks of a cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from visit.causal.thresholds import ADDS, AS_MUCH, COSTS, MADE_UP, changed_by
from visit.narrate.causes import effect_text
from visit.narrate.flow import UNSURE, Facts, appearance, taken
from visit.narrate.head_sets import set_story, with_band
from visit.narrate.traces import trace_story
from visit.runs.prompts import Row
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
            (" The answer falls most without ", None),
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


# ---- the other pages: the same pass, and what the page shows of it ---------------------------------------------------
def memory_steps(told: Facts, effects: pd.DataFrame | None = None) -> list[GuideStep]:
    """The attention memory: the word, the head that adds most to it, from where, how much of it, and what if."""
    head = told.strongest
    share: list[Sentence] = [[("No head adds to it, so there is no memory to open.", None)]]
    if head is not None:
        part, whole = float(head["source_contribution"]), float(head["contribution"])
        share = [[
            (f"Each row below is one word the head looks at. “{as_word(head['source_token'])}” gives {signed(part)} of "
             f"the {signed(whole)} logits of ", None), (part_name(head["node"]), head["node"]),
            ("; all rows together add up to the head.", None),
        ]]  # fmt: skip
    return [
        GuideStep("What does it predict?", [predicted(told)], "logits"),
        which_head(told),
        which_word(told),
        GuideStep("How much of it?", share),
        GuideStep("What if it is removed?", removed(told, effects, None)),
    ]


def whatif_steps(
    told: Facts, listed: list[str], effects: pd.DataFrame | None = None, without: pd.DataFrame | None = None
) -> list[GuideStep]:
    """The What-if page: the word, what is changed now, what is missed most, what adds most, and the source word.

    `listed`: names of the parts that the list changes.
    """
    head = told.strongest
    changed = f"The list takes out or changes: {', '.join(listed)}." if listed else "Nothing is changed yet."
    unmeasured: list[Sentence] = [[("Each head is taken out by itself, and the model runs on: that is being measured, "
                                    "or waits to be asked for below.", None)]]  # fmt: skip
    most, own, word = unmeasured, unmeasured, unmeasured
    if effects is not None:
        before = effects.attrs["before"]
        changes = [changed_by(row, before) for row in effects.to_dict("records")]
        row = effects.iloc[changes.index(min(changes))]
        most = [[("The answer falls most without ", None), (part_name(row["node"]), row["node"]),
                 (f": {_before_after(before, row)}. It adds {signed(row['contribution'])} itself.", None)]]  # fmt: skip
        own = removed(told, effects, None)
    if head is None or int(head["source_pos"]) == len(told.tokens) - 1:
        word = [[("No head draws on another word than the one it stands at: take out what you like above.", None)]]
    elif without is not None:
        word = [word_verdict(quoted(head["source_token"]), without)]
    return [
        GuideStep("What does it predict?", [predicted(told)], "logits"),
        GuideStep("What is changed?", [[(changed + " Add a part by its name, or click one in the map.", None)]]),
        GuideStep("Which head is missed most?", most),
        GuideStep("Is what adds most the cause?", own),
        GuideStep("And the word itself?", word),
    ]


def layer_norm_steps(told: Facts, shift: pd.DataFrame) -> list[GuideStep]:
    """The layer norm page. `shift`: `analyses.norms.token_shift` at the norm on screen."""
    own = shift[shift["is_target"]].iloc[0]
    up, down = shift.loc[shift["delta"].idxmax()], shift.loc[shift["delta"].idxmin()]

    def moves(row: pd.Series) -> str:
        return f"“{as_word(row['token'])}” {percent(row['before_prob'])} → {percent(row['after_prob'])}"

    return [
        GuideStep("What does it predict?", [predicted(told)], "logits"),
        GuideStep("What does this norm do to it?", [[
            (f"Read before and after it: {moves(own)}, rank {own['before_rank']:,} → {own['after_rank']:,}.", None)
        ]]),
        GuideStep("Which word gains most?", [[(f"{moves(up)}: no word gains more here.", None)]]),
        GuideStep("Which word loses most?", [[(f"{moves(down)}: no word loses more here.", None)]]),
        GuideStep("Is it always so?", [[
            ("One text is an example. Over a set of prompts the page tests whether function words lose more than "
             "others, with an interval: run it here.", None)
        ]]),
    ]  # fmt: skip


def neuron_steps(told: Facts, table: pd.DataFrame, without: pd.DataFrame | None = None) -> list[GuideStep]:
    """The neuron page. `table`: `analyses.neurons.active_neurons` as shown; `without`: of `visit.ablate`, without the
    neuron that adds most of those shown."""
    rows = table[table["neuron"].notna()]
    first, best = rows.iloc[0], rows.loc[rows["contribution"].idxmax()]

    def writes(row: pd.Series) -> str:
        return ", ".join(f"“{as_word(word)}”" for word in row["tokens"][:3])

    name: tuple[str, str | None] = (f"L{best['layer']} N{best['neuron']}", best["node"])
    taken_out: Sentence = [("That has to be measured: the model runs again without ", None), name, (".", None)]
    if without is not None:
        numbers = without.set_index("quantity")
        taken_out = [("Without ", None), name,
                     (f" {told.word} goes {_before_after(numbers['before'], numbers['after'])}.", None)]  # fmt: skip
    return [
        GuideStep("What does it predict?", [predicted(told)], "logits"),
        GuideStep("Which neuron comes first?", [[
            (f"L{first['layer']} N{first['neuron']}", first["node"]),
            (f" stands first here (coefficient {signed(first['coefficient'])}); it writes {writes(first)}.", None)]]),
        GuideStep("Which adds most to it?", [[
            ("Of those shown, ", None), name, (f" adds most to {told.word}: {signed(best['contribution'])} logits; it "
             f"writes {writes(best)}.", None)]], best["node"]),
        GuideStep("Is one neuron the answer?", [[
            (f"The {len(rows)} shown add {signed(rows['contribution'].sum())} logits together, all of the layer with "
             f"the bias {signed(table['contribution'].sum())}: it is many that add up.", None)]]),
        GuideStep("What if it is removed?", [taken_out]),
    ]  # fmt: skip


def compare_steps(told_apart: dict[str, Sentence]) -> list[GuideStep]:
    """The compare page. `told_apart`: `narrate.comparison.contrast_parts`, empty where there is nothing to compare."""
    asks = ("What differs in the text?", "What does each side answer?", "Where do the runs part?",
            "Which head takes what?", "What changes most?")  # fmt: skip
    first = (
        "Nothing to compare yet: change one word in B, or choose a pair to try.",
        "Then each side's own answer stands here.",
        "Then a map shows after which block, and at which word, the two runs part.",
        "Then you see from which word the strongest head takes its own, on either side.",
        "Then the part that changes most, and both drawings.",
    )
    nothing = "There is nothing to tell of it here."
    names = ("prompts", "answers", "parting", "strongest", "largest")
    said: list[list[Sentence]] = [
        [(told_apart.get(name) or [(nothing, None)]) if told_apart else [(text, None)]]
        for name, text in zip(names, first, strict=True)
    ]
    if told_apart:
        said[-1].append([("Changing the text was the experiment: only what differs between the answers is its effect. "
                          "Whether one head is a cause of it, What if measures.", None)])  # fmt: skip
    return [GuideStep(ask, sentences) for ask, sentences in zip(asks, said, strict=True)]


def study_steps(model: str, prompts: int, figures: int, ran: bool) -> list[GuideStep]:
    """The page of the paper's studies: what is asked, what is run, what is found, and what it does not say."""
    many = f"{prompts:,} prompt{'s' if prompts != 1 else ''}"
    drawn = "Each figure stands with its verdict first: agrees, differs or undecided, then the numbers."
    ready = drawn if ran else f"Press Run: then {figures} figures are drawn here, each with a verdict."
    return [
        GuideStep("What is asked?", [[(f"Do the paper's findings hold for {model}, over {many}?", None)]]),
        GuideStep("What is drawn?", [[(f"{figures} figures and tables; you choose which, and of how many prompts. "
                                       "Fewer take less time.", None)]]),
        GuideStep("How long does it take?", [[("It is said before it starts, and what takes it. You may leave the page "
                                               "meanwhile.", None)]]),
        GuideStep("What is found?", [[(ready, None)]]),
        GuideStep("What does it not say?", [[("An average over prompts is no cause: for one text see which head it "
                                              "is, and what the answer does without it.", None)]]),
    ]  # fmt: skip


def set_steps(named: str, first: Row, answer: str, parts: str, table: pd.DataFrame | None) -> list[GuideStep]:
    """Heads over a set: what is asked, of which prompts, what is missed most, what adds most, and which way.

    `named`: the set and how many of its prompts; `first`: its first line; `answer`, `parts`: as `.attrs` of
    `visit.head_question` have them; `table`: that table, None before there is a result.
    """
    what = {"heads": "head", "layers": "attention or MLP output", "neurons": "neuron"}[parts]
    answers = "target − distractor" if answer == "difference" else "the target’s logit above the mean of all words"
    target, distractor = (f"“{as_word(word)}”" if word else "" for word in (first.target, first.distractor))
    wants = f" Its target is {target}" + (f", its distractor {distractor}." if distractor else ".") if target else ""
    missed: list[Sentence] = [
        [("That has to be measured: press the button, and each is taken out of each prompt.", None)]
    ]
    most: list[Sentence] = [[("Then what adds most stands here, beside what the answer does without it.", None)]]
    if table is not None:
        missed = set_story(table)[:1]
        row = table.loc[table["contribution"].abs().idxmax()]
        verb = "adds" if row["contribution"] > 0 else "takes"
        text = (
            f" {verb} most directly ({with_band(row, 'contribution')} logits); without it the answer moves by "
            f"{with_band(row, 'effect')}. Where the second number is the smaller one, others make up for it; what adds "
            "nothing and is missed steers others."
        )
        most = [[(part_name(row["node"]), row["node"]), (text, None)]]
    return [
        GuideStep("What is asked?", [
            [(f"Of every {what}, over {named}: what does it add to the answer, and what is the answer without it? The "
              f"answer is {answers}.", None)],
            [("One text may be an exception; a mean over many is not.", None)],
        ]),
        GuideStep("Of which prompts?", [[(f"The first is “{as_word(str(first.prompt))}”.{wants}", None)]]),
        GuideStep("What is missed most?", missed),
        GuideStep("Is it what adds most?", most),
        GuideStep("Who says it to whom?", [
            [("A part that is missed may act through others. Paths, marked here, measure it for one place at a time, "
              "with all other heads held.", None)],
            [("A mean is of no single text: choose a part above, and look at it in a prompt of the set.", None)],
        ]),
    ]  # fmt: skip


def trace_steps(told: Facts, subject: str, table: pd.DataFrame | None) -> list[GuideStep]:
    """The trace page: the word, what is made unreadable, where the stream brings the answer back, which windows do.

    `subject`: the text that is made unreadable; `table`: `visit.trace`, None before there is a sample of the noise.
    """
    unmeasured = ["It is not traced yet: press the button below; the maps show after the first sample of the noise."]
    fall, *back = unmeasured if table is None else trace_story(table)
    where, windows = (back[n] if n < len(back) else fall for n in range(2))
    return [
        GuideStep("What does it predict?", [predicted(told)], "logits"),
        GuideStep("What is made unreadable?", [
            [(f"Noise on the embeddings of “{as_word(subject)}”: what stands there is no word any more. {fall}", None)],
            [("Click the words that you think the answer hangs on to change it.", None)],
        ]),
        GuideStep("What brings it back?", [
            [("Each cell of the first map is a run with the noise, and one state as it was without.", None)],
            [(where, None)],
        ]),
        GuideStep("Attention or the MLPs?", [
            [("A state holds all that came before it; a window holds what a few blocks add there.", None)],
            [(windows, None)],
        ]),
        GuideStep("What does it not say?", [
            [("A full cell is enough for the answer under this noise: the answer passes there. It is not shown to be "
              "stored there, nor that nothing else would do. Another word, another noise, other numbers.", None)],
        ]),
    ]  # fmt: skip
