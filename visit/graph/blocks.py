"""The nodes and edges of one block, drafted with their vectors; `visit.graph.build` reads all of them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from visit.activations.edits import cut_by
from visit.errors import VisitError
from visit.exact.circuits import key_readings, query_readings
from visit.exact.decompose import head_results, memory_values, needed, rows_and_bias, value_norms, value_parts
from visit.exact.gradients import gradients_of
from visit.exact.question import Question
from visit.graph.flowgraph import Node
from visit.graph.prune import Count, Keep, chosen_terms, share
from visit.lenses.logit import final_norm
from visit.models.attention import first_visible, kv_heads
from visit.text.node_id import TERMS, NodeId
from visit.text.numbers import percent

MAX_NODES = 20_000
_FOLDED_HEADS = 2  # shown of a block that is not opened


@dataclass
class GraphBuilder:
    """A graph in the making. `nodes` (not read yet), `vectors` and `coefficients` run in step.

    A coefficient is what its vector enters a sum of the stream with, never negative; NaN: it enters none.
    """

    question: Question
    keep: Keep
    influence: bool = False  # whether the influence of every part is asked for
    nodes: list[Node] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)
    coefficients: list[float] = field(default_factory=list)
    added: list[NodeId | None] = field(default_factory=list)  # the id of what takes part in a sum
    edges: list[tuple[str, str, str, str | None, float | None, float | None]] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    errors: list[Tensor] = field(default_factory=list)
    last_layer: int | None = None

    def __post_init__(self) -> None:
        self.model, self.acts, self.pos = self.question.model, self.question.acts, self.question.pos
        self.frozen = self.question.attribution
        self.pinned: dict[int, list[tuple[bool, NodeId]]] = {}  # by layer: whether it is to be hidden, and what
        for pin in self.keep.pin:
            node = NodeId.parse(pin.removeprefix("-"))
            if node is not None and node.kind in TERMS and node.layer is not None:
                self.pinned.setdefault(node.layer, []).append((pin.startswith("-"), node))
        self.edits = [e for e in self.acts.edits if e.positions is None or self.pos in e.positions]
        self.cut = cut_by(self.edits)

    @property
    def edited(self) -> list[str]:
        """The nodes that an edit of the run made: no sums of what goes into them."""
        sums = {"attn_out": "attn_out", "mlp_out": "mlp_out", "stream": "resid_post"}
        found = {NodeId(sums[part], layer) for part, layer in self.cut if part in sums}
        for site in (edit.site for edit in self.edits if ("z", edit.site.layer) in cut_by([edit])):
            heads = site.heads or (site.columns.start // self.model.d_head,)
            found |= {NodeId("head", site.layer, j) for j in heads}
        return sorted(map(str, found))

    def state(self, name: str, layer: int) -> Tensor:
        """A captured vector `[d_model]` at the graph's position."""
        return needed(self.acts, name)[layer, self.pos].to(self.model.wide)

    def node(
        self, id: NodeId, vector: Tensor, *, adds: bool = True, coefficient: float | None = None,
        label: str | None = None, head: int | None = None, source_pos: int | None = None,
    ) -> str:  # fmt: skip
        """One node; returns its name. `adds`: its vector times |coefficient| takes part in a sum of the stream."""
        if len(self.nodes) >= MAX_NODES:
            raise VisitError(
                f"This graph has more than {MAX_NODES:,} nodes, which is all that can be drawn. "
                "Lower the amounts to keep (Keep.mlp_neurons above all), or show fewer layers."
            )
        name, layer = str(id), None if id.last_layer is not None else id.layer
        head, source = id.head if head is None else head, id.source_pos if source_pos is None else source_pos
        self.nodes.append(Node(name, id.kind, layer, head, source, None, id.neuron, label, coefficient=coefficient))
        self.vectors.append(vector[None])
        self.coefficients.append(math.nan if not adds else 1.0 if coefficient is None else abs(coefficient))
        self.added.append(id if adds else None)
        return name

    def term(
        self, id: NodeId, vector: Tensor, total: str, label: str | None = None, coefficient: float | None = None
    ) -> str:
        """A node that is added to the sum `total`."""
        name = self.node(id, vector, label=label, coefficient=coefficient)
        self.edge(name, total, "add", carries=name, coefficient=coefficient)
        return name

    def rest(self, id: NodeId, vector: Tensor, total: str, kept: float) -> None:
        """What a sum does not show; `kept`: the share that it does."""
        self.term(id, vector, total, label=f"rest {percent(1 - kept, narrow=True)}")

    def edge(
        self, source: str, target: str, kind: str, *, carries: str | None = None, coefficient: float | None = None,
        weight: float | None = None,
    ) -> None:  # fmt: skip
        """One edge. `carries`: the node whose vector (times its coefficient) travels on it."""
        self.edges.append((source, target, kind, carries, coefficient, weight))

    def along(self, sum_of: str, layer: int) -> Tensor:
        """`[d_model]`: what the parts of a sum are measured along: for their contribution or, kept by it, influence."""
        return gradients_of(self.question).into(sum_of, layer) if self.keep.by == "influence" else self.frozen.direction

    @property
    def by_logits(self) -> bool:
        """Whether parts are kept by the logits that they move, not by their size."""
        return self.keep.by in ("contribution", "influence")

    def select_heads(self, layer: int, results: Tensor) -> tuple[list[int], Tensor]:
        """The heads of a block to show, and the measure of all of them."""
        moved = results @ self.along("attn_out", layer)
        size = moved.abs() if self.by_logits else results.norm(dim=-1)
        return chosen_terms(size, moved, self.keep.heads, *self.pins(layer, "head")), size

    def select_neurons(
        self, layer: int, kind: str, count: Count, activations: Tensor, rows: Tensor, row_norms: Tensor
    ) -> tuple[list[int], float]:
        """The neurons of one kind to show, and their share. Each adds its activation times its row."""
        moved = activations * (rows @ self.along("mlp_out" if kind == "mlp_value" else "attn_out", layer))
        size, sign = (moved.abs(), moved) if self.by_logits else (activations.abs() * row_norms, activations)
        shown = chosen_terms(size, sign, count, *self.pins(layer, kind))
        return shown, share(size, shown)

    def pins(self, layer: int, kind: str, head: int | None = None) -> tuple[set[int], set[int]]:
        """Numbers pinned and hidden among the terms of one sum: kind "head", "value", "attn_neuron" or "mlp_value"."""
        shown: set[int] = set()
        hidden: set[int] = set()
        for hides, pin in self.pinned.get(layer, ()):
            if kind == "head":  # a pinned value shows its head, too; a hidden one does not hide it
                number = None if hides and pin.kind != "head" else pin.head
            elif kind == "value":
                number = pin.source_pos if pin.head == head else None
            else:
                number = pin.neuron if pin.term.kind == kind else None
            if number is not None:
                (hidden if hides else shown).add(number)
        return shown, hidden

    def record_error(self, part: str, layer: int, sum_of_terms: Tensor, captured: Tensor) -> None:
        """Note how far a sum of all its terms is from what was captured, unless an edit replaced it."""
        if (part, layer) in self.cut:
            return
        self.errors.append((sum_of_terms - captured).abs().max() / captured.abs().max().clamp_min(1e-30))


def add_block(build: GraphBuilder, layer: int, whole: bool = True) -> None:
    """All nodes and edges of one block, in the order in which the data flows.

    Not `whole`: as its folded drawing shows it, states, what its parts add, the largest heads, the rest of the heads.
    """
    family, follows = build.model.family, build.last_layer is not None and build.last_layer == layer - 1
    entering = f"L{layer - 1}.resid_post" if follows else _add_gap(build, layer)
    if whole:
        normed = _add_norm(build, "ln1", entering, layer)
        _add_attention(build, layer, normed)
    else:
        _add_largest_heads(build, layer, entering)
    middle = entering if family.parallel else _add_state(build, "resid_mid", layer, entering, ("attn_out",))
    if whole:
        _add_mlp(build, layer, normed if family.shared_norm else _add_norm(build, "ln2", middle, layer))
    else:
        mlp_out = build.node(NodeId("mlp_out", layer), build.state("mlp_out", layer))
        build.edge(middle, mlp_out, "multiply")
    _add_state(build, "resid_post", layer, middle, ("attn_out", "mlp_out") if family.parallel else ("mlp_out",))
    build.last_layer = layer


def add_predictions(build: GraphBuilder) -> None:
    """After the last block: the final norm and the logits. Both read as the model's own prediction."""
    last = build.model.n_layers - 1
    state, normed = f"L{last}.resid_post", final_norm(build.model, build.state("resid_post", last)[None])[0]
    build.edge(state, build.node(NodeId("ln_final"), normed, adds=False), "norm", carries=state)
    build.edge("ln_final", build.node(NodeId("logits"), normed, adds=False), "multiply")


# ---- the stream ------------------------------------------------------------------------------------------------------
def _add_gap(build: GraphBuilder, layer: int) -> str:
    """The state that enters a block which does not follow the one before, and what the blocks between added."""
    before, entering = build.last_layer, build.state("resid_pre", layer)
    here = build.node(NodeId("resid_pre", layer), entering)
    if before is None:
        return here
    first, last = before + 1, layer - 1
    carried = build.state("resid_post", before)
    vectors = torch.stack([carried, entering - carried])
    size = (vectors @ build.along("resid_pre", layer)).abs() if build.by_logits else vectors.norm(dim=-1)
    build.shares[here] = share(size, [0])
    build.edge(f"L{before}.resid_post", here, "residual", carries=f"L{before}.resid_post")
    words = f"layer {first}" if first == last else f"layers {first}–{last}"
    gap = NodeId("rest", first, last_layer=last)
    build.term(gap, vectors[1], here, label=f"{words}: {percent(1 - build.shares[here], narrow=True)}")
    return here


def _add_norm(build: GraphBuilder, norm: str, state: str, layer: int) -> str:
    """The output of a block's norm, and its id; the stream itself where the family has no such norm."""
    if getattr(build.model.family, norm) is None:
        return state
    name = build.node(NodeId(f"{norm}_out", layer), build.state(f"{norm}_out", layer), adds=False)
    build.edge(state, name, "norm", carries=state)
    return name


def _add_state(build: GraphBuilder, state: str, layer: int, before: str, added: tuple[str, ...]) -> str:
    """A state of the stream: the one before it and what sub-layers add to it."""
    vector = build.state(state, layer)
    name = build.node(NodeId(state, layer), vector)
    for part in added:
        build.edge(f"L{layer}.{part}", name, "add", carries=f"L{layer}.{part}")
    build.edge(before, name, "residual", carries=before)
    carried = build.state("resid_mid" if before == f"L{layer}.resid_mid" else "resid_pre", layer)
    what = "stream" if state == "resid_post" else state
    build.record_error(what, layer, sum((build.state(part, layer) for part in added), start=carried), vector)
    return name


# ---- attention -------------------------------------------------------------------------------------------------------
def _add_attention(build: GraphBuilder, layer: int, stream_input: str) -> None:
    """Heads with their queries, keys and memory values, what is left out, and their sum."""
    model, total, t = build.model, f"L{layer}.attn_out", build.pos
    results = head_results(model, build.acts, layer, t)
    heads, size = build.select_heads(layer, results)
    build.shares[total] = share(size, heads)
    _add_heads(build, layer, stream_input, results, heads)
    attn_out = build.state("attn_out", layer)
    rows, bias = rows_and_bias(model, build.acts, layer, "attn", t)
    build.record_error("attn_out", layer, results.sum(0) if bias is None else results.sum(0) + bias, attn_out)
    if len(heads) < model.n_heads:
        left = attn_out - results[heads].sum(0) - (0 if bias is None else bias)
        build.rest(NodeId("rest", layer, part="heads"), left, total, build.shares[total])
    _add_attn_neurons(build, layer, set(heads), rows)
    if bias is not None:
        build.term(NodeId("attn_bias", layer), bias, total)
    build.node(NodeId("attn_out", layer), attn_out)


def _add_heads(build: GraphBuilder, layer: int, stream_input: str, results: Tensor, heads: list[int]) -> None:
    """The shown heads, each with its query, the keys and memory values kept of it, and what is left out."""
    model, acts, t = build.model, build.acts, build.pos
    first = first_visible(model, layer, t)  # in a windowed layer nothing before it is a memory value of this position
    pattern = needed(acts, "pattern")[layer, :, t, first : t + 1].to(model.wide)
    moved = pattern * value_parts(model, acts, layer, t, build.along("attn_out", layer)[:, None])[:, first:, 0]
    if build.keep.by == "norm":
        sizes = pattern * value_norms(model, acts, layer, t)[:, first:]
    else:
        sizes = moved.abs() if build.by_logits else pattern
    shown: dict[int, list[int]] = {}  # the places of the shown sources, counted from `first`
    for j in heads:
        pinned, hidden = ({i - first for i in pins if i >= first} for pins in build.pins(layer, "value", j))
        shown[j] = chosen_terms(sizes[j], moved[j], build.keep.values, pinned, hidden)
    most = pattern.argmax(-1)  # the place that each head's query is turned to
    sources = torch.zeros(model.n_heads, max(map(len, shown.values()), default=0), dtype=torch.long)
    for j, places in shown.items():  # short lists are filled up with position 0
        sources[j, : len(places)] = torch.tensor(places, dtype=torch.long)
        most[j] = max(places, key=lambda i: float(pattern[j, i])) if places else most[j]
    sources = sources.to(model.device) + first
    queries = query_readings(model, acts, layer, t, most + first)
    keys, values = key_readings(model, acts, layer, t, sources), memory_values(model, acts, layer, sources, t)
    for j in heads:
        head = str(NodeId("head", layer, j))
        build.shares[head] = share(sizes[j], shown[j])
        seen = int(most[j]) + first if model.family.rotary else None
        query = build.node(NodeId("query", layer, j), queries[j], adds=False, source_pos=seen)
        build.edge(stream_input, query, "multiply", weight=float(queries[j].norm()))
        for place, key_vector, vector in zip(shown[j], keys[j], values[j], strict=False):  # those are padded
            weight, i = float(pattern[j, place]), place + first
            key = build.node(NodeId("key", layer, j, i), key_vector, adds=False)
            value = build.node(NodeId("value", layer, j, i), vector, coefficient=weight)
            build.edge(query, key, "multiply", coefficient=weight, weight=weight)
            build.edge(key, value, "multiply", carries=value, coefficient=weight, weight=weight)
            build.edge(value, head, "add", carries=value, coefficient=weight)
        if len(shown[j]) < pattern.shape[1]:
            left = results[j] - pattern[j, shown[j]] @ values[j, : len(shown[j])]
            build.rest(NodeId("rest", layer, j), left, head, build.shares[head])
        build.term(NodeId("head", layer, j), results[j], f"L{layer}.attn_out")
    kept = needed(acts, "v")[layer, first : t + 1].to(model.wide)[:, kv_heads(model)]
    build.record_error("z", layer, torch.einsum("hi,ihe->he", pattern, kept), build.state("z", layer))


def _add_attn_neurons(build: GraphBuilder, layer: int, heads: set[int], rows: Tensor) -> None:
    """Rows of W_O: a second reading of the heads, not further terms of the sum."""
    model, total = build.model, f"L{layer}.attn_out"
    z = build.state("z", layer).flatten()
    shown, kept = build.select_neurons(layer, "attn_neuron", build.keep.attn_neurons, z, rows, model.o_row_norms[layer])
    build.shares[f"L{layer}.attn_neurons"] = kept
    for n, coefficient in zip(shown, z[shown].tolist(), strict=True):
        head, vector = n // model.d_head, rows[n] * math.copysign(1.0, coefficient)
        name = build.node(NodeId("attn_neuron", layer, neuron=n), vector, coefficient=coefficient, head=head)
        source = NodeId("head", layer, head) if head in heads else NodeId("rest", layer, part="heads")
        build.edge(str(source), name, "multiply", carries=name, coefficient=coefficient)
        build.edge(name, total, "multiply", carries=name, coefficient=coefficient)


def _add_largest_heads(build: GraphBuilder, layer: int, entering: str) -> None:
    """The heads that a folded block shows, and the rest of them; what they read is one line from the stream.

    They are the longest of those that an open block would show, and the pinned ones.
    """
    model, total, t = build.model, f"L{layer}.attn_out", build.pos
    results = head_results(model, build.acts, layer, t)
    kept, size = build.select_heads(layer, results)
    norms = results.norm(dim=-1)
    longest = sorted(kept, key=lambda j: (-float(norms[j]), j))[:_FOLDED_HEADS]
    pinned = build.pins(layer, "head")[0]
    heads = [j for j in kept if j in longest or j in pinned]
    attn_out = build.state("attn_out", layer)
    bias = rows_and_bias(model, build.acts, layer, "attn", t)[1]
    build.record_error("attn_out", layer, results.sum(0) if bias is None else results.sum(0) + bias, attn_out)
    for j in heads:
        head = build.node(NodeId("head", layer, j), results[j])
        build.edge(entering, head, "multiply")
        build.edge(head, total, "add", carries=head)
    if len(heads) < model.n_heads or bias is not None:
        left = attn_out - results[heads].sum(0)
        build.rest(NodeId("rest", layer, part="heads"), left, total, share(size, heads))
    if len(heads) < model.n_heads:
        build.edge(entering, total, "multiply")
    build.node(NodeId("attn_out", layer), attn_out)


# ---- the MLP ---------------------------------------------------------------------------------------------------------
def _add_mlp(build: GraphBuilder, layer: int, stream_input: str) -> None:
    """Neurons with what they read and write, what is left out, and their sum."""
    model, total = build.model, f"L{layer}.mlp_out"
    a, mlp_out = build.state("neurons", layer), build.state("mlp_out", layer)
    rows, bias = rows_and_bias(model, build.acts, layer, "mlp", build.pos)
    keep = build.keep.mlp_neurons
    shown, build.shares[total] = build.select_neurons(layer, "mlp_value", keep, a, rows, model.out_row_norms[layer])
    state, family = build.state("ln2_out", layer), model.family
    reads = []  # (part of the id, columns `[shown, d_model]`, pre-activations): of a gated MLP gate and up
    for part, path in [("", family.w_in)] if family.w_gate is None else [("gate", family.w_gate), ("up", family.w_in)]:
        columns, shift = model.weight(path, layer)[:, shown].T, model.bias(path, layer)
        before = columns @ state if shift is None else columns @ state + shift[shown]
        reads.append((part, columns, before.tolist()))
    for place, (n, coefficient) in enumerate(zip(shown, a[shown].tolist(), strict=True)):
        write = NodeId("mlp_value", layer, neuron=n)
        for part, columns, inputs in reads:
            key = NodeId("mlp_key", layer, neuron=n, part=part)
            name = build.node(key, columns[place], adds=False, coefficient=inputs[place])
            build.edge(stream_input, name, "multiply", coefficient=inputs[place], weight=abs(inputs[place]))
            build.edge(name, str(write), "multiply", carries=str(write), coefficient=coefficient)
        build.term(write, rows[n] * math.copysign(1.0, coefficient), total, coefficient=coefficient)
    build.record_error("mlp_out", layer, a @ rows if bias is None else a @ rows + bias, mlp_out)
    if len(shown) < model.d_mlp:
        left = mlp_out - a[shown] @ rows[shown] - (0 if bias is None else bias)
        build.rest(NodeId("rest", layer, part="mlp"), left, total, build.shares[total])
    if bias is not None:
        build.term(NodeId("mlp_bias", layer), bias, total)
    build.node(NodeId("mlp_out", layer), mlp_out)
