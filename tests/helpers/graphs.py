"""Hand-made flow graphs for tests of the drawing: tables as `visit.build_flow_graph` makes them, without a model.

Every number is made up but consistent: contributions add up at every node, ranks run through the whole scale.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pandas as pd

from visit.graph.flowgraph import FlowGraph

NODE_COLUMNS = [
    *("id", "kind", "layer", "head", "source_pos", "source_token", "neuron", "label"),
    *("tokens", "probs", "bottom_tokens", "bottom_probs"),
    *("prob", "rank", "entropy", "norm", "coefficient", "contribution"),
]
EDGE_COLUMNS = ["source", "target", "kind", "weight", "norm", "coefficient", "contribution"]
WORDS = [" Mary", "Mary", " them", " the", "Catholic", " Protestants", "DragonMagazine", " optimization", ",", " a"]
RANKS = [1, 2, 900, 20, 25000, 60, 45000, 200, 49990, 50000, 49000, 300]
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "'\"><svg onload=alert(1)>",
    "]]>",
    "<!--",
    "&lt;&amp;&#60;",
    "\x00\x1b[31m",
    "\udce9",
    "\u202eevil\u2066",
    "\u2028\u2029",
    "\ufffe\uffff",
    "javascript:alert(1)",
    "${alert(1)}",
    "{{constructor}}",
    "\\u003cscript",
    "",
]


class _Maker:
    def __init__(self, words: list[str], d_vocab: int, seed: int) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[dict[str, Any]] = []
        self.contribution: dict[str, float | None] = {}
        self.words, self.ranks = cycle(words), cycle(r for r in RANKS if r <= d_vocab)
        self.d_vocab, self.count, self.seed = d_vocab, 0, seed

    def node(self, id: str, kind: str, adds: bool = True, **columns: Any) -> str:
        if id in self.contribution:
            return id
        self.count += 1
        tokens = [next(self.words) for _ in range(11)][:10]  # eleven, so that the next node begins with another word
        probs = [0.5 / (i + 1) ** 2 for i in range(10)]
        into = [e for e in self.edges if e["target"] == id and e["kind"] in ("add", "residual")]
        contribution = None
        if adds:
            contribution = sum(e["contribution"] for e in into) if into else ((self.count * 37) % 21 - 8) / 10
        rank = next(self.ranks)
        self.contribution[id] = contribution
        row = {
            "id": id,
            "kind": kind,
            "label": tokens[0],
            "tokens": tokens,
            "probs": probs,
            "bottom_tokens": tokens[:5],
            "bottom_probs": [1e-9] * 5,
            "prob": min(0.99, 1 / rank**1.2),
            "rank": rank,
            "entropy": (self.count * 1.7) % 15,
            "norm": 1.0 + (self.count * (13 + self.seed)) % 17,
            "contribution": contribution,
        }
        self.nodes.append(row | columns)
        return id

    def edge(self, source: str, target: str, kind: str, norm: float | None = None, **columns: Any) -> None:
        norm = next(n["norm"] for n in self.nodes if n["id"] == source) if norm is None else norm
        contribution = self.contribution[source] if kind in ("add", "residual") else None
        self.edges.append(
            {"source": source, "target": target, "kind": kind, "norm": norm, "contribution": contribution} | columns
        )


def make_graph(
    layers: tuple[int, ...] = (9,),
    *,
    heads: int = 3,
    values: int = 2,
    attn_neurons: int = 4,
    neurons: int = 4,
    rests: bool = True,
    biases: bool = True,
    norms: int = 2,
    parallel: bool = False,
    gated: bool = False,
    final: bool = True,
    words: list[str] | None = None,
    model: str = "test/model",
    prompt: str = "When Mary and John went to",
    d_vocab: int = 50257,
    seed: int = 0,
) -> FlowGraph:
    """A flow graph of any family. norms: 2 (ln1 and ln2), 1 (one shared norm) or 0 (post-norm families)."""
    make = _Maker(words or WORDS, d_vocab, seed)
    tokens = ["When", " Mary", " and", " John", " went", " to"] if words is None else (words * 6)[:6]
    shares: dict[str, float] = {}
    stream = None
    for number, layer in enumerate(layers):
        stream = _start(make, layers, number, stream, shares)
        stream = _block(
            make, f"L{layer}.", layer, stream, tokens, shares, heads, values, attn_neurons, neurons, rests, biases,
            norms, parallel, gated,
        )  # fmt: skip
    if final:
        assert stream is not None
        make.node("ln_final", "ln_final", adds=False)
        make.node("logits", "logits", adds=False)
        make.edge(stream, "ln_final", "norm")
        make.edge("ln_final", "logits", "multiply")
    nodes = pd.DataFrame(make.nodes, dtype=object).reindex(columns=NODE_COLUMNS)
    meta = {
        "model": model,
        "revision": "0123456789abcdef",
        "dtype": "float32",
        "prompt": prompt,
        "tokens": tokens,
        "token_ids": list(range(len(tokens))),
        "position": len(tokens) - 1,
        "target": {"id": 5335, "token": " Mary" if words is None else words[0]},
        "distractor": None,
        "layers": list(layers),
        "keep": "Keep()",
        "shares": shares,
        "constant": 0.25,
        "d_vocab": d_vocab,
        "n_layers": 12,
        "ledger": {"max_rel_error": 3e-7, "holds": True},
        "versions": {"visit": "0.1.0"},
    }
    return FlowGraph.of_tables(nodes, pd.DataFrame(make.edges).reindex(columns=EDGE_COLUMNS), meta)


def _start(make: _Maker, layers: tuple[int, ...], number: int, stream: str | None, shares: dict[str, float]) -> str:
    layer = layers[number]
    if stream is not None and layers[number - 1] == layer - 1:
        return stream
    state = f"L{layer}.resid_pre"
    if stream is not None:
        first, last = layers[number - 1] + 1, layer - 1
        gap = make.node(f"L{first}-{last}.rest" if first < last else f"L{first}.rest", "rest")
        shares[gap.removesuffix(".rest")] = 0.7
        _sum(make, state, "resid_pre", layer, [(stream, "residual"), (gap, "add")])
        return state
    return make.node(state, "resid_pre", layer=layer, norm=118.0)


def _sum(make: _Maker, id: str, kind: str, layer: int, sources: list[tuple[str, str]], **columns: Any) -> str:
    for source, how in sources:
        make.edge(source, id, how)
    return make.node(id, kind, layer=layer, **columns)


def _block(
    make: _Maker,
    at: str,
    layer: int,
    stream: str,
    tokens: list[str],
    shares: dict[str, float],
    heads: int,
    values: int,
    attn_neurons: int,
    neurons: int,
    rests: bool,
    biases: bool,
    norms: int,
    parallel: bool,
    gated: bool,
) -> str:
    read = stream
    if norms:
        read = make.node(at + "ln1_out", "ln1_out", adds=False, layer=layer)
        make.edge(stream, read, "norm")
    parts = [(_head(make, at, layer, h, read, tokens, values, rests, shares), "add") for h in range(heads)]
    if rests:
        parts.append((make.node(at + "heads.rest", "rest", layer=layer), "add"))
        shares[at + "heads"] = 0.88
    if biases:
        parts.append((make.node(at + "attn_bias", "attn_bias", layer=layer), "add"))
    out = _sum(make, at + "attn_out", "attn_out", layer, parts, norm=37.0)
    for i in range(attn_neurons):
        head = i % max(heads, 1)
        coefficient = -0.5 if i % 2 else 0.7
        row = make.node(
            f"{at}attn_neuron{391 + i}",
            "attn_neuron",
            False,
            layer=layer,
            neuron=391 + i,
            head=head,
            coefficient=coefficient,
        )
        make.edge(f"{at}head{head}", row, "multiply")
        make.edge(row, out, "multiply", coefficient=coefficient)
    middle = stream
    if not parallel:
        middle = _sum(make, at + "resid_mid", "resid_mid", layer, [(stream, "residual"), (out, "add")], norm=124.0)
    read = middle
    if norms == 2:
        read = make.node(at + "ln2_out", "ln2_out", adds=False, layer=layer)
        make.edge(middle, read, "norm")
    elif norms == 1:
        read = at + "ln1_out"
    parts = [(_neuron(make, at, layer, 100 * i + 7, read, gated), "add") for i in range(neurons)]
    if rests:
        parts.append((make.node(at + "mlp.rest", "rest", layer=layer), "add"))
        shares[at + "mlp"] = 0.21
    if biases:
        parts.append((make.node(at + "mlp_bias", "mlp_bias", layer=layer), "add"))
    mlp = _sum(make, at + "mlp_out", "mlp_out", layer, parts, norm=60.0)
    added = [(stream, "residual"), (out, "add"), (mlp, "add")] if parallel else [(middle, "residual"), (mlp, "add")]
    return _sum(make, at + "resid_post", "resid_post", layer, added, norm=166.0)


def _head(
    make: _Maker,
    at: str,
    layer: int,
    h: int,
    read: str,
    tokens: list[str],
    values: int,
    rests: bool,
    shares: dict[str, float],
) -> str:
    head = f"{at}head{h}"
    query = make.node(head + ".query", "query", False, layer=layer, head=h)
    make.edge(read, query, "multiply")
    parts = []
    for i in range(values):
        position = (h + 2 * i) % len(tokens)
        place = {"layer": layer, "head": h, "source_pos": position, "source_token": tokens[position]}
        pattern = 0.6 / (i + 1)
        key = make.node(f"{head}.key{position}", "key", False, **place)
        value = make.node(f"{head}.value{position}", "value", coefficient=pattern, **place)
        make.edge(query, key, "multiply", weight=pattern)
        make.edge(key, value, "multiply", weight=pattern)
        parts.append(value)
    for value in parts:
        make.edge(value, head, "add", weight=3.0, norm=3.0, coefficient=0.5)
    if rests:
        make.edge(make.node(head + ".rest", "rest", layer=layer, head=h), head, "add")
        shares[head] = 0.9 - 0.1 * h
    return make.node(head, "head", layer=layer, head=h)


def _neuron(make: _Maker, at: str, layer: int, n: int, read: str, gated: bool) -> str:
    names = [f"{at}mlp_key{n}.gate", f"{at}mlp_key{n}.up"] if gated else [f"{at}mlp_key{n}"]
    coefficient = -1.5 if n % 200 == 107 else 2.0
    value = make.node(f"{at}mlp_value{n}", "mlp_value", layer=layer, neuron=n, coefficient=coefficient)
    for name in names:
        key = make.node(name, "mlp_key", False, layer=layer, neuron=n)
        make.edge(read, key, "multiply")
        make.edge(key, value, "multiply", weight=coefficient, coefficient=coefficient)
    return value


def change(graph: FlowGraph, node_id: str, **columns: Any) -> None:
    """Give one node of a hand-made graph other numbers."""
    graph.by_id[node_id] = graph.by_id[node_id]._replace(**columns)


def edge_of(graph: FlowGraph, source: str, target: str) -> dict[str, Any]:
    """One edge of a graph as a dict."""
    found = graph.edges[(graph.edges.source == source) & (graph.edges.target == target)]
    return found.iloc[0].to_dict()
