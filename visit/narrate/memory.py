"""One head's memory in sentences and as a drawing, and what a set of memory tables is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from visit.graph.flowgraph import FlowGraph
from visit.graph.prune import Keep
from visit.text.numbers import percent, short, signed
from visit.text.visible import Sentence, quoted

if TYPE_CHECKING:
    from visit.activations.record import Activations
    from visit.models.model import Model

SECOND_SHARE = 0.25  # of a head's pushes: from here on a second source is named beside the first
DRAWN_VALUES = 12  # memory values in a head's drawing


def strongest_head(heads: pd.DataFrame) -> str:
    """The id of the head that pushes hardest towards the target (`visit.analyses.heads.head_map`)."""
    return str(heads.loc[heads["contribution"].idxmax(), "node"])


def memory_story(summary: dict[str, Any], table: pd.DataFrame, role: str | None, d_vocab: int) -> list[Sentence]:
    """What a head does at one position: whom it looks at, what it recalls from there, and what that does.

    `summary`, `table`: `head_summary` and `head_memory` of one head, words of all rows read; `role`: its
    hint (`visit.analyses.heads`). A piece with an id names the node of the flow graph that it is about.
    """
    rows = table[table["source_pos"].notna()]
    name, node = f"L{summary['layer']} H{summary['head']}", summary["node"]
    target = quoted(summary["target"]["token"])
    against = "" if summary["distractor"] is None else f" over {quoted(summary['distractor']['token'])}"
    away = summary["contribution"] < 0
    push = "away from" if away else "towards"
    rank = f"{target} is at rank {summary['rank']:,} of {d_vocab:,} in it."
    reads = f"Its output reads {_words_of(summary['tokens'])}; {rank}"
    size = signed(summary["contribution"])
    first: Sentence = [
        ("Head ", None),
        (name, node),
        (f" pushes {push} {target}{against} ({size} logits). {reads}", None),
    ]
    sentences = [first, _main_sources(rows, node, away)]
    if away and summary["negated_tokens"]:
        sentences.append(
            [(f"What it takes away reads {_words_of(summary['negated_tokens'])}: its output turned round.", None)]
        )
    sink = rows.iloc[0]
    if len(rows) > 1 and sink["pattern"] > 0.5 and sink["share"] < 0.5 * sink["pattern"]:
        sentences.append([
            (f"{percent(sink['pattern'])} of its attention rests on the first position, whose memory value is short "
             f"({percent(sink['share'])} of what it moves): a place to look at when there is nothing to fetch.", None)
        ])  # fmt: skip
    if role is not None:
        sentences.append([(f"Over the whole prompt it mostly looks at: {role}, a score of its pattern alone.", None)])
    return sentences


def _words_of(tokens: list[str]) -> str:
    return ", ".join(quoted(t) for t in tokens[:3])


def _main_sources(rows: pd.DataFrame, node: str, away: bool) -> Sentence:
    """The sources that make most of the push, and what their memory values read."""
    pushed = -rows["contribution"] if away else rows["contribution"]
    order = pushed.sort_values(ascending=False).index
    total = float(pushed.clip(lower=0).sum())
    if not total > 0:
        return [("No single memory value carries this push.", None)]
    pieces: Sentence = []
    for place, i in enumerate(order[:2]):
        row, part = rows.loc[i], float(pushed[i]) / total
        if place and part < SECOND_SHARE:
            break
        value = f"{node}.value{int(row['source_pos'])}"
        first = "It takes this from " if part >= SECOND_SHARE else "It gathers this from many positions, the most from "
        start = "; and from " if place else first
        where = f"(position {int(row['source_pos'])}, pattern {short(row['pattern'])})"
        pieces += [
            (f"{start}{quoted(row['source_token'])} {where}: the ", None),
            ("memory value", value),
            (f" there reads {_words_of(row['tokens'])} and gives {signed(row['contribution'])} logits", None),
        ]
    return [*pieces, (".", None)]


def head_graph(
    model: Model, acts: Activations, layer: int, head: int, pos: int = -1, target: int | str | None = None,
    distractor: int | str | None = None, values: int = DRAWN_VALUES,
) -> FlowGraph:  # fmt: skip
    """One head as a flow graph: its query, keys, memory values and output; everything else of attention is rest.

    Draw it with `detail="everything", parts="attention"`. Raises `VisitError` for a wrong layer, head or position.
    """
    from visit.exact.question import check_head
    from visit.graph.build import build_flow_graph

    check_head(model, layer, head)
    keep = Keep(heads=0, values=values, attn_neurons=0, mlp_neurons=0, pin=(f"L{layer}.head{head}",))
    return build_flow_graph(model, acts, pos, [layer], target, distractor, keep)


FINDINGS = {
    2: "The paper (GPT-2 medium, 100 prompts): without W_O heads share no words with what attention adds; with it "
    "they do, "
    "more so in deeper layers.",
    3: "The paper: only the few heads of the largest norm share words with what attention adds.",
    5: "The paper: the more a memory value is attended, the more words it shares with its head.",
}


def figure_findings(scores: pd.DataFrame) -> dict[int, str]:
    """What this prompt shows for each of the paper's figures 2, 3 and 5, computed from `alignment_scores`."""

    def mean(figure: int, **where: Any) -> float:
        rows = scores[scores["figure"] == figure]
        for name, value in where.items():
            rows = rows[rows[name] == value]
        return float(rows["score"].mean()) if len(rows) else float("nan")

    with_, without = mean(2, other="attn_out", with_w_o=True), mean(2, other="attn_out", with_w_o=False)
    top, value = mean(3, other="attn_out"), mean(5, source_rank=1)
    third = mean(5, source_rank=3)
    later = "" if third != third else f", {short(third)} for the third"
    bare = "" if without != without else f", {short(without)} without W_O"
    return {
        2: f"This prompt: {short(with_)} with attn_out on average over all heads with W_O{bare}.",
        3: f"This prompt: {short(top)} with attn_out for the three longest heads of each layer, {short(with_)} over "
           "all heads.",
        5: f"This prompt: {short(value)} for the most attended memory value{later}.",
    }  # fmt: skip
