"""Two flow graphs compared: the difference graph, what changed most, and each side's answer on both sides.

A component of one graph has a counterpart in the other: the same head, neuron or state; a memory value's is the one
from the token that stands for its source token. A node's name in the difference graph is its name in graph A, or, where
A has no such source token, its name in graph B with a `b` at its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd

from visit.analyses.token_alignment import Pairing, pair, pair_tokens
from visit.errors import VisitError
from visit.graph.flowgraph import Edge, FlowGraph, Node
from visit.text.node_id import NodeId
from visit.text.notebooks import notebook_html

if TYPE_CHECKING:  # a comparison is read and drawn without torch; what makes one imports it
    from visit.exact.question import Question
    from visit.lenses.linear import Lens
    from visit.models.model import Model

Side = Literal["a", "b"]
_PINNABLE = ("head", "value", "attn_neuron", "mlp_value")
_SHAPE = {
    "n_layers": "as many layers", "n_heads": "as many heads", "d_head": "heads of one width",
    "d_mlp": "as many neurons", "gated": "MLPs of one kind (gated or not)", "layers": "the same layers shown",
}  # fmt: skip
SAID = 10  # words of a memory value, from either end, that it is taken to say
_COMPARED = ("prob", "rank", "entropy", "norm", "coefficient", "contribution")
_SIDED = ("source_pos", "source_token", "word", "tokens", "probs", "bottom_tokens", "bottom_probs", *_COMPARED)
_PARTS = ("head", "value", "mlp_value", "attn_out", "mlp_out", "attn_bias", "mlp_bias", "resid_pre")
_INTEGER_COLUMNS = ("layer", "head", "neuron", "source_pos_a", "source_pos_b", "rank_a", "rank_b")


class NodePair(NamedTuple):
    """One component of two graphs: its node on either side, if it is there. `status`, `absent`: as `compare` says."""

    id: str
    a: Node | None
    b: Node | None
    status: str
    absent: str | None

    @property
    def one(self) -> Node:
        """The node of A, or of B where A has none."""
        return self.a or self.b  # type: ignore[return-value]

    @property
    def difference(self) -> float:
        """B − A of the contributions, an absent one 0; NaN where a side's is not known."""
        a, b = (
            0.0 if self.absent == side else nan if node is None or node.contribution is None else node.contribution
            for side, node in (("A", self.a), ("B", self.b))
        )
        return b - a


class EdgePair(NamedTuple):
    """One edge of two graphs, between components named as in their difference."""

    source: str
    target: str
    kind: str
    a: Edge | None = None
    b: Edge | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found. `a`, `b`: both graphs, each with the nodes of the other; `pairs`, `links`: their difference
    as records, `nodes`, `edges`: as tables; `tables`: "answers", "alignment", "changes", "nodes", "edges"."""

    a: FlowGraph
    b: FlowGraph
    pairing: Pairing
    pairs: dict[str, NodePair]
    links: list[EdgePair]
    answers: pd.DataFrame | None
    meta: dict[str, Any]

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """A row a component; the columns are documented with `compare`."""
        rows = []
        for name, both in self.pairs.items():
            one = both.one
            row: dict[str, Any] = {
                "id": name, "id_a": both.a and both.a.id, "id_b": both.b and both.b.id, "kind": one.kind,
                "layer": one.layer, "head": one.head, "neuron": one.neuron, "status": both.status,
                "absent": both.absent,
            }  # fmt: skip
            for column in (*_SIDED, *self._also):
                for side, node in (("a", both.a), ("b", both.b)):
                    cell = None if node is None else getattr(node, column)
                    row[f"{column}_{side}"] = list(cell) if isinstance(cell, tuple) else cell
            rows.append(row | {"difference": both.difference})
        numbers = [name for name in (*_COMPARED, *self._also) if name != "rank"]
        types = {f"{name}_{side}": float for name in numbers for side in "ab"}
        return pd.DataFrame(rows).astype({"absent": object} | types | dict.fromkeys(_INTEGER_COLUMNS, "Int64"))

    @cached_property
    def edges(self) -> pd.DataFrame:
        """A row an edge; the columns are documented with `compare`."""
        none = Edge("", "", "")
        rows = [(*link[:3], *(link.a or none)[3:], *(link.b or none)[3:]) for link in self.links]
        numbers = [f"{name}_{side}" for side in "ab" for name in Edge._fields[3:]]
        table = pd.DataFrame(rows, columns=["source", "target", "kind", *numbers])
        left_out = [] if self._also else ["influence_a", "influence_b"]
        return table.astype(dict.fromkeys(numbers, float)).drop(columns=left_out)

    @property
    def _also(self) -> tuple[str, ...]:
        """What both graphs were asked for beside what all have."""
        return ("influence",) if all("influence" in graph.meta for graph in (self.a, self.b)) else ()

    def _repr_html_(self) -> str:
        """The difference as a drawing, in a notebook."""
        return notebook_html("comparison", self)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by their names."""
        parts = self.nodes[self.nodes["kind"].isin(_PARTS) & self.nodes["difference"].notna()]
        changes = parts[["id"]].assign(component=[component_name(row) for row in parts.to_dict("records")])
        names = ("kind", "layer", "status", "word_a", "word_b", "rank_a", "rank_b", "contribution_a", "contribution_b",
                 "difference")  # fmt: skip
        changes = changes.join(parts[list(names)])
        changes = changes.loc[changes["difference"].abs().sort_values(ascending=False, kind="stable").index]
        return {
            **({} if self.answers is None else {"answers": self.answers}),
            "alignment": self.pairing.table(self.a.meta["tokens"], self.b.meta["tokens"]),
            "changes": changes.reset_index(drop=True),
            "nodes": self.nodes,
            "edges": self.edges,
        }


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
    Both with `influence` of either side where both graphs were built with it.
    `tables["changes"]`: the parts by falling |difference|; `tables["answers"]`: both sides' targets and distractors
    with their probability and rank on both sides, where the graphs know their passes; `tables["alignment"]`.
    Raises `VisitError` for models of different shape or graphs of different layers. Source: ours.
    """
    why = unlike(graph_a.meta, graph_b.meta, graph_a.meta["model"], graph_b.meta["model"])
    if why is not None:
        raise VisitError(why)
    if pairing is None and graph_a.source is not None and graph_b.source is not None:
        pairing = pair(*graph_a.source, *graph_b.source)
    pairing = pairing or pair_tokens(graph_a.meta["tokens"], graph_b.meta["tokens"])
    a, b, kept = complete(graph_a, graph_b, pairing)
    asked = [_question_of(graph) for graph in (graph_a, graph_b)]
    answers = target_ranks(*asked) if None not in asked else None  # type: ignore[arg-type]
    return comparison_of(a, b, pairing, kept, answers)


def comparison_of(
    a: FlowGraph, b: FlowGraph, pairing: Pairing, kept: dict[Side, set[str]], answers: pd.DataFrame | None
) -> Comparison:
    """The comparison of two graphs that have each other's nodes. `kept`: what the pruning of either side keeps."""
    pairs = _pairs(a, b, pairing, kept)
    counts = Counter(one.status for one in pairs.values())
    meta = {**a.meta, "b": b.meta, "counts": dict(counts.most_common()), "difference": "B − A"}
    return Comparison(a, b, pairing, pairs, _link_pairs(a, b, pairing), answers, meta)


def told_sides(a: Question, b: Question, pairing: Pairing, through: tuple[Lens | None, Lens | None]) -> Comparison:
    """A comparison without nodes and edges: what sentences tell beside `single_parts` needs no graph.

    `through`: the fitted lens of either side, None for the plain one, named as a graph names it.
    """
    graphs = [
        FlowGraph({}, [], {**asked.meta, **({} if lens is None else {"lens": lens.about})}, lens=lens)
        for asked, lens in zip((a, b), through, strict=True)
    ]
    return comparison_of(graphs[0], graphs[1], pairing, {"a": set(), "b": set()}, target_ranks(a, b))


def single_parts(a: Question, b: Question, pairing: Pairing) -> pd.DataFrame:
    """What single heads and neurons of two passes of one shape do, without a graph: all heads, and of every block the
    neuron whose contribution changes most.

    Columns: `id`, `component`, `kind`, `layer`, `head`, `contribution_a`, `contribution_b`, `difference` (B − A,
    logits), `position` (the memory value that gives most of a head's push, per side `source_pos_`, `source_token_`,
    `source_id_`), and what that value says, asked for the head alone that pushes hardest in A: `word_`, and `negated_`,
    whether its negative reads it (`said_by`).
    """
    from visit.analyses.overview import movers

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
        table[f"word_{side}"], table[f"negated_{side}"] = None, False
        table.loc[first, [f"word_{side}", f"negated_{side}"]] = _recalled(asked, table.loc[first], side)
    table = pd.concat([table.rename_axis("id").reset_index(), _moved_neurons(a, b)], ignore_index=True)
    table["component"] = [
        f"L{layer} H{head}" if kind == "head" else f"L{layer} N{i.partition('mlp_value')[2]}"
        for i, kind, layer, head in zip(table["id"], table["kind"], table["layer"], table["head"], strict=True)
    ]
    return table.assign(difference=table["contribution_b"] - table["contribution_a"])


def _recalled(asked: Question, head: pd.Series, side: str) -> tuple[str, bool]:
    """What the memory value that gives most of a head's push reads, and whether its negative does (`said_by`)."""
    import torch

    from visit.exact.decompose import memory_values
    from visit.lenses.logit import read

    j, source = int(head["head"]), int(head[f"source_pos_{side}"])
    sources = torch.full((asked.model.n_heads, 1), source, device=asked.model.device)
    value = memory_values(asked.model, asked.acts, int(head["layer"]), sources, asked.acts.index(asked.pos))[j]
    found, words = read(asked.model, value, k=SAID), asked.model.vocabulary
    other = None if asked.distractor is None else words[asked.distractor]
    tops, bottoms = ([words[i] for i in ids[0].tolist()] for ids in (found.top_ids, found.bottom_ids))
    return said_by(tops, bottoms, words[asked.target], other)


def said_by(tops: Sequence[str], bottoms: Sequence[str], target: str, distractor: str | None) -> tuple[str, bool]:
    """(what a memory value says for the target, whether its negative says it): a head that pushes a distractor down
    holds it negated, among what its value reads last, and does not hold the target."""
    negated = distractor is not None and distractor in bottoms[:SAID] and target not in tops[:SAID]
    return (bottoms if negated else tops)[0], negated


def _moved_neurons(a: Question, b: Question) -> pd.DataFrame:
    """Of every block the neuron whose contribution changes most between two passes."""
    from visit.exact.decompose import attribution, needed, rows_and_bias

    rows = []
    frozen = [attribution(o.model, o.acts, o.acts.index(o.pos), o.target, o.distractor) for o in (a, b)]
    for layer in range(a.model.n_layers):
        moved = []
        for asked, aim in zip((a, b), frozen, strict=True):
            t = asked.acts.index(asked.pos)
            weights = rows_and_bias(asked.model, asked.acts, layer, "mlp", t)[0]
            moved.append(needed(asked.acts, "neurons")[layer, t].to(asked.model.wide) * aim.of(weights))
        n = int((moved[1] - moved[0].to(moved[1].device)).abs().argmax())
        row = {"id": f"L{layer}.mlp_value{n}", "kind": "mlp_value", "layer": layer}
        rows.append(row | {"contribution_a": float(moved[0][n]), "contribution_b": float(moved[1][n])})
    return pd.DataFrame(rows)


def shape(model: Model) -> dict[str, Any]:
    """What two models must share for their components to correspond; a graph's meta holds the same."""
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


def complete(
    graph_a: FlowGraph, graph_b: FlowGraph, pairing: Pairing
) -> tuple[FlowGraph, FlowGraph, dict[Side, set[str]]]:
    """Both graphs with the other's nodes, where the graphs know their passes, and what each pruning keeps.

    A head that comes in from the other side brings the memory values that its own pruning keeps; theirs follow.
    """
    from visit.graph.build import extend

    graphs: dict[Side, FlowGraph] = {"a": graph_a, "b": graph_b}
    partner: dict[Side, dict[int, int]] = {"a": pairing.to_a, "b": pairing.to_b}
    added: dict[Side, set[str]] = {"a": set(), "b": set()}
    for _ in range(3):  # heads, then their values, then nothing is left
        others: dict[Side, FlowGraph] = {"a": graphs["b"], "b": graphs["a"]}
        missing = {s: _missing(others[s], partner[s], graphs[s]) for s in graphs if graphs[s].source is not None}
        for side, ids in missing.items():
            if ids:
                graphs[side] = extend(graphs[side], ids)
                added[side] |= set(ids)
        if not any(missing.values()):
            break
    kept = {s: {i for i in g.by_id if str(_parsed(i).term) not in added[s]} for s, g in graphs.items()}
    return graphs["a"], graphs["b"], kept


def _missing(other: FlowGraph, partner: dict[int, int], graph: FlowGraph) -> list[str]:
    """Ids of the other graph's counterparts that this one does not show; what its user has hidden stays hidden."""
    hidden = {p.removeprefix("-") for p in graph.meta["keep"]["pin"] if p.startswith("-")}
    ids = [counterpart_id(node.id, partner) for node in other.by_id.values() if node.kind in _PINNABLE]
    return [
        i for i in ids
        if i is not None and _sees(graph.meta, i) and i not in graph.by_id and i not in hidden
        and i.split(".value")[0] not in hidden
    ]  # fmt: skip


def _parsed(name: str) -> NodeId:
    """A node's name taken apart."""
    node = NodeId.parse(name)
    assert node is not None, name
    return node


def _sees(meta: dict[str, Any], name: str) -> bool:
    """Whether the graph's position can look at the source of a memory value or key; True for every other node."""
    node = NodeId.parse(name)
    if node is None or node.source_pos is None:
        return True
    window = meta.get("windows", {}).get(node.layer)
    first = 0 if window is None else meta["position"] + 1 - window
    return first <= node.source_pos <= meta["position"]


def counterpart_id(name: str, partner: dict[int, int]) -> str | None:
    """The id of a node's counterpart on the other side; None where that prompt has no such source token."""
    node = NodeId.parse(name)
    if node is None or node.source_pos is None:
        return name
    return None if node.source_pos not in partner else str(replace(node, source_pos=partner[node.source_pos]))


def common_id(name: str, side: Side, pairing: Pairing) -> str:
    """The name of one side's node in the difference graph."""
    return name if side == "a" else counterpart_id(name, pairing.to_a) or f"{name}b"


def own_id(name: str, side: Side, pairing: Pairing) -> str | None:
    """The name on one side of a node of the difference graph; None where that side cannot have it."""
    node = NodeId.parse(name)
    if node is not None and node.only_b:
        return None if side == "a" else name[:-1]
    return name if side == "a" else counterpart_id(name, pairing.to_b)


def _pairs(a: FlowGraph, b: FlowGraph, pairing: Pairing, kept: dict[Side, set[str]]) -> dict[str, NodePair]:
    """All components in A's order, then what B alone has, by their names in the difference graph."""
    of_b = {common_id(i, "b", pairing): node for i, node in b.by_id.items()}
    pairs = {}
    for name in dict.fromkeys([*a.by_id, *of_b]):
        one, two = a.by_id.get(name), of_b.get(name)
        in_a, in_b = one is not None and one.id in kept["a"], two is not None and two.id in kept["b"]
        status = "alike"
        if in_a != in_b:
            status = "only A" if in_a else "only B"
        elif in_a and one.word != two.word:  # type: ignore[union-attr]
            status = "word"
        absent = None
        for side, node, graph in (("a", one, a), ("b", two, b)):
            own = None if node is not None else own_id(name, side, pairing)  # type: ignore[arg-type]
            if node is None and (own is None or own.endswith(".rest") or not _sees(graph.meta, own)):
                absent = side.upper()
        pairs[name] = NodePair(name, one, two, status, absent)
    return pairs


def _link_pairs(a: FlowGraph, b: FlowGraph, pairing: Pairing) -> list[EdgePair]:
    """All edges of both sides, sorted by the names of what they join."""
    of_a = {(e.source, e.target, e.kind): e for e in a.links}
    of_b = {(common_id(e.source, "b", pairing), common_id(e.target, "b", pairing), e.kind): e for e in b.links}
    return [EdgePair(*key, of_a.get(key), of_b.get(key)) for key in sorted({**of_a, **of_b})]


def component_name(row: dict[str, Any]) -> str:
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


def _question_of(graph: FlowGraph) -> Question | None:
    from visit.exact.question import Question

    if graph.source is None:
        return None
    target, distractor = (graph.meta[role] and graph.meta[role]["id"] for role in ("target", "distractor"))
    return Question(*graph.source, graph.meta["position"], target, distractor)


# ---- both targets in both passes -------------------------------------------------------------------------------------
def target_ranks(a: Question, b: Question) -> pd.DataFrame:
    """Probability, rank and logit of both sides' targets and distractors on both sides: a row a word.

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
        {"word": word, "whose": ", ".join(roles), **_word_in_pass(a, word, "a"), **_word_in_pass(b, word, "b")}
        for word, roles in whose.items()
    ]
    return pd.DataFrame(rows).astype({"rank_a": "Int64", "rank_b": "Int64"})


def _word_in_pass(asked: Question, word: str, side: str) -> dict[str, Any]:
    """Probability, rank and centred logit of a word at one side's position."""
    from visit.exact.decompose import needed

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
