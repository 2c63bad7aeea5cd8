"""The reading of a graph in sentences. Every word is computed; where the numbers carry no story it says so.

A sentence is a list of pieces (text, node id or None): a piece with an id can be clicked to select its node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from visit.narrate.lens import after_depth, which_lens
from visit.text.numbers import percent, short, signed
from visit.text.visible import Sentence, as_word, quoted

if TYPE_CHECKING:  # what was gathered is told without torch
    from visit.activations.record import Activations
    from visit.lenses.linear import Lens
    from visit.models.model import Model

UNSURE = 0.1  # probability of the best guess below which nothing is told without saying so
CARRIES = 0.08  # of the sum of all pushes towards the target: from here on a part is named as the strongest
OPPOSES = 0.15  # of the same sum: from here on a pull the other way is worth a sentence


@dataclass(frozen=True, eq=False)
class Facts:
    """What the sentences about a pass at one position are made of: tables and words, nothing of the pass itself.

    `states`: `analyses.lens_map` of the position; `moved`: `analyses.movers`; `recalls`: the ten words that the memory
    value reads which gives most to the strongest head, none where no head pushes towards the target; `tokens`: those up
    to the position; `target`, `distractor`: tokens; `fitted`: whether states are read through the fitted lens.
    """

    states: pd.DataFrame
    moved: pd.DataFrame
    recalls: tuple[str, ...]
    tokens: tuple[str, ...]
    target: str
    distractor: str | None
    fitted: bool

    @property
    def word(self) -> str:
        return f"“{as_word(self.target)}”"

    @property
    def over(self) -> str:
        """The target, and what it is compared with."""
        return self.word if self.distractor is None else f"{self.word} over “{as_word(self.distractor)}”"

    @property
    def strongest(self) -> pd.Series | None:
        """The head that adds most to the target; None where no head adds to it."""
        heads = self.moved[self.moved["kind"] == "head"]
        best = heads.loc[heads["contribution"].idxmax()]
        return best if best["contribution"] > 0 else None


def gathered(
    model: Model, acts: Activations, pos: int, target: int, distractor: int | None = None, lens: Lens | None = None
) -> Facts:
    """Gather what `story` and the guide tell of one position, once for both. `lens`: as of `story`."""
    from visit.analyses.overview import lens_map, movers
    from visit.lenses.logit import read_vectors

    t = acts.index(pos)
    words = [None if token is None else model.vocabulary[token] for token in (target, distractor)]
    moved = movers(model, acts, t, target, distractor)
    told = Facts(
        lens_map(model, acts, target, [t], lens=lens), moved, (), acts.tokens[: t + 1], str(words[0]), words[1],
        lens is not None,
    )  # fmt: skip
    head = told.strongest
    if head is None:
        return told
    layer, number, source = int(head["layer"]), int(head["head"]), int(head["source_pos"])
    assert acts.v is not None
    vector = acts.v[layer, source, number // (model.n_heads // model.n_kv_heads)].to(model.wide)
    recalls = read_vectors(model, vector @ model.W_O(layer)[number], k=10)["tokens"][0]
    return replace(told, recalls=tuple(recalls))


def story(
    model: Model, acts: Activations, pos: int, target: int, distractor: int | None = None, lens: Lens | None = None
) -> list[Sentence]:
    """What happened to the target on its way through the stream, and which parts did it.

    `lens`: the fitted lens that the stream is read through (None: the plain one); the sentence names it.
    """
    return story_of(gathered(model, acts, pos, target, distractor, lens))


def story_of(told: Facts) -> list[Sentence]:
    """The same, of what was gathered."""
    sentences = [*_cautions(told.states, told.tokens), appearance(told), *_sources(told)]
    return [[piece for piece in sentence if piece[0]] for sentence in sentences]


def _cautions(states: pd.DataFrame, tokens: Sequence[str]) -> list[Sentence]:
    """What a reader must know before anything is read into the answer: a weak guess, words that are spelled out."""
    found: list[Sentence] = []
    best, prob = states["top"].iloc[-1], float(states["top_prob"].iloc[-1])
    if prob < UNSURE:
        found.append([(f"The model is unsure here: its best guess, “{as_word(best)}”, has {percent(prob)}.", None)])
    if words := spelled_words(tokens):
        named = ", ".join(f"“{word}”" for word in words)
        several = len(words) > 1
        found.append([(
            f"{named} {'are' if several else 'is'} spelled letter by letter: the model has no token for "
            f"{'these words' if several else 'this word'}, and may not know {'them' if several else 'it'}.", None,
        )])  # fmt: skip
    return found


def spelled_words(tokens: Sequence[str]) -> list[str]:
    """Words of at least four letters of which every letter is a token of its own."""
    text = "".join(token if len(token) == 1 and token.isalpha() else "\n" for token in tokens)
    return list(dict.fromkeys(word for word in text.split("\n") if len(word) >= 4))


def appearance(told: Facts) -> Sentence:
    """When the target becomes the first choice for good, and how sharply; its first node is the state where it does."""
    states, word, as_read = told.states, told.word, which_lens(told.fitted)
    start = as_read[0].upper() + as_read[1:]
    ranks, probs, ids = (states[c].tolist() for c in ("rank", "prob", "state"))
    if ranks[-1] != 1:
        best = min(range(len(ranks)), key=lambda d: (ranks[d], -probs[d]))
        winner = f"“{as_word(states['top'].iloc[-1])}”"
        first: Sentence = [
            (f"{word} is not the model's choice here: it ends at ", None),
            (f"rank {ranks[-1]} ({percent(probs[-1])})", ids[-1]),
            (f", behind {winner} ({percent(states['top_prob'].iloc[-1])}).", None),
        ]
        if ranks[best] < ranks[-1]:
            first += [
                (" It stood highest ", None),
                (f"{after_depth(best)}, at rank {ranks[best]}", ids[best]),
                (f", {as_read}.", None),
            ]
        return first
    since = len(ranks) - 1
    while since > 0 and ranks[since - 1] == 1:
        since -= 1
    if since == 0:
        return [
            (f"{start}, {word} is the first choice from the start: the ", None),
            ("embedding", ids[0]),
            (f" already reads it at {percent(probs[0])}, and the last state at {percent(probs[-1])}.", None),
        ]
    sentence: Sentence = [
        (f"{start}, {word} becomes the first choice ", None),
        (f"after block {since - 1}", ids[since]),
        (f" ({percent(probs[since - 1])} → {percent(probs[since])})", None),
    ]
    earlier = [d for d in range(since - 1) if ranks[d] == 1]
    if earlier:
        sentence += [(", having led before, first ", None), (after_depth(earlier[0]), ids[earlier[0]])]
    return [*sentence, (f", and ends at {percent(probs[-1])}.", None)]


def _sources(told: Facts) -> list[Sentence]:
    """Which parts push towards the target, the strongest head's source, and what works against it."""
    parts = told.moved[told.moved["kind"].isin(["head", "mlp_out", "resid_pre"])]
    push = float(parts["contribution"].clip(lower=0).sum())
    if not push > 0:
        return [[(f"No head and no MLP pushes towards {told.over}.", None)]]
    ranked = parts.sort_values("contribution", ascending=False)
    share = ranked.iloc[0]["contribution"] / push
    sentences = [_strongest(ranked, share, told.over)]
    head = told.strongest
    if head is not None:
        named = share >= CARRIES and ranked.iloc[0]["kind"] == "head"
        start: Sentence = [("It", None)]
        if not named:
            name = f"L{head['layer']} H{head['head']} ({_logits(head)})"
            start = [("Among the heads, the strongest is ", None), (name, head["node"]), (", which", None)]
        sentences.append([*start, (" ", None), *taken(told, head)])
    last = ranked.iloc[-1]
    if last["contribution"] < -OPPOSES * push:
        sentences.append([(_name(last, start=True), last["node"]), (f" works against it ({_logits(last)}).", None)])
    return sentences


def _strongest(ranked: pd.DataFrame, share: float, word: str) -> Sentence:
    first = ranked.iloc[0]
    heads, mlps = (float(ranked.loc[ranked["kind"] == k, "contribution"].sum()) for k in ("head", "mlp_out"))
    together = f"all heads together {signed(heads)}, all MLPs {signed(mlps)}"
    if share >= CARRIES:
        how = "Most of the push" if share > 0.5 else "The largest push"
        return [
            (f"{how} towards {word} comes from ", None),
            (_name(first), first["node"]),
            (f" ({_logits(first)} logits; {together}).", None),
        ]
    sentence: Sentence = [(f"No single part carries {word} ({together} logits); the largest are ", None)]
    for place, (_, row) in enumerate(ranked.head(3).iterrows()):
        sentence += [(("", ", ", " and ")[place], None), (f"{_name(row)} ({_logits(row)})", row["node"])]
    return [*sentence, (".", None)]


def taken(told: Facts, head: pd.Series) -> Sentence:
    """From which token the strongest head takes what it writes, and what that memory value reads."""
    source, here = int(head["source_pos"]), len(told.tokens) - 1
    place = "this very position" if source == here else f"position {source}"
    part = head["source_contribution"] / head["contribution"] if head["contribution"] else 0.0
    held = "takes it from" if told.target in told.recalls else "draws on"  # the word itself, or what moves towards it
    how = held if part > 0.5 else f"gathers its push from several tokens, {percent(part)} of it from"
    return [
        (f"{how} {quoted(head['source_token'])} ({place}, pattern {short(head['pattern'])}), whose ", None),
        ("memory value", f"{head['node']}.value{source}"),
        (f" reads {', '.join(f'“{as_word(w)}”' for w in told.recalls[:3])}.", None),
    ]


def _name(row: pd.Series, start: bool = False) -> str:
    if row["kind"] == "head":
        return f"{'Head' if start else 'head'} L{row['layer']} H{row['head']}"
    if row["kind"] == "mlp_out":
        return f"{'The' if start else 'the'} MLP of block {row['layer']}"
    return f"{'The' if start else 'the'} embedding"


def _logits(row: pd.Series) -> str:
    return signed(float(row["contribution"]))
