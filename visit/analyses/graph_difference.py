"""Two flow graphs compared: the difference graph, what changed most, and each side's answer on both sides.

A component of one graph has a twin in the other: the same head, neuron or state; a memory value's twin is the one from
the token that stands for its source token. A node's name in the difference graph is its name in graph A, or, where A
has no such source token, its name in graph B with a `b` at its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch

from visit.analyses.overview import movers
from visit.analyses.token_alignment import Pairing, pair, pair_tokens
from visit.errors import VisitError
from visit.exact.decompose import attribution, memory_values, needed, written
from visit.exact.question import Question
from visit.graph.build import FlowGraph, extend
from visit.lenses.logit import read
from visit.models.model import Model

Side = Literal["a", "b"]
_SOURCED = re.compile(r"(L\d+\.head\d+\.(?:value|key))(\d+)")
_PINNABLE = ("head", "value", "attn_neuron", "mlp_value")
_SHAPE = {
    "n_layers": "as many layers", "n_heads": "as many heads", "d_head": "heads of one width",
    "d_mlp": "as many neurons", "gated": "MLPs of one kind (gated or not)", "layers": "the same layers shown",
}  # fmt: skip
_NUMBERS = ("prob", "rank", "entropy", "norm", "coefficient", "contribution")
_PLACE = ("kind", "layer", "head", "neuron")
_PARTS = ("head", "value", "mlp_value", "attn_out", "mlp_out", "attn_bias", "mlp_bias", "resid_pre")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found. `nodes`, `edges`, `meta`: the difference graph; `a`, `b`: both graphs, each with the nodes
    of the other. `tables`: "answers", "alignment", "changes", "nodes", "edges"."""

    a: FlowGraph
    b: FlowGraph
    pairing: Pairing
    nodes: pd.DataFrame
    edges: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    meta: dict[str, Any]


def compare(graph_a: FlowGraph, graph_b: FlowGraph, pairing: Pairing | None = None) -> Comparison:
    """Compare two flow graphs of models of one shape; every difference is B − A.

    Nodes that the pruning shows on one side only are added to the other, as long as the graphs know their passes.
    `pairing`: which tokens stand for each other; None: `visit.analyses.token_alignment.pair`.

    `nodes`, a row a component: `id`, `id_a`, `id_b` (missing: that prompt has no such source token in sight, or its sum
    leaves nothing out), `kind`, `layer`, `head`, `neuron`, `status` ("only A", "only B": kept by the pruning on that
    side alone; "word": kept on both, with another top word; "alike"), `absent` ("A", "B"), and for either side (`_a`,
    `_b`) `source_pos`, `source_token`, `word`, `tokens`, `probs`, `prob`, `rank`, `entropy` (bits), `norm`,
    `coefficient`, `contribution` (logits, towards that side's own target); `difference`: of the contributions, an
    absent one 0.
    `edges`: `source`, `target`, `kind`, and for either side `weight`, `norm`, `coefficient`, `contribution`.
    `tables["changes"]`: the parts by falling |difference|; `tables["answers"]`: both sides' targets and distractors
    with their probability and rank on both sides, where the graphs know their passes; `tables["alignment"]`.
    Raises `VisitError` for models of different shape or graphs of different layers. Source: ours.
    """
    why = unlike(graph_a.meta, graph_b.meta, graph_a.meta["model"], graph_b.meta["model"])
    if why is not None:
        raise VisitError(why)
    pairing = pairing or _pairing(graph_a, graph_b)
    a, b, kept = complete(graph_a, graph_b, pairing)
    asked: Any = (_asked(graph_a), _asked(graph_b))
    nodes = _nodes(a, b, pairing, kept)
    edges = _edges(a, b, pairing)
    meta = {**a.meta, "b": b.meta, "counts": nodes["status"].value_counts().to_dict(), "difference": "B − A"}
    tables = {
        **({"answers": answers(*asked)} if None not in asked else {}),
        "alignment": pairing.table(a.meta["tokens"], b.meta["tokens"]),
        "changes": _changes(nodes),
        "nodes": nodes,
        "edges": edges,
    }
    return Comparison(a, b, pairing, nodes, edges, tables, meta)


def single_parts(a: Question, b: Question, pairing: Pairing) -> pd.DataFrame:
    """What single heads and neurons of two passes of one shape do, without a graph: all heads, and of every block the
    neuron whose contribution changes most.

    Columns: `id`, `component`, `kind`, `layer`, `head`, `contribution_a`, `contribution_b`, `difference` (B − A,
    logits), `position` (the memory value that gives most of a head's push, per side `source_pos_`, `source_token_`,
    `source_id_`), and `word_` of that value, read for the head alone that pushes hardest in A.
    """
    sides = {s: movers(o.model, o.acts, o.pos, o.target, o.distractor) for s, o in (("a", a), ("b", b))}
    heads = [table[table["kind"] == "head"].set_index("node") for table in sides.values()]
    names = ["contribution", "source_pos", "source_token"]
    table = heads[0][["kind", "layer", "head"]].join(
        [one[names].add_suffix(f"_{s}") for s, one in zip(sides, heads, strict=True)]
    )
    for side in sides:
        own = [f"{i}.value{p}" for i, p in zip(table.index, table[f"source_pos_{side}"], strict=True)]
        table[f"source_id_{side}"] = [common_id(i, side, pairing) for i in own]  # type: ignore[arg-type]
    first = table["contribution_a"].idxmax()
    for side, asked in (("a", a), ("b", b)):
        table[f"word_{side}"] = None
        table.loc[first, f"word_{side}"] = _recalled(asked, table.loc[first], side)
    table = pd.concat([table.rename_axis("id").reset_index(), _neurons(a, b)], ignore_index=True)
    table["component"] = [
        f"L{layer} H{head}" if kind == "head" else f"L{layer} N{i.partition('mlp_value')[2]}"
        for i, kind, layer, head in zip(table["id"], table["kind"], table["layer"], table["head"], strict=True)
    ]
    return table.assign(difference=table["contribution_b"] - table["contribution_a"])


def _recalled(asked: Question, head: pd.Series, side: str) -> str:
    """The top word of the memory value that gives most of a head's push."""
    j, source = int(head["head"]), int(head[f"source_pos_{side}"])
    sources = torch.full((asked.model.n_heads, 1), source, device=asked.model.device)
    value = memory_values(asked.model, asked.acts, int(head["layer"]), sources, asked.acts.index(asked.pos))[j]
    return asked.model.vocabulary[int(read(asked.model, value, k=1).top_ids[0, 0])]


def _neurons(a: Question, b: Question) -> pd.DataFrame:
    """Of every block the neuron whose contribution changes most between two passes."""
    rows = []
    frozen = [attribution(o.model, o.acts, o.acts.index(o.pos), o.target, o.distractor) for o in (a, b)]
    for layer in range(a.model.n_layers):
        moved = []
        for asked, aim in zip((a, b), frozen, strict=True):
            t = asked.acts.index(asked.pos)
            weights = written(asked.model, asked.acts, layer, "mlp", t)[0]
            moved.append(needed(asked.acts, "neurons")[layer, t].to(asked.model.wide) * aim.of(weights))
        n = int((moved[1] - moved[0].to(moved[1].device)).abs().argmax())
        row = {"id": f"L{layer}.mlp_value{n}", "kind": "mlp_value", "layer": layer}
        rows.append(row | {"contribution_a": float(moved[0][n]), "contribution_b": float(moved[1][n])})
    return pd.DataFrame(rows)


def shape(model: Model) -> dict[str, Any]:
    """What two models must share for their components to be twins; a graph's meta holds the same."""
    numbers = {name: getattr(model, name) for name in ("n_layers", "n_heads", "d_head", "d_mlp")}
    return {**numbers, "gated": model.family.w_gate is not None}


def unlike(a: dict[str, Any], b: dict[str, Any], name_a: str, name_b: str) -> str | None:
    """Why two shapes have no difference graph, in a sentence; None if they have one."""
    for name, what in _SHAPE.items():
        if name in a and a[name] != b[name]:
            return (
                f"A difference graph needs components that correspond: {what}. {name_a} (A) has {name} {a[name]}, "
                f"{name_b} (B) {b[name]}. Look at the two graphs side by side, or compare models of one shape."
            )
    return None


def _pairing(a: FlowGraph, b: FlowGraph) -> Pairing:
    if a.source is None or b.source is None:
        return pair_tokens(a.meta["tokens"], b.meta["tokens"])
    return pair(*a.source, *b.source)


def complete(
    graph_a: FlowGraph, graph_b: FlowGraph, pairing: Pairing
) -> tuple[FlowGraph, FlowGraph, dict[Side, set[str]]]:
    """Both graphs with the twins of the other's nodes, where the graphs know their passes, and what each pruning keeps.

    A head that comes in from the other side brings the memory values that its own pruning keeps; their twins follow.
    """
    graphs: dict[Side, FlowGraph] = {"a": graph_a, "b": graph_b}
    partner: dict[Side, dict[int, int]] = {"a": pairing.to_a, "b": pairing.to_b}
    other: dict[Side, Side] = {"a": "b", "b": "a"}
    added: dict[Side, set[str]] = {"a": set(), "b": set()}
    for _ in range(3):  # heads, then their values, then nothing is left
        wanted = {s: _twins(graphs[other[s]].nodes, partner[s], graphs[s]) for s in graphs}
        wanted = {s: ids for s, ids in wanted.items() if ids and graphs[s].source is not None}
        for side, ids in wanted.items():
            graphs[side] = extend(graphs[side], ids)
            added[side] |= set(ids)
        if not wanted:
            break
    kept = {s: {i for i in g.nodes["id"] if _term(i) not in added[s]} for s, g in graphs.items()}
    return graphs["a"], graphs["b"], kept


def _twins(nodes: pd.DataFrame, partner: dict[int, int], graph: FlowGraph) -> list[str]:
    """Ids of the twins that this graph does not show; what its user has hidden stays hidden."""
    hidden = {p.removeprefix("-") for p in graph.meta["keep"]["pin"] if p.startswith("-")}
    there = set(graph.nodes["id"]) | hidden
    ids = [twin_id(i, partner) for i in nodes.loc[nodes["kind"].isin(_PINNABLE), "id"]]
    seen = [i for i in ids if i is not None and _sees(graph.meta, i)]
    return [i for i in seen if i not in there and i.split(".value")[0] not in hidden]


def _sees(meta: dict[str, Any], node: str) -> bool:
    """Whether the graph's position can look at the source of a memory value or key; True for every other node."""
    found = _SOURCED.fullmatch(node)
    if found is None:
        return True
    window = meta.get("windows", {}).get(int(node[1:].partition(".")[0]))
    first = 0 if window is None else meta["position"] + 1 - window
    return first <= int(found[2]) <= meta["position"]


def _term(node: str) -> str:
    """The term of a sum by which a node is pinned: a key by its value, a query and a rest by their head."""
    return re.sub(r"\.(query|gate|up|rest)$", "", node).replace("key", "value")


def twin_id(node: str, partner: dict[int, int]) -> str | None:
    """The id of a node's twin on the other side; None where that prompt has no such source token."""
    found = _SOURCED.fullmatch(node)
    if not found:
        return node
    other = partner.get(int(found[2]))
    return None if other is None else f"{found[1]}{other}"


def common_id(node: str, side: Side, pairing: Pairing) -> str:
    """The name of one side's node in the difference graph."""
    if side == "a":
        return node
    return twin_id(node, pairing.to_a) or f"{node}b"


def own_id(node: str, side: Side, pairing: Pairing) -> str | None:
    """The name on one side of a node of the difference graph; None where that side cannot have it."""
    only_b = node.endswith("b") and _SOURCED.fullmatch(node[:-1]) is not None
    if side == "a":
        return None if only_b else node
    return node[:-1] if only_b else twin_id(node, pairing.to_b)


# ---- the tables ------------------------------------------------------------------------------------------------------


def _nodes(a: FlowGraph, b: FlowGraph, pairing: Pairing, kept: dict[Side, set[str]]) -> pd.DataFrame:
    sides = {"a": _side(a, "a", pairing, kept["a"]), "b": _side(b, "b", pairing, kept["b"])}
    both = sides["a"].join(sides["b"], how="outer", sort=False)
    both = both.loc[sides["a"].index.append(sides["b"].index.difference(sides["a"].index, sort=False))]
    table = pd.DataFrame({"id_a": both["id_a"], "id_b": both["id_b"]}, index=both.index)
    for name in _PLACE:
        table[name] = both[f"{name}_a"].where(both["id_a"].notna(), both[f"{name}_b"])
    known_a, known_b = both["kept_a"] == True, both["kept_b"] == True  # noqa: E712 - missing is not kept
    same = both["word_a"] == both["word_b"]
    table["status"] = "alike"
    table.loc[known_a & known_b & ~same, "status"] = "word"
    table.loc[known_a & ~known_b, "status"] = "only A"
    table.loc[~known_a & known_b, "status"] = "only B"
    table["absent"] = None
    at = {"a": a.meta, "b": b.meta}
    for side in ("a", "b"):
        table.loc[_truly_absent(both, side, pairing, at[side]), "absent"] = side.upper()
    for name in ("source_pos", "source_token", "word", "tokens", "probs", "bottom_tokens", "bottom_probs", *_NUMBERS):
        for side in ("a", "b"):
            table[f"{name}_{side}"] = both[f"{name}_{side}"]
    table["difference"] = _difference(table)
    return table.rename_axis("id").reset_index()


def _side(graph: FlowGraph, side: Side, pairing: Pairing, kept: set[str]) -> pd.DataFrame:
    nodes = graph.nodes
    table = nodes.drop(columns=["id", "label"]).assign(
        id=nodes["id"], word=[tokens[0] for tokens in nodes["tokens"]], kept=nodes["id"].isin(kept)
    )
    table.index = pd.Index([common_id(i, side, pairing) for i in nodes["id"]], name="id")
    return table.add_suffix(f"_{side}")


def _truly_absent(both: pd.DataFrame, side: str, pairing: Pairing, meta: dict[str, Any]) -> list[bool]:
    """Where a side's prompt has no such source token that its position can see, or its sum leaves nothing out."""
    missing = both[f"id_{side}"].isna()
    own = [own_id(i, "a" if side == "a" else "b", pairing) for i in both.index]
    gone = [i is None or i.endswith(".rest") or not _sees(meta, i) for i in own]
    return [a and b for a, b in zip(missing, gone, strict=True)]


def _difference(table: pd.DataFrame) -> pd.Series:
    """B − A of the contributions; an absent component contributes nothing."""
    sides = [table[f"contribution_{s}"].where(table["absent"] != s.upper(), 0.0) for s in ("a", "b")]
    return sides[1] - sides[0].where(sides[1].notna())


def _edges(a: FlowGraph, b: FlowGraph, pairing: Pairing) -> pd.DataFrame:
    sides = []
    for side, graph in (("a", a), ("b", b)):
        table = graph.edges.copy()
        for end in ("source", "target"):
            table[end] = [common_id(i, side, pairing) for i in table[end]]  # type: ignore[arg-type]
        names = {n: f"{n}_{side}" for n in ("weight", "norm", "coefficient", "contribution")}
        sides.append(table.rename(columns=names))
    return sides[0].merge(sides[1], on=["source", "target", "kind"], how="outer", sort=False)


def _changes(nodes: pd.DataFrame) -> pd.DataFrame:
    parts = nodes[nodes["kind"].isin(_PARTS) & nodes["difference"].notna()]
    table = pd.DataFrame({"id": parts["id"], "component": [component(row) for row in parts.to_dict("records")]})
    for name in ("kind", "layer", "status", "word_a", "word_b", "rank_a", "rank_b", "contribution_a", "contribution_b"):
        table[name] = parts[name]
    table["difference"] = parts["difference"]
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def component(row: dict[str, Any]) -> str:
    """A node in the field's words: L4 H1, L4 H1 ← position 3, L2 N17, L3 MLP out."""
    layer, kind = f"L{row['layer']}", row["kind"]
    if kind == "head":
        return f"{layer} H{row['head']}"
    if kind == "value":
        places = [str(p) for p in (row["source_pos_a"], row["source_pos_b"]) if not pd.isna(p)]
        return f"{layer} H{row['head']} ← {' / '.join(dict.fromkeys(places))}"
    if kind == "mlp_value":
        return f"{layer} N{row['neuron']}"
    names = {"attn_out": "attention out", "mlp_out": "MLP out", "attn_bias": "attention bias", "mlp_bias": "MLP bias",
             "resid_pre": "stream in"}  # fmt: skip
    return f"{layer} {names.get(kind, kind)}"


def _asked(graph: FlowGraph) -> Question | None:
    if graph.source is None:
        return None
    target, distractor = (graph.meta[role] and graph.meta[role]["id"] for role in ("target", "distractor"))
    return Question(*graph.source, graph.meta["position"], target, distractor)


# ---- what two passes make of each other's words ----------------------------------------------------------------------
def answers(a: Question, b: Question) -> pd.DataFrame:
    """What both sides make of both sides' words: a row a word.

    Columns: `word`, `whose` ("target of A, target of B", …), and for either side (`_a`, `_b`) `prob`, `rank`,
    `logit_over_mean` (logits); missing where the side's vocabulary has no such single token.
    """
    whose: dict[str, list[str]] = {}
    for role in ("target", "distractor"):
        for name, side in (("A", a), ("B", b)):
            token = getattr(side, role)
            if token is not None:
                whose.setdefault(side.model.vocabulary[token], []).append(f"{role} of {name}")
    rows = [
        {"word": word, "whose": ", ".join(roles), **_standing(a, word, "a"), **_standing(b, word, "b")}
        for word, roles in whose.items()
    ]
    return pd.DataFrame(rows).astype({"rank_a": "Int64", "rank_b": "Int64"})


def _standing(asked: Question, word: str, side: str) -> dict[str, Any]:
    """Probability, rank and centred logit of a word at one side's position."""
    ids = {asked.model.vocabulary[i]: i for i in (asked.target, asked.distractor) if i is not None}
    try:
        token = ids[word] if word in ids else asked.model.token_id(word)
    except VisitError:
        return dict.fromkeys((f"prob_{side}", f"rank_{side}", f"logit_over_mean_{side}"))
    logits = needed(asked.acts, "logits")[asked.pos].to(asked.model.wide)
    own = logits[token]
    return {
        f"prob_{side}": float(logits.softmax(-1)[token]),
        f"rank_{side}": 1 + int((logits > own).sum()),
        f"logit_over_mean_{side}": float(own - logits.mean()),
    }
