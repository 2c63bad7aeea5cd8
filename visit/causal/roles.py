"""What heads do, by measured criteria: each with the number that was measured and the threshold that it passed.

Roles of one position and of words of the prompt (Wang et al. 2022, App. A, made into numbers):

- *mover*: attends to a word, recalls it there (its memory value reads the word) and adds to it;
- *suppressor*: attends to a word, the negative of its memory value reads it, and it takes from the word;
- *inhibitor*, by its effect: attends to a word that is repeated and adds nothing for the prediction against it, yet
  without the head the prediction falls against it; by its path, where a partner prompt is at hand: adds nothing, and
  with its value in the partner the movers' queries become others, so that the prediction falls against that word.

Roles of a head's pattern over the whole prompt, in the words of `analyses.heads`: previous token, same token, first
position (a sink), induction. A head may have several roles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor

from visit.activations.forward import capture
from visit.activations.record import Activations, check_pass
from visit.analyses.function_words import function_words, is_function_word
from visit.analyses.heads import RULES, named_from, role_scores
from visit.causal.effects import effects
from visit.causal.path_lines import PathLine, receivers_of
from visit.causal.path_patching import line_effects
from visit.causal.thresholds import ADDS, ATTENDS, COSTS, READS
from visit.errors import VisitError, check_kind
from visit.exact.decompose import attribution, head_results, memory_values, needed
from visit.exact.question import ask
from visit.lenses.logit import lens_logits, top_of
from visit.models.attention import window
from visit.models.model import Model, tokenize
from visit.text.node_id import part_name
from visit.text.visible import visible

_LOOKS = {  # over the whole prompt, on average
    "previous token": "attends to the token before more than",
    "same token": "attends to earlier occurrences of the same token more than",
    "first position": "attends to the first position more than",
    "induction": "attends to what followed the same token earlier more than",
}
ROLE_COLUMNS = ("node", "role", "criterion", "number", "threshold", "word")


def roles(
    model: Model, acts: Activations, words: Iterable[int | str] | None = None, pos: int = -1,
    abc: str | Sequence[int] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The roles of all heads at `pos`, a row per head, role and criterion.

    `words`: tokens of the prompt whose movers and suppressors are looked for; None: all of its content words. `abc`: a
    partner prompt of as many tokens with other names; with it inhibitors are looked for by their paths, too. Columns:
    `node`, `role` ("mover", "suppressor", "inhibitor", "previous token", "same token", "first position", "induction"),
    `criterion` (a sentence part, as "attends to “ Mary” more than"), `number` (what was measured), `threshold` (what it
    had to pass), `word` (missing for roles of the pattern). Every criterion listed holds. Raises
    `VisitError` for a word that is not in the prompt. Source: causes section 13; thresholds ours.
    """
    check_pass(model, acts)
    t = acts.index(pos)
    places = _places(model, acts, t, words)
    with torch.no_grad():
        found = [*_movers(model, acts, t, places), *_steering(model, acts, t, places)]
        if abc is not None:
            found += _inhibitors(model, acts, t, places, tokenize(model, abc), found)
    return pd.DataFrame([*found, *_patterns(model, acts)], columns=list(ROLE_COLUMNS))


def _places(model: Model, acts: Activations, t: int, words: Iterable[int | str] | None) -> dict[int, list[int]]:
    """Token -> where it stands up to `t`. Not counted: the looked-at token, and position 0, which most heads rest on
    when they have nothing to do."""
    found: dict[int, list[int]] = {}
    for i in range(1, t + 1):
        if acts.token_ids[i] != acts.token_ids[t]:
            found.setdefault(acts.token_ids[i], []).append(i)
    if words is None:
        listed = function_words()
        return {w: at for w, at in found.items() if model.vocabulary[w].strip() and not _function(model, w, listed)}
    check_kind("words", words, Iterable, "a list of words of the prompt, or None for all of its content words")
    asked = [model.token_id(word, "word") for word in words]
    for word in asked:
        if word not in found:
            raise VisitError(
                f"Roles are about words of the prompt: {model.vocabulary[word]!r} does not stand between position 1 "
                f"and the looked-at one ({t})."
            )
    return {word: found[word] for word in asked}


def _function(model: Model, word: int, listed: frozenset[str]) -> bool:
    return is_function_word(model.vocabulary[word], listed)


# ---- heads that write a word, or against it --------------------------------------------------------------------------
def _movers(model: Model, acts: Activations, t: int, places: dict[int, list[int]]) -> Iterator[tuple]:
    """Movers and suppressors: only the memory values that are attended to are read."""
    if not places:
        return
    pattern = needed(acts, "pattern")[:, :, t].to(model.wide)
    seen: list[tuple[int, int, int, int]] = []  # layer, head, word, the occurrence that is attended to most
    for word, at in places.items():
        attended = pattern[:, :, at]
        best = attended.max(-1)
        for layer, head in (best.values > ATTENDS).nonzero().tolist():
            seen.append((layer, head, word, at[int(best.indices[layer, head])]))
    if not seen:
        return
    directions = {w: attribution(model, acts, t, w).direction for w in {w for _, _, w, _ in seen}}
    results = {layer: head_results(model, acts, layer, t) for layer in {layer for layer, *_ in seen}}
    values = torch.stack([_memory_value(model, acts, t, layer, head, i) for layer, head, _, i in seen])
    both = ranks_both_ways(model, values, [w for *_, w, _ in seen])
    for (layer, head, word, i), *ranks in zip(seen, *both, strict=True):
        added = float(results[layer][head] @ directions[word])
        attention, name = float(pattern[layer, head, i]), f"“{visible(model.vocabulary[word])}”"
        node, token = f"L{layer}.head{head}", model.vocabulary[word]
        for role, rank, passed, what in (
            ("mover", ranks[0], added > ADDS, f"adds to {name} more than"),
            ("suppressor", ranks[1], added < -ADDS, f"takes from {name}, logits below"),
        ):
            if passed and rank <= READS:
                recalls = "its memory value" if role == "mover" else "the negative of its memory value"
                yield node, role, f"attends to {name} at position {i} more than", attention, ATTENDS, token
                yield node, role, f"{recalls} there reads {name}, rank at most", float(rank), float(READS), token
                yield node, role, what, added, ADDS if role == "mover" else -ADDS, token


def _memory_value(model: Model, acts: Activations, t: int, layer: int, head: int, i: int) -> Tensor:
    sources = torch.full((model.n_heads, 1), i, device=model.device)
    return memory_values(model, acts, layer, sources, t)[head, 0]


def ranks_both_ways(model: Model, values: Tensor, words: list[int]) -> tuple[list[int], list[int]]:
    """The rank of each word in its value, and in the value's negative; beyond `READS` one more than that."""
    asked = torch.tensor(words, device=model.device)[:, None]
    found = []
    for side in (values, -values):
        tops = torch.cat([top_of(logits, READS)[1] for _, logits in lens_logits(model, side)])
        same = tops == asked
        found.append(torch.where(same.any(-1), same.int().argmax(-1) + 1, READS + 1).tolist())
    return found[0], found[1]


# ---- heads that add nothing, and without which the others do otherwise -----------------------------------------------
def _steering(model: Model, acts: Activations, t: int, places: dict[int, list[int]]) -> Iterator[tuple]:
    """Heads that look at a repeated word: what they add to the prediction against it, and what their removal costs."""
    prediction = ask(model, acts, t).target
    pattern = needed(acts, "pattern")[:, :, t].to(model.wide)
    for word, at in places.items():
        if len(at) < 2 or word == prediction:
            continue
        attended = pattern[:, :, at].sum(-1)
        nodes = [f"L{layer}.head{head}" for layer, head in (attended > ATTENDS).nonzero().tolist()]
        if not nodes:
            continue
        table = effects(model, acts, nodes, t, prediction, word)
        name, other = (f"“{visible(model.vocabulary[w])}”" for w in (prediction, word))
        for row in table.itertuples():
            if row.contribution < ADDS and row.d_difference < -COSTS:
                token, attention = model.vocabulary[word], float(attended[row.layer, row.head])
                role = "inhibitor"
                yield row.node, role, f"attends to the repeated {other} more than", attention, ATTENDS, token
                yield row.node, role, f"adds to {name} over {other} less than", row.contribution, ADDS, token
                yield row.node, role, f"without it {name} over {other} moves below", row.d_difference, -COSTS, token


def _inhibitors(
    model: Model, acts: Activations, t: int, places: dict[int, list[int]], partner: Sequence[int], found: list[tuple]
) -> Iterator[tuple]:
    """Heads that add nothing and move the queries of the prediction's movers against a repeated word."""
    if len(partner) != len(acts.token_ids):
        raise VisitError(
            f"A partner prompt must have as many tokens as the prompt, {len(acts.token_ids)}; got {len(partner)}."
        )
    prediction = ask(model, acts, t).target
    mine = model.vocabulary[prediction]
    movers = sorted({node for node, role, *_, word in found if role == "mover" and word == mine and node[:3] != "L0."})
    repeated = [word for word, at in places.items() if len(at) > 1 and word != prediction]
    if not movers or not repeated:
        return
    receivers = receivers_of(model, movers, "q")[:1]  # all at once
    z_new = needed(capture(model, partner, ("z",)), "z")[:, t]
    for word in repeated:
        line = PathLine(acts.prompt, acts.token_ids[: t + 1], tuple(partner)[: t + 1], prediction, word, t)
        moved = line_effects(model, acts, z_new, line, receivers, "q")["effect"][0]
        direction = attribution(model, acts, t, prediction, word).direction
        name, other = (f"“{visible(model.vocabulary[w])}”" for w in (prediction, word))
        queries = f"through the queries of {', '.join(part_name(node) for node in movers)}"
        for layer, head in zip(*(moved < -COSTS).nonzero(), strict=True):
            added = abs(float(head_results(model, acts, int(layer), t)[head] @ direction))
            if added < ADDS:
                node, token = f"L{layer}.head{head}", model.vocabulary[word]
                yield node, "inhibitor", f"adds to {name} over {other}, or takes, less than", added, ADDS, token
                effect = float(moved[layer, head])
                yield node, "inhibitor", f"{queries} {name} over {other} moves below", effect, -COSTS, token


# ---- heads that look at a place, whatever stands there ---------------------------------------------------------------
def _patterns(model: Model, acts: Activations) -> Iterator[tuple]:
    """The rule that a head's pattern follows over the whole prompt (`role_scores`)."""
    windows = [window(model, layer) for layer in range(model.n_layers)]
    scores = role_scores(acts, windows)
    needed_for = {size: named_from(acts, size) for size in set(windows)}
    for row in scores[scores["role"].notna()].itertuples():
        rule = next(rule for rule in RULES if row.role.startswith(f"{rule} ("))
        score, threshold = getattr(row, rule.replace(" ", "_")), needed_for[windows[row.layer]][rule]
        yield f"L{row.layer}.head{row.head}", rule, _LOOKS[rule], score, threshold, None
