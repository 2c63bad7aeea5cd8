"""Tables and sentences of a recording, computed once more: by the functions that made them, number by number.

A row is found again by what it is of (`_ROWS`), not by its place: among nearly equal ones another machine's rounding
orders, and keeps, others. So a few rows may have no partner, ranks and words are not compared, and of scores of shared
words a tenth may be another: a tie turns them over. Probabilities of the next token are read off the whole
distribution. Of the attention pattern every number is compared.
"""

from __future__ import annotations

import random
import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from visit.files.recorded_values import PATTERN_STEP
from visit.files.recording_cost import NEURONS, WORDS_OF_A_VECTOR
from visit.files.recording_file import broken_file
from visit.graph.flowgraph import FlowGraph
from visit.text.node_id import NodeId

if TYPE_CHECKING:
    from visit.exact.question import Question
    from visit.files.recording import RecordedPair, RecordedRun
    from visit.lenses.linear import Lens

_ROWS = {
    "predictions": ("pos", "id"), "lens_map": ("depth", "pos"), "heads": ("node",), "memory": ("source_pos",),
    "life": ("layer", "head"), "norm": ("id",), "norm layers": ("node", "norm"), "neurons": ("node",),
    "effects": ("node",), "alignment": ("figure", "layer", "head", "with_w_o", "other", "source_pos"),
    "moves": ("layer",), "head": ("id",), "parting": ("depth", "pair"), "single parts": ("id",),
    "answers": ("word", "whose"), "states": ("state", "pos"), "moved": ("node", "source_pos"),
}  # fmt: skip
_OF_WORDS = ("intersection", "apart", "score")  # shares of words
_TIES = 0.1  # of these, or some tolerances, may be other words
_SEVERAL_STEPS = 3  # tolerances: a number of a table has gone through more steps than an identity
_SINGLE = 1e-7  # the rounding of float32, in which a pattern's steps are counted
_LOST = 0.1  # of the rows of a table, or some tolerances, may have no partner: others were nearly as large
_NUMBER = re.compile(r"[−+-]?\d[\d,]*(?:\.\d+)?(?:e[−+-]?\d+)?")


def tables_compared(
    run: RecordedRun, question: Question, lens: Lens | None, allowed: float, seed: int, same_model: bool
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows for the pattern, a table of every kind, drawn at random where there are many, and what is told in sentences.

    `same_model`: the model is the recorded one, in its type, so that it tells the same story.
    """
    from visit.narrate.flow import gathered, story_of

    keys: dict[str, list[str]] = {kind: [key for key in run.results if kind_of(key) == kind] for kind in _ROWS}
    chosen = [random.Random(seed).choice(of) for of in keys.values() if of]
    rows = [pattern_compared(run, question, allowed)]
    for key in chosen:
        rows.append(_table_row(key, recorded_table(run, key), table_again(question, key, lens, run), allowed))
    facts, again = run.result("facts"), gathered(
        question.model, question.acts, question.pos, question.target, question.distractor, lens
    )  # fmt: skip
    rows += [_table_row(part, getattr(facts, part), getattr(again, part), allowed) for part in ("states", "moved")]
    if same_model:
        rows.append(_told_row("story", run.result("story"), story_of(again), allowed))
        rows += (
            [_told_row("causes", run.result("causes"), _causes_again(run, question), allowed)]
            if "causes" in run.results
            else []
        )
    return rows


def pattern_compared(run: RecordedRun, question: Question, allowed: float) -> dict[str, Any]:
    """Every weight of every head and query; where they differ most is named."""
    from visit.exact.decompose import needed

    live = needed(question.acts, "pattern")
    worst: dict[str, Any] = {"node": "", "recorded": None, "replayed": None, "difference": -1.0}
    for layer, kept in enumerate(run.pattern):
        then = np.rint(kept.astype(float) / PATTERN_STEP) * PATTERN_STEP
        now = live[layer].double().cpu().numpy().clip(0, 1)  # as it is kept; a scaled link may be above 1
        apart = np.abs(then - now) - PATTERN_STEP / 2 - _SINGLE
        at = head, query, key = np.unravel_index(apart.argmax(), apart.shape)
        if apart[at] > worst["difference"]:
            worst = {"node": f"L{layer}.head{head} from {query} to {key}", "recorded": float(then[at]),
                     "replayed": float(now[at]), "difference": float(apart[at])}  # fmt: skip
    worst["difference"] = max(0.0, worst["difference"])
    return {"kind": "pattern", "number": "pattern", **worst, "tolerance": allowed,
            "holds": worst["difference"] <= allowed}  # fmt: skip


def pair_compared(
    pair: RecordedPair, questions: tuple[Question, Question], lens: Lens | None, allowed: float, same_model: bool
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows for the alignment of two prompts, where their runs part, their single parts, both answers, and the words."""
    from visit.analyses import token_alignment
    from visit.analyses.divergence import part
    from visit.analyses.graph_difference import single_parts, target_ranks, told_sides
    from visit.narrate.comparison import contrast_parts

    a, b = questions
    then, now = pair.result("pairing"), token_alignment.pair(a.model, a.acts, b.model, b.acts)
    odd = next(((one, two) for one, two in zip_longest(then.pairs, now.pairs) if one != two), None)
    rows = [_exact_row("alignment", "alignment", "pairs", odd)]
    apart = part(a.model, a.acts, b.model, b.acts, then, lenses=(lens, lens))
    singles = single_parts(a, b, then)
    for key, again in (("parting", apart), ("single parts", singles), ("answers", target_ranks(a, b))):
        rows.append(_table_row(key, pair.result("compare").answers if key == "answers" else pair.result(key), again,
                               allowed))  # fmt: skip
    told = pair.result("contrast")
    if same_model and told:
        live = contrast_parts(told_sides(a, b, then, (lens, lens)), apart, singles)
        rows.append(_told_row("contrast", list(told.values()), list(live.values()), allowed))
    return rows


def kind_of(key: str) -> str:
    """Which kind of table a key names: "norm" of "norm ln1 5"."""
    return key if key in ("norm layers", "single parts") else key.split(" ")[0]


def recorded_table(run: RecordedRun, key: str) -> pd.DataFrame:
    return _rows_of_result(run.result(key))


def _rows_of_result(found: Any) -> pd.DataFrame:
    """A table, that beside a summary, a graph's nodes without what stands for others, or numbers of layers."""
    if isinstance(found, dict):
        return pd.DataFrame({"layer": list(found), "moved": list(found.values())})
    if isinstance(found, FlowGraph):
        return found.nodes[found.nodes["kind"] != "rest"]
    table: pd.DataFrame = found[1] if isinstance(found, tuple) else found
    return table


def table_again(question: Question, key: str, lens: Lens | None, run: RecordedRun) -> pd.DataFrame:
    """The table of a key, by the function that the recording was made with."""
    from visit.analyses.attention_memory import head_memory, value_life
    from visit.analyses.heads import head_map
    from visit.analyses.neurons import active_neurons
    from visit.analyses.norms import target_shifts, token_shift
    from visit.analyses.overlap import alignment_scores
    from visit.analyses.overview import block_moves, lens_map
    from visit.causal.effects import effects
    from visit.narrate.memory import head_graph

    model, acts, pos = question.model, question.acts, question.pos
    words = (question.target, question.distractor)
    about = (pos, *words)
    match key.split(" "):
        case ["predictions"]:
            return _predictions_again(question, run.result("predictions"))
        case ["lens_map", *fitted]:
            return lens_map(model, acts, question.target, lens=lens if fitted else None)
        case ["heads"]:
            return head_map(model, acts, *about, influence=True)
        case ["memory", node]:
            return head_memory(model, acts, *_head_place(node), pos, *words, k=WORDS_OF_A_VECTOR)
        case ["head", "graph", node]:
            return _rows_of_result(head_graph(model, acts, *_head_place(node), pos, *words))
        case ["alignment"]:
            return alignment_scores(model, acts, pos)
        case ["moves"]:
            return _rows_of_result(block_moves(model, acts, *about))
        case ["life", source]:
            return value_life(model, acts, int(source), question.target, pos=pos)
        case ["norm", "layers"]:
            return target_shifts(model, acts, pos, question.target)
        case ["norm", norm, *layer]:
            return token_shift(model, acts, int(layer[0]) if layer else None, norm, pos, question.target)
        case ["neurons", layer]:
            return active_neurons(model, acts, int(layer), pos, top=NEURONS, target=question.target,
                                  distractor=question.distractor)  # fmt: skip
        case _:
            return effects(model, acts, "heads", *about)


def _head_place(node: str) -> tuple[int, int]:
    """Layer and head of a head's name."""
    head = NodeId.parse(node)
    if head is None or head.kind != "head":
        raise broken_file(f"it has a table of the head {node[:40]!r}")
    return head.layer, head.head  # type: ignore[return-value]


def _predictions_again(question: Question, table: pd.DataFrame) -> pd.DataFrame:
    """The probabilities of the recorded tokens at their positions, and of the target and the distractor there."""
    from visit.exact.decompose import needed

    likely = needed(question.acts, "logits").to(question.model.wide).softmax(-1).cpu().numpy()
    found = table[["pos", "id"]].assign(prob=likely[table["pos"], table["id"]])
    for role, word in (("target", question.target), ("distractor", question.distractor)):
        if word is not None:
            found[f"{role}_prob"] = likely[table["pos"], word]
    return found


def _table_row(key: str, recorded: pd.DataFrame, again: pd.DataFrame, allowed: float) -> dict[str, Any]:
    return {"kind": "table", "node": key, **table_difference(key, recorded, again, _SEVERAL_STEPS * allowed)}


def table_difference(key: str, recorded: pd.DataFrame, again: pd.DataFrame, allowed: float) -> dict[str, Any]:
    """The number of a table that differs most, over the largest of its column (1 at least)."""
    by = list(_ROWS[kind_of(key)])
    one, two = (_placed(table, by) for table in (recorded, again))
    both = one.index.intersection(two.index)
    missing = {"number": "rows", "recorded": len(one), "replayed": len(both), "difference": float("inf")}
    if len(one) - len(both) > max(_LOST, 4 * allowed) * len(one):
        return {**missing, "tolerance": allowed, "holds": False}
    worst: dict[str, Any] = {"number": "", "recorded": None, "replayed": None, "difference": 0.0}
    for name in one.columns.intersection(two.columns):
        then, now = (_fractions(table.loc[both, name]) for table in (one, two))
        if then is None or now is None or not len(then):
            continue
        apart = np.where(np.isnan(then) & np.isnan(now), 0.0, np.abs(then - now))
        apart = np.nan_to_num(apart, nan=np.inf) / max(1.0, np.nan_to_num(np.abs(now)).max())
        if name.startswith(_OF_WORDS) and apart.max() <= max(_TIES, 4 * allowed):
            continue
        at = int(apart.argmax())
        if apart[at] > worst["difference"]:
            worst = {"number": name, "recorded": float(then[at]), "replayed": float(now[at]),
                     "difference": float(apart[at])}  # fmt: skip
    return {**worst, "tolerance": allowed, "holds": worst["difference"] <= allowed}


def _placed(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """A table by what its rows are of; no place (of what is left of a head) is one, too."""
    places = [pd.Index(table[name].astype(object).where(table[name].notna(), -1), name=name) for name in by]
    placed = table.set_index(places)
    return placed[~placed.index.duplicated()]


def _fractions(column: pd.Series) -> np.ndarray | None:
    """A column's numbers, of lists of probabilities the first ones; None for one that has no fractions."""
    if column.dtype == object and column.name in ("probs", "key_probs", "query_probs"):
        return np.array(
            [max(one, default=np.nan) if isinstance(one, list | tuple) else np.nan for one in column], float
        )
    return column.to_numpy(float) if pd.api.types.is_float_dtype(column) else None


def _causes_again(run: RecordedRun, question: Question) -> Any:
    """The sentences on what heads do, told of the recorded effects, which are compared as a table."""
    from visit.causal.named_heads import named_heads
    from visit.narrate.causes import cause_story

    return cause_story(named_heads(question.model, question.acts, run.result("effects")))


def _told_row(key: str, recorded: Any, again: Any, allowed: float) -> dict[str, Any]:
    """Whether sentences say the same, but for the last digits of their numbers."""
    pairs = zip_longest(_sentences(recorded), _sentences(again), fillvalue="")
    return _exact_row("reading", key, "words", next((two for two in pairs if not told_alike(*two, allowed)), None))


def told_alike(one: str, two: str, allowed: float) -> bool:
    """Whether two sentences have the same words, and numbers that rounding can turn into each other."""
    if _NUMBER.sub("0", one) != _NUMBER.sub("0", two):
        return False
    return all(_near(a, b, allowed) for a, b in zip(_NUMBER.findall(one), _NUMBER.findall(two), strict=True))


def _near(one: str, two: str, allowed: float) -> bool:
    """Whether two printed numbers are one, give or take the last digit; large counts may differ by a hundredth."""
    a, b = (float(text.replace("−", "-").replace(",", "")) for text in (one, two))
    digits = one.partition("e")[0].partition(".")[2]
    last = 1.01 * 10 ** -len(digits) if digits else 0.01 * abs(a)
    return abs(a - b) <= last + 10 * allowed * abs(a)


def _exact_row(kind: str, key: str, number: str, apart: tuple[Any, Any] | None) -> dict[str, Any]:
    """What is equal or is not: `apart`, the first two that differ."""
    one, two = apart or ("", "")
    return {"kind": kind, "node": key, "number": number, "recorded": one, "replayed": two,
            "difference": 0.0 if apart is None else float("inf"), "tolerance": 0.0, "holds": apart is None}  # fmt: skip


def _sentences(story: Any) -> list[str]:
    return ["".join(piece[0] for piece in sentence) for sentence in story]
