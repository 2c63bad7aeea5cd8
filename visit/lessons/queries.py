"""The answers of a lesson's queries on the learner's own run, by token id, node id, position or number.

Everything is taken from analyses that the pages show: contributions as the graph draws them, the lens that the map is
read through, and what the answer does without a part as it was measured (`visit.causal`), the part taken out at the
position looked at. So a checked answer is what stands on screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from visit.activations.record import Activations
from visit.analyses.overview import lens_map, movers
from visit.causal.effects import effects
from visit.causal.thresholds import ADDS, HALF
from visit.causal.trace_plan import SAMPLES, guessed_subject, restored_runs
from visit.causal.tracing import LITTLE_TO_LOSE, TraceJob
from visit.errors import VisitError, check_range
from visit.exact.decompose import head_results, memory_values, needed, rows_and_bias
from visit.exact.question import Question, check_head, check_neuron
from visit.lenses.linear import Lens
from visit.lenses.logit import read_vectors
from visit.lessons.grammar import NTH, SETS, AnswerKind, Query, Side, Unit
from visit.models.model import Model
from visit.runs.job import finish
from visit.text.node_id import NodeId, part_name
from visit.text.numbers import percent, short, signed
from visit.text.visible import as_word, quoted


@dataclass(frozen=True)
class RunAnswer:
    """What a query gives: a node's id, a position, a token's id or a number, and of a number its unit."""

    kind: AnswerKind
    value: str | int | float
    unit: Unit = ""


@dataclass(frozen=True, eq=False)
class LearnerRun:
    """One pass and what is asked of it. `tables`: what was measured or made before, shared by whoever has this run.

    `side`: of two texts, the one that it is of; `other`: the run of the other one.
    """

    question: Question
    lens: Lens | None = None  # that the page reads the stream through
    tables: dict[str, Any] = field(default_factory=dict)
    side: Side = "A"
    other: LearnerRun | None = None

    @property
    def model(self) -> Model:
        return self.question.model

    @property
    def acts(self) -> Activations:
        return self.question.acts

    @cached_property
    def moved(self) -> pd.DataFrame:
        """What heads, attention and MLPs add directly, in logits of the target."""
        if "moved" not in self.tables:
            q = self.question
            self.tables["moved"] = movers(q.model, q.acts, q.pos, q.target, q.distractor)
        found: pd.DataFrame = self.tables["moved"]
        return found

    def effects(self, nodes: str | tuple[str, ...]) -> pd.DataFrame:
        """What becomes of the target when each of these is taken out."""
        key = f"effects {nodes}"
        if key not in self.tables:
            q = self.question
            self.tables[key] = effects(q.model, q.acts, nodes, q.pos, q.target, q.distractor)
        found: pd.DataFrame = self.tables[key]
        return found

    def column(self, pos: int) -> pd.DataFrame:
        """The lens map's column of a position, a row a depth."""
        key = f"column {pos}"
        if key not in self.tables:
            self.tables[key] = lens_map(self.model, self.acts, self.question.target, [pos], 1, self.lens)
        found: pd.DataFrame = self.tables[key]
        return found

    @cached_property
    def trace(self) -> pd.DataFrame:
        """The causal trace as its page makes it at first. Raises `VisitError` where it cannot, or takes long."""
        if "trace" not in self.tables:
            q = self.question
            subject = guessed_subject(q)
            if not subject:
                raise VisitError("A trace needs a word before the position looked at.")
            runs = SAMPLES * len(restored_runs(q.model.n_layers, None)) * (q.pos + 1 - subject[0])
            if runs * sum(w.numel() for w in q.model.hf.parameters()) > TRACE_WORK:
                raise VisitError("A trace takes long on this model and text; a lesson asks only for quick ones.")
            self.tables["trace"] = finish(TraceJob.of(q, subject))
        found: pd.DataFrame = self.tables["trace"]
        return found


TRACE_WORK = 5e10  # weights × runs of a trace, up to which a question of a lesson waits for it: some seconds


def paired(a: LearnerRun, b: LearnerRun) -> LearnerRun:
    """The run of A, which knows that of B, and the other way round."""
    return replace(a, side="A", other=replace(b, side="B", other=a))


def asked_of(run: LearnerRun, query: Query | None) -> LearnerRun:
    """The run that a query is about: this one, or that of the text which it names."""
    if query is None or query.side in ("", run.side):
        return run
    if run.other is None:
        raise VisitError("Here is one text only; “in B” is asked where two stand, on Compare.")
    return run.other


# ---- answers ---------------------------------------------------------------------------------------------------------
def answer(run: LearnerRun, query: Query) -> RunAnswer:
    """What a query gives on this run. Raises `VisitError` where the run has no such thing."""
    run = asked_of(run, query)
    value = _found_by(run, query)
    if isinstance(value, float) and math.isnan(value):
        raise VisitError(f"“{query.text}” has no answer on this run.")
    return RunAnswer(query.kind, value, query.unit)


def _found_by(run: LearnerRun, query: Query) -> str | int | float:
    """One case a phrase, in the order of `grammar.PHRASES`."""
    model, acts, question = run.model, run.acts, run.question
    match query.name:
        case "node":
            return _known_node(model, query.text, question.pos)
        case "contribution among" | "against among" | "effect among" | "norm among":
            return _most(run, query.name.split()[0], _slot(query, "set"), NTH.index(_slot(query, "nth")))
        case "attention among":
            pattern = needed(acts, "pattern")[:, :, question.pos, _pos(run, query)]
            best = int(pattern.flatten().topk(NTH.index(_slot(query, "nth")) + 1).indices[-1])
            return f"L{best // model.n_heads}.head{best % model.n_heads}"
        case "attended":
            return int(_attention_of(run, _node(run, query)).argmax())
        case "source":
            return _source_of(run, _node(run, query))
        case "brings back":
            column = _put_back(run, "layer", _block(run, query))
            return int(column.loc[column["effect"].idxmax(), "pos"])
        case "last position":
            return len(acts.token_ids) - 1
        case "position":
            return acts.index(int(float(_slot(query, "count"))))
        case "position of":
            return _position_reading(acts, _slot(query, "word"))
        case "prediction" | "second":
            order = needed(acts, "logits")[question.pos].topk(2).indices
            return int(order[0 if query.name == "prediction" else 1])
        case "target":
            return question.target
        case "distractor":
            if question.distractor is None:
                raise VisitError("This run has no distractor.")
            return question.distractor
        case "word":
            return model.token_id(_slot(query, "word"), "word")
        case "word at":
            return acts.token_ids[_pos(run, query)]
        case "top after":
            return _top(run, _stream_after(run, _block(run, query), _pos(run, query)), _block(run, query))
        case "top of":
            return _top(run, vector_of(run, _node(run, query)))
        case "recalled":
            return _top(run, _recalled_at(run, _node(run, query), _pos(run, query)))
        case "probability":
            return float(needed(acts, "logits")[question.pos].to(model.wide).softmax(-1)[question.target])
        case "probability after":
            return float(run.column(question.pos)["prob"].iloc[_block(run, query) + 1])
        case "probability without":
            return float(_without_part(run, _node(run, query))[0]["prob"])
        case "probability under noise":
            return float(run.trace.attrs["corrupted"])
        case "attention":
            return float(_attention_of(run, _node(run, query))[_pos(run, query)])
        case "rank after":
            return int(run.column(question.pos)["rank"].iloc[_block(run, query) + 1])
        case "rank in":
            read = read_vectors(model, vector_of(run, _node(run, query)), question.target, k=1)
            return int(read["rank"].iloc[0])
        case "contribution":
            return float(question.attribution.of(vector_of(run, _node(run, query))))
        case "effect":
            return _effect(*_without_part(run, _node(run, query)))
        case "norm":
            return float(vector_of(run, _node(run, query)).norm())
        case "norm after":
            return float(_stream_after(run, _block(run, query), question.pos).norm())
        case "first block":
            ranks = run.column(question.pos)["rank"].tolist()[1:]
            if 1 not in ranks:
                raise VisitError("The target is first after no block of this run.")
            return ranks.index(1)
        case "half back":
            rows, about = _put_back(run, "pos", _pos(run, query)), run.trace.attrs
            enough = rows["layer"][rows["effect"] >= HALF * (about["clean"] - about["corrupted"])]
            if about["clean"] - about["corrupted"] < LITTLE_TO_LOSE or enough.empty:
                raise VisitError("No single state there brings half of the answer back.")
            return int(enough.max())
        case "block of":
            return int(NodeId.parse(_node(run, query)).layer or 0)  # type: ignore[union-attr]
        case "tokens":
            return len(acts.token_ids)
        case "blocks":
            return model.n_layers
        case "heads":
            return model.n_heads
        case "number":
            return float(_slot(query, "count"))
    raise AssertionError(query.name)


def _put_back(run: LearnerRun, name: str, number: int) -> pd.DataFrame:
    """The cells of the trace in which the stream is put back: those of one `layer` or one `pos` of its map."""
    table = run.trace
    return table[(table["site"] == "resid") & (table[name] == number)]


def _slot(query: Query, slot: str) -> str:
    value = query.arg(slot)
    assert isinstance(value, str)
    return value


def _node(run: LearnerRun, query: Query) -> str:
    inner = query.arg("node")
    assert isinstance(inner, Query)
    return str(_found_by(run, inner))


def _pos(run: LearnerRun, query: Query) -> int:
    """The position a phrase names, the looked-at one where it names none."""
    inner = query.arg("pos")
    found = run.question.pos if inner is None else int(_found_by(run, inner))  # type: ignore[arg-type]
    if found > run.question.pos:
        raise VisitError(f"Position {found} comes after the looked-at one ({run.question.pos}), which cannot see it.")
    return found


def _block(run: LearnerRun, query: Query) -> int:
    inner = query.arg("block")
    if isinstance(inner, Query):
        number = int(_found_by(run, inner))
    else:
        assert inner is not None
        number = run.model.n_layers - 1 if inner == "last block" else int(inner.removeprefix("block "))
    check_range(f"Blocks of {run.model.name}", number, run.model.n_layers)
    return number


def _position_reading(acts: Activations, word: str) -> int:
    """The last position whose token reads so; its leading space is forgiven."""
    found = [i for i, token in enumerate(acts.tokens) if token.strip() == word.strip()]
    if not found:
        raise VisitError(f"No token of this prompt reads {quoted(word)}.")
    return found[-1]


def _known_node(model: Model, name: str, pos: int) -> str:
    """A node that this model has."""
    node = NodeId.parse(name)
    assert node is not None
    if node.layer is not None:
        check_range(f"Blocks of {model.name}", node.layer, model.n_layers)
        if node.head is not None:
            check_head(model, node.layer, node.head)
        if node.neuron is not None and node.kind.startswith("mlp"):
            check_neuron(model, node.layer, node.neuron)
        if node.source_pos is not None:
            check_range("Positions", node.source_pos, pos + 1)
    return name


def _most(run: LearnerRun, what: str, among: str, nth: int) -> str:
    """The node of a set with the n-th largest number, from 0."""
    names = nodes_of(run.model, among)
    if what == "effect":
        if among == "neurons":
            raise VisitError("Effects are measured of heads, mlps and attentions; for all neurons it takes too long.")
        table = run.effects("heads" if among == "heads" else tuple(names))
        numbers = [-_effect(row, table.attrs["before"]) for row in table.to_dict("records")]
        names = table["node"].tolist()
    else:
        numbers = _numbers_of_set(run, what, among)
    order = sorted(range(len(names)), key=lambda n: -numbers[n])
    return names[order[nth]]


def nodes_of(model: Model, among: str) -> list[str]:
    """The ids of a set, block by block."""
    assert among in SETS
    if among in ("mlps", "attentions"):
        kind = "mlp_out" if among == "mlps" else "attn_out"
        return [f"L{layer}.{kind}" for layer in range(model.n_layers)]
    kind, count = ("head", model.n_heads) if among == "heads" else ("mlp_value", model.d_mlp)
    return [f"L{layer}.{kind}{n}" for layer in range(model.n_layers) for n in range(count)]


def _numbers_of_set(run: LearnerRun, what: str, among: str) -> list[float]:
    """Of a whole set, contribution (turned round for "against") or norm."""
    model, acts, t = run.model, run.acts, run.question.pos
    found: list[Tensor] = []
    for layer in range(model.n_layers):
        if among == "heads":
            vectors = head_results(model, acts, layer, t)
        elif among == "neurons":
            rows = rows_and_bias(model, acts, layer, "mlp", t)[0]
            amounts = needed(acts, "neurons")[layer, t].to(model.wide)
            if what == "norm":
                found.append(amounts.abs() * rows.norm(dim=-1))
            else:
                found.append(amounts * run.question.attribution.of(rows))
            continue
        else:
            vectors = needed(acts, "mlp_out" if among == "mlps" else "attn_out")[layer, t].to(model.wide)[None]
        found.append(vectors.norm(dim=-1) if what == "norm" else run.question.attribution.of(vectors))
    numbers = torch.cat(found)
    return (-numbers if what == "against" else numbers).tolist()


def _as_head(name: str) -> NodeId:
    node = NodeId.parse(name)
    if node is None or node.kind != "head":
        raise VisitError(f"Only a head attends to positions; {part_name(name)} is none.")
    return node


def _attention_of(run: LearnerRun, name: str) -> Tensor:
    node, t = _as_head(name), run.question.pos
    return needed(run.acts, "pattern")[node.layer, node.head, t, : t + 1].to(run.model.wide)


def _source_of(run: LearnerRun, name: str) -> int:
    """The position whose memory value gives most of a head's push, as the reading names it."""
    _as_head(name)
    return int(run.moved.set_index("node").loc[name, "source_pos"])


def vector_of(run: LearnerRun, name: str) -> Tensor:
    """`[d_model]`: what a node adds to the stream at the looked-at position, or the stream itself."""
    model, acts, t, node = run.model, run.acts, run.question.pos, NodeId.parse(name)
    assert node is not None
    if node.kind == "head" and node.layer is not None and node.head is not None:
        return head_results(model, acts, node.layer, t)[node.head]
    if node.kind == "mlp_value" and node.layer is not None and node.neuron is not None:
        rows = rows_and_bias(model, acts, node.layer, "mlp", t)[0]
        return needed(acts, "neurons")[node.layer, t, node.neuron].to(model.wide) * rows[node.neuron]
    if node.kind == "value" and node.source_pos is not None:
        return (
            _recalled_at(run, f"L{node.layer}.head{node.head}", node.source_pos)
            * _attention_of(run, f"L{node.layer}.head{node.head}")[node.source_pos]
        )
    if node.kind in ("attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post"):
        return needed(acts, node.kind)[node.layer, t].to(model.wide)
    raise VisitError(f"Nothing is known here of {part_name(name)}: ask for a head, an MLP, a neuron or the stream.")


def _recalled_at(run: LearnerRun, name: str, pos: int) -> Tensor:
    """A head's memory value from a position."""
    node, model = _as_head(name), run.model
    assert node.layer is not None and node.head is not None
    sources = torch.full((model.n_heads, 1), pos, device=model.device)
    return memory_values(model, run.acts, node.layer, sources, run.question.pos)[node.head, 0]


def _stream_after(run: LearnerRun, block: int, pos: int) -> Tensor:
    return needed(run.acts, "resid_post")[block, pos].to(run.model.wide)


def _top(run: LearnerRun, vector: Tensor, lens_block: int | None = None) -> int:
    """The id of the first word that a vector reads; the stream's through the lens of the page."""
    from visit.lenses.linear import through
    from visit.lenses.logit import read

    x = vector[None]
    if run.lens is not None and lens_block is not None and lens_block < run.model.n_layers - 1:
        x = through(run.lens, x, "resid_post", lens_block)
    return int(read(run.model, x, k=1).top_ids[0, 0])


def _without_part(run: LearnerRun, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of `visit.effects` of one part, and what was before; where all heads were measured, from there."""
    node = NodeId.parse(name)
    known = run.effects("heads" if node is not None and node.kind == "head" else (name,))
    row: dict[str, Any] = known[known["node"] == name].iloc[0].to_dict()
    return row, known.attrs["before"]


def _effect(row: dict[str, Any], before: dict[str, Any]) -> float:
    """How the answer changes without a part, as the page What if shows it: logits of the target, or of target −
    distractor; below 0 it falls."""
    compared = before["difference"] == before["difference"]
    return float(row["d_difference" if compared else "d_logit"])


# ---- in words --------------------------------------------------------------------------------------------------------
def spelled(run: LearnerRun, found: RunAnswer) -> str:
    """An answer as people read it: L4 H1, “·Tokyo”, “·Japan” (position 3), 99.5 %."""
    if found.kind == "node":
        return part_name(str(found.value))
    if found.kind == "token":
        return told_word(run.model.vocabulary[int(found.value)])
    if found.kind == "position":
        return f"{told_word(run.acts.tokens[int(found.value)])} (position {int(found.value)})"
    return number_text(float(found.value), found.unit)


def told_word(token: str) -> str:
    """A token in a lesson's sentence: without the space that belongs to most words, which only lesson 1 is about."""
    text = as_word(token)
    return f"“{text[1:] if token[:1] == ' ' and token.strip() else text}”"


def number_text(value: float, unit: Unit) -> str:
    """A number in its unit."""
    if unit == "share":
        return percent(value)
    if unit in ("count", "block"):
        return f"{value:,.0f}" if value == round(value) else short(value)
    return f"{signed(value)} logits" if unit == "logits" else short(value)


def said(run: LearnerRun, found: RunAnswer, about: str) -> str:
    """What a placeholder with a point stands for: `{head.source}`, `{token.rank}` (`visit.lessons.words`)."""
    value, node = found.value, str(found.value)
    if found.kind == "position":
        return told_word(run.acts.tokens[int(value)])
    if found.kind == "token":
        probs = needed(run.acts, "logits")[run.question.pos].to(run.model.wide).softmax(-1)
        own = float(probs[int(value)])
        return percent(own) if about == "probability" else f"{int((probs > own).sum()) + 1:,}"
    match about:
        case "contribution":
            return f"{signed(float(run.question.attribution.of(vector_of(run, node))))} logits"
        case "source":
            return spelled(run, RunAnswer("position", _source_of(run, node)))
        case "pattern":
            return percent(float(_attention_of(run, node)[_source_of(run, node)]))
        case "words":
            first: list[str] = read_vectors(run.model, vector_of(run, node), k=3)["tokens"].iloc[0]
            return ", ".join(map(told_word, first))
        case "norm":
            return short(float(vector_of(run, node).norm()))
        case "without":
            return percent(float(_without_part(run, node)[0]["prob"]))
        case "effect":
            return f"{signed(_effect(*_without_part(run, node)))} logits"
    return str(NodeId.parse(node).layer)  # type: ignore[union-attr]


def does(run: LearnerRun, name: str) -> str:
    """What a node does here, for whoever chose it: "L5 H7 adds +0.85 logits to “·Tokyo” directly, from “·Japan” …"."""
    node, word = NodeId.parse(name), told_word(run.model.vocabulary[run.question.target])
    _known_node(run.model, name, run.question.pos)
    if node is not None and node.kind.startswith("resid"):
        top = _top(run, vector_of(run, name))
        read = told_word(run.model.vocabulary[top])
        return f"{part_name(name)} is the stream itself, not a part that adds to it; it reads {read} there"
    added = float(run.question.attribution.of(vector_of(run, name)))
    how = f"adds {short(added)} logits to" if added >= 0 else f"takes {short(-added)} logits from"
    told = f"{part_name(name)} {how if abs(added) >= ADDS else 'adds next to nothing to'} {word} directly"
    if node is not None and node.kind == "head":
        told += f", drawing most on {spelled(run, RunAnswer('position', _source_of(run, name)))}"
    return told
