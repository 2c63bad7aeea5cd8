"""What two passes do differently, in sentences. Every word is computed; where the numbers carry nothing it says so."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.analyses.graph_difference import Comparison, said_by
from visit.analyses.parting import PARTED, first_parting
from visit.analyses.token_alignment import describe
from visit.narrate.lens import which_lens
from visit.text.numbers import bits, percent, signed
from visit.text.visible import Sentence, quoted

NOTHING = 1e-6  # logits: a head that was switched off
_NAMED = 6  # differences of the prompts that are listed; more are counted


def contrast(
    found: Comparison, parting: pd.DataFrame | None = None, singles: pd.DataFrame | None = None
) -> list[Sentence]:
    """What the two prompts share, what each side answers, where the runs part, and which head took what instead.

    `parting`: `divergence.part` of the same two passes. `singles`: `graph_difference.single_parts` of them, which
    knows all heads and neurons; None: those that the two graphs show. A sentence is a list of (text, node id or None);
    ids are those of the difference graph.
    """
    if _identical(found):
        return [[("Both sides run the same prompt on the same model: there is nothing to tell apart. ", None),
                 ("Change a word in B.", None)]]  # fmt: skip
    return [sentence for sentence in contrast_parts(found, parting, singles).values() if sentence]


def contrast_parts(
    found: Comparison, parting: pd.DataFrame | None = None, singles: pd.DataFrame | None = None
) -> dict[str, Sentence]:
    """The same sentences by what they tell, of two prompts that differ; one is empty where there is nothing to tell."""
    return {
        "prompts": _prompts(found),
        "answers": _answers(found),
        "scales": _scales(found),
        "parting": [] if parting is None else _parting(found, parting),
        "strongest": _strongest(found, singles),
        "largest": _largest(found, singles),
    }


def _identical(found: Comparison) -> bool:
    a, b = found.meta, found.meta["b"]
    return all(a[name] == b[name] for name in ("model", "revision", "token_ids", "position"))


def _prompts(found: Comparison) -> Sentence:
    tokens_a, tokens_b = found.meta["tokens"], found.meta["b"]["tokens"]
    pairs = found.pairing.pairs
    equal = sum(p.kind == "equal" for p in pairs)
    if not equal:
        return [("The two prompts have no token in common; what follows compares positions, not words.", None)]
    changed = [p for p in pairs if p.kind != "equal"]
    if not changed:
        other = found.meta["model"] != found.meta["b"]["model"]
        return [(f"One prompt, {'two models' if other else 'two positions'}.", None)]
    if len(changed) > _NAMED:
        return [(f"{equal} of {len(pairs)} tokens are the same; {len(changed)} differ.", None)]
    return [(f"The prompts differ in {describe(found.pairing, tokens_a, tokens_b)}.", None)]


def _answers(found: Comparison) -> Sentence:
    if found.answers is None:
        return []
    rows = {}
    for row in found.answers.to_dict("records"):
        for whose in row["whose"].split(", "):
            rows[whose] = row
    a, b = rows["target of A"], rows["target of B"]
    if a is b:
        word = quoted(a["word"])
        change = a["logit_over_mean_b"] - a["logit_over_mean_a"]
        moved = "" if pd.isna(change) else f": its logit over the mean changes by {signed(change)}"
        return [(f"{word} has {_share(a['prob_a'])} in A and {_share(a['prob_b'])} in B{moved}.", None)]
    return [
        (
            f"A gives {quoted(a['word'])} {_share(a['prob_a'])} and {quoted(b['word'])} {_share(b['prob_a'])}; B gives "
            f"{quoted(b['word'])} {_share(b['prob_b'])} and {quoted(a['word'])} {_share(a['prob_b'])}.",
            None,
        ),
    ]


def _scales(found: Comparison) -> Sentence:
    """A warning where the two sides' contributions are not measured against the same thing."""
    others = [found.meta["distractor"], found.meta["b"]["distractor"]]
    if (others[0] is None) == (others[1] is None):
        return []
    side, other = ("A", others[0]) if others[0] is not None else ("B", others[1])
    scale = f"its contributions are over {quoted(other['token'])}, the other side's over the mean word"
    return [(f"Only {side} has a distractor: {scale}, so their difference mixes two scales.", None)]


def _share(p: Any) -> str:
    return "no single token" if pd.isna(p) else percent(float(p))


def _parting(found: Comparison, table: pd.DataFrame) -> Sentence:
    if len(table) and table["js"].isna().all():
        return [("The two vocabularies differ, so what the runs read cannot be compared in bits.", None)]
    first = first_parting(table)
    shown = set(table["pair"]) >= {n for n, p in enumerate(found.pairing.pairs) if p.a is not None and p.b is not None}
    read = which_lens("lens" in found.meta).replace("reads it", "reads them")
    if first is None and not shown:
        return [(f"Among the pairs shown the two streams, {read}, nowhere differ by 0.1 bit or more.", None)]
    if first is None and any(p.kind == "inserted" and p.b == found.meta["b"]["position"] for p in found.pairing.pairs):
        return [("The runs are the same at every token they share; B is looked at where A has no token.", None)]
    if first is None:
        return [(f"Nowhere do the two streams, {read}, differ by 0.1 bit or more.", None)]
    where = f"{_place(first)}, {_depth(first['depth'])}"
    runs = "the runs first diverge" if shown else "among the pairs shown the runs first diverge"
    start = f"{read[0].upper()}{read[1:]}, {runs}"
    sentence: Sentence = [(f"{start} (by {PARTED:g} bit or more) at {where}", None)]
    here = found.pairing.to_b.get(found.meta["position"]) == found.meta["b"]["position"]
    own = table[table["pos_a"] == found.meta["position"]] if here else table.iloc[:0]
    at = first_parting(own)
    if at is not None and at["pair"] != first["pair"]:
        state = "L0.resid_pre" if at["depth"] == 0 else f"L{at['depth'] - 1}.resid_post"
        words = "" if at["word_a"] == at["word_b"] else f"{quoted(at['word_a'])} / {quoted(at['word_b'])}, "
        sentence += [("; at the position looked at, ", None), (_depth(at["depth"]), state),
                     (f" ({words}{bits(at['js'])})", None)]  # fmt: skip
    elif here and at is None:
        sentence.append(("; at the position looked at they never do", None))
    return [*sentence, (".", None)]


def _place(cell: pd.Series) -> str:
    words = dict.fromkeys((quoted(cell["token_a"]), quoted(cell["token_b"])))
    return f"{' / '.join(words)} (position {' / '.join(dict.fromkeys((str(cell['pos_a']), str(cell['pos_b']))))})"


def _depth(depth: int) -> str:
    return "in the embedding" if depth == 0 else f"after block {depth - 1}"


def _strongest(found: Comparison, singles: pd.DataFrame | None) -> Sentence:
    """The head that pushes hardest towards A's target: from which token it takes its words in A, and in B."""
    heads = found.nodes if singles is None else singles
    heads = heads[heads["kind"] == "head"]
    if heads["contribution_a"].isna().all() or not heads["contribution_a"].max() > 0:
        return []
    head = heads.loc[heads["contribution_a"].idxmax()]
    name = f"L{head['layer']} H{head['head']}"
    a, b = _source(found, head, "a"), _source(found, head, "b")
    if a is None:
        return []
    sentence: Sentence = [
        (f"Towards {quoted(found.meta['target']['token'])} in A, ", None), (name, head["id"]),
        (f" pushes hardest ({signed(head['contribution_a'])}): ", None), *_taken_there(a, "a"),
    ]  # fmt: skip
    if b is None:
        return [*sentence, (".", None)]
    if abs(head["contribution_b"]) < NOTHING:
        return [*sentence, ("; in B it adds nothing.", None)]
    same = found.meta["target"]["id"] == found.meta["b"]["target"]["id"]
    towards = "" if same else f" towards {quoted(found.meta['b']['target']['token'])}"
    sentence += [
        ("; in B ", None), *_taken_there(b, "b"), (f" ({signed(head['contribution_b'])}{towards})", None),
    ]  # fmt: skip
    best = heads.loc[heads["contribution_b"].idxmax()]
    if best["id"] != head["id"] and best["contribution_b"] > 0:
        sentence += [("; hardest in B pushes ", None), (f"L{best['layer']} H{best['head']}", best["id"]),
                     (f" ({signed(best['contribution_b'])})", None)]  # fmt: skip
    return [*sentence, (".", None)]


def _taken_there(source: dict[str, Any], side: str) -> Sentence:
    """ "it recalls “·Tokyo” from “·Japan”"; of a head that pushes the distractor down, what it holds negated."""
    token, word = quoted(source[f"source_token_{side}"]), (quoted(source[f"word_{side}"]), source["id"])
    if source[f"negated_{side}"]:
        return [(f"it suppresses: the negative of its memory value from {token} reads ", None), word]
    return [("it recalls ", None), word, (f" from {token}", None)]


def _source(found: Comparison, head: pd.Series, side: str) -> Any:
    """The memory value that gives most to the head's push on one side, of the shown ones where it is not known yet."""
    if f"source_id_{side}" in head:
        names = (f"word_{side}", f"negated_{side}", f"source_token_{side}")
        return {"id": head[f"source_id_{side}"], **{name: head[name] for name in names}}
    values = found.nodes[(found.nodes["kind"] == "value") & (found.nodes["layer"] == head["layer"])]
    values = values[(values["head"] == head["head"]) & values[f"contribution_{side}"].notna()]
    if values.empty:
        return None
    pushed = values[f"contribution_{side}"] * (1 if head[f"contribution_{side}"] >= 0 else -1)
    value, about = values.loc[pushed.idxmax()].to_dict(), found.meta if side == "a" else found.meta["b"]
    other = None if about["distractor"] is None else about["distractor"]["token"]
    said = said_by(value[f"tokens_{side}"], value[f"bottom_tokens_{side}"], about["target"]["token"], other)
    return {**value, f"word_{side}": said[0], f"negated_{side}": said[1]}


def _largest(found: Comparison, singles: pd.DataFrame | None) -> Sentence:
    table = found.tables["changes"] if singles is None else singles
    table = table[table["kind"].isin(["head", "mlp_value"])]  # sums of many would always win
    if table.empty or not table["difference"].abs().max() > 0:
        return []
    row = table.loc[table["difference"].abs().idxmax()]
    numbers = f"{signed(row['contribution_a'])} in A, {signed(row['contribution_b'])} in B"
    same = found.meta["target"]["token"] == found.meta["b"]["target"]["token"]
    own = "" if same else ", each towards its own side's target"
    return [
        ("Of single heads and neurons, ", None), (row["component"], row["id"]),
        (f" changes most: {numbers}{own}.", None),
    ]  # fmt: skip
