"""The results of a recorded pass, each decoded when it is first asked for, checked, and kept.

What was not recorded is a `NotRecorded`, never a blank.

Keys of `RecordedRun.result`, and the functions whose results they are (at the recorded position, for its target and
distractor): "predictions" (`overview.predictions` of every position, with `pos`, and the target's and distractor's
probability there), "lens_map", "lens_map fitted", "facts" and "story" (`narrate.flow`), "graph", "moves"
(`overview.block_moves`), "heads" (`head_map` with words and influence), "memory L3.head4" ((`head_summary`,
`head_memory`), five words a vector), "life 3" (`value_life` of source 3), "alignment", "head graph L3.head4", "norm ln1
5" and "norm final" (`token_shift`), "norm layers" (`target_shifts`), "neurons 5" (`active_neurons`, 30 of the MLP by
norm), and where they were measured "effects", "causes". Of `RecordedPair.result`: "pairing", "compare", "parting",
"single parts", "contrast" (`narrate.comparison.contrast_parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from visit.analyses.graph_difference import Comparison, comparison_of
from visit.analyses.token_alignment import Pair, Pairing
from visit.errors import NotRecorded
from visit.files.recorded_values import (
    LONGEST_WORD,
    StoredValues,
    check_numbers,
    check_text,
    check_whole,
    from_plain,
    is_like,
    read_table,
    told_as_broken,
)
from visit.files.recording_file import broken_file
from visit.graph.flowgraph import FlowGraph
from visit.narrate.flow import Facts
from visit.text.node_id import NodeId

MOST_NODES, MOST_EDGES = 60_000, 200_000
_EDGE_KINDS = ("add", "residual", "multiply", "norm")

# what pages read of a table; "!": a number is there in every row
_TABLE_COLUMNS = {
    "predictions": "pos token id prob!",
    "lens_map": "depth layer state pos token top top_prob! tokens probs prob! rank entropy!",
    "states": "depth layer state pos token top top_prob! tokens probs prob! rank entropy!",
    "moved": "node kind layer head contribution! source_pos source_token pattern source_contribution",
    "heads": "node layer head norm! share! rank_in_layer top3 intersection_attn_out intersection_block "
    "intersection_final tokens probs entropy! prob! rank contribution! influence! source_pos source_token "
    "source_pattern! source_share! previous_token same_token first_position induction role",
    "memory": "source_pos source_token is_sink pattern value_norm moved! share! contribution! tokens probs entropy "
    "prob rank source_prob source_rank negated_tokens negated_probs key_tokens query_tokens",
    "life": "layer head norm! tokens probs entropy! prob! rank source_prob! source_rank",
    "alignment": "figure layer head rank_in_layer with_w_o other source_pos source_rank score!",
    "norm": "id token before_prob! before_rank after_prob! after_rank delta! centring scaling gain bias falls rises "
    "is_target",
    "norm layers": "layer norm node before_prob! before_rank after_prob! after_rank delta! before_token after_token",
    "neurons": "node kind layer neuron head coefficient norm! share contribution! tokens probs bottom_tokens entropy "
    "prob rank key_tokens",
    "effects": "node layer head neuron contribution! influence prob! rank logit! difference d_logit! d_difference "
    "kl_bits! changed",
    "parting": "depth pair pos_a pos_b token_a token_b word_a word_b js apart cosine cosine_centred",
    "single parts": "id component kind layer head contribution_a! contribution_b! difference!",
    "answers": "word whose prob_a rank_a logit_over_mean_a prob_b rank_b logit_over_mean_b",
    "nodes": "id kind layer head source_pos source_token neuron label tokens probs bottom_tokens bottom_probs prob "
    "rank entropy norm! coefficient contribution",
    "edges": "source target kind weight norm coefficient contribution",
    "ledger": "identity name layer max_abs_error max_rel_error tolerance! holds",
}  # fmt: skip


@dataclass(eq=False)
class Results:
    """Results by their keys, decoded when they are first asked for. Not to be changed by who asks."""

    layouts: dict[str, Any]
    owner: str  # the beginning of the names of its numbers
    stored: StoredValues
    limits: dict[str, int]
    made: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        """All keys, those of stacked tables one by one."""
        for name, layout in self.layouts.items():
            if layout["kind"] == "stack":
                yield from (f"{name} {of}" for of in layout["of"])
            else:
                yield name

    def result(self, key: str) -> Any:
        """One of them. Raises `NotRecorded` for a key that is not there, `VisitError` for one that is damaged."""
        if key not in self.made:
            with told_as_broken():
                self.made[key] = self._decoded(key)
        return self.made[key]

    def _decoded(self, key: str) -> Any:
        if key in self.layouts and self.layouts[key]["kind"] != "stack":
            return _READERS[self.layouts[key]["kind"]](self, key, self.layouts[key])
        name = next((n for n, one in self.layouts.items() if one["kind"] == "stack" and key.startswith(f"{n} ")), None)
        of = key.removeprefix(f"{name} ")
        if name is None or of not in self.layouts[name]["of"]:
            raise NotRecorded(f"{key[:80]!r} is not in this recording. Open its model, or record it with this as well.")
        layout = self.layouts[name]
        table = self.stack(name)
        at = layout["of"].index(of)
        first = sum(layout["rows"][:at])
        part = table.iloc[first : first + layout["rows"][at]].reset_index(drop=True)
        part.attrs = {}
        return (from_plain(layout["about"][at]), part) if layout.get("about") else part

    def stack(self, name: str) -> pd.DataFrame:
        """All tables of one kind below each other."""
        if name not in self.made:
            with told_as_broken():
                layout = self.layouts[name]
                table = self.table(f"{self.owner}/{name}", layout["table"], name)
                rows = [check_whole("number of rows", n, 0, len(table)) for n in layout["rows"]]
                of = [check_text("name", one, LONGEST_WORD) for one in layout["of"]]
                if sum(rows) != len(table) or len(rows) != len(of):
                    raise broken_file(f"the rows of {name!r} do not add up")
                self.made[name] = table
        return self.made[name]

    def table(self, name: str, layout: Any, kind: str) -> pd.DataFrame:
        """A table with the columns that its kind has, and numbers that can be."""
        table = read_table(self.stored, name, layout)
        asked = _TABLE_COLUMNS.get(kind, "").split()
        missing = [column for c in asked if (column := c.rstrip("!")) not in table]
        if missing:
            raise broken_file(f"{kind!r} has no column {missing[0]!r}")
        return check_numbers(kind, table, self.limits, tuple(c[:-1] for c in asked if c.endswith("!")))


# ---- from how they stand to what they are ----------------------------------------------------------------------------
def _table_read(of: Results, key: str, layout: Any) -> pd.DataFrame:
    return of.table(f"{of.owner}/{key}", layout["table"], key.removesuffix(" fitted"))


def _graph_read(of: Results, key: str, layout: Any) -> FlowGraph:
    nodes, edges = (of.table(f"{of.owner}/{key}/{part}", layout[part], part) for part in ("nodes", "edges"))
    if len(nodes) > MOST_NODES or len(edges) > MOST_EDGES:
        raise broken_file(f"a graph of it has {len(nodes):,} nodes and {len(edges):,} edges")
    graph = FlowGraph.of_tables(nodes, edges, _graph_meta(of, from_plain(layout["meta"])))
    shown = set(graph.meta["layers"])
    for node in graph.by_id.values():
        parsed = NodeId.parse(node.id) if isinstance(node.id, str) else None
        if parsed is None or parsed.kind != node.kind or not (node.layer is None or node.layer in shown):
            raise broken_file(f"a node of its graph is called {str(node.id)[:40]!r}")
    needed = {f"L{layer}.{kind}" for layer in shown for kind in ("attn_out", "mlp_out", "resid_post")}
    needed |= {f"L{layer}.resid_pre" for layer in shown if layer - 1 not in shown}  # else it is the last one's end
    ends = {i for e in graph.links for i in (e.source, e.target)}
    if len(graph.by_id) != len(nodes) or not (ends | needed) <= set(graph.by_id):
        raise broken_file("its graph lacks nodes, or has one twice")
    if any(edge.kind not in _EDGE_KINDS for edge in graph.links):
        raise broken_file("an edge of its graph is of no known kind")
    return graph


def _graph_meta(of: Results, meta: Any) -> dict[str, Any]:
    """What a graph is of, with the parts that drawings and pages rely on."""
    layers, target = meta["layers"], meta["target"]
    check_whole("position", meta["position"], 0, min(of.limits["tokens"], len(meta["tokens"])) - 1)
    check_whole("vocabulary", meta["d_vocab"], 1, of.limits["d_vocab"])
    for layer in layers:
        check_whole("layer", layer, 0, of.limits["n_layers"] - 1)
    for name, kind in GRAPH_META.items():
        if name in meta and not is_like(meta[name], kind):
            raise broken_file(f"its graph has a {name} that is none")
    if sorted(set(layers)) != layers or not layers or len(meta["tokens"]) != len(meta["token_ids"]):
        raise broken_file("its graph is of other layers or tokens than it says")
    if target is None or not {"keep", "shares", "ledger", "windows"} <= set(meta):
        raise broken_file("its graph does not say what was kept")
    return dict(meta)


_WORD: Any = ({"id": int, "token": str}, None)
GRAPH_META: dict[str, Any] = {
    "model": str, "revision": (str, None), "dtype": str, "quantization": (str, None), "family": str, "prompt": str,
    "versions": {str: str}, "tokens": [str], "token_ids": [int], "target": _WORD, "distractor": _WORD, "gated": bool,
    "layers": [int], "windows": {int: int}, "shares": {str: float}, "constant": float, "position_token": str,
    "keep": {"by": str, **dict.fromkeys(("heads", "values", "attn_neurons", "mlp_neurons", "pin"), object)},
    "ledger": {"max_rel_error": float, "tolerance": float, "holds": bool}, "opened": [int], "edited": [str],
    "influence": {str: float}, "lens": {"name": str}, "edits": [{"node": str}],
}  # fmt: skip


def _facts_read(of: Results, key: str, layout: Any) -> Facts:
    states, moved = (of.table(f"{of.owner}/{key}/{part}", layout[part], part) for part in ("states", "moved"))
    rest = from_plain(layout["rest"])
    return Facts(states=states, moved=moved, **{name: rest[name] for name in _FACTS})


_FACTS = ("recalls", "tokens", "target", "distractor", "fitted")


def _json_read(of: Results, key: str, layout: Any) -> Any:
    return from_plain(layout["value"])


def _pairing_read(of: Results, key: str, layout: Any) -> Pairing:
    return Pairing(tuple(Pair(*one) for one in from_plain(layout["value"])))


def _comparison_read(of: Results, key: str, layout: Any) -> Comparison:
    a, b = (_graph_read(of, f"{key}/{side}", layout[side]) for side in "ab")
    kept = {side: set(graph.by_id) - set(layout["added"][side]) for side, graph in (("a", a), ("b", b))}
    answers = of.table(f"{of.owner}/{key}/answers", layout["answers"], "answers")
    return comparison_of(a, b, of.result("pairing"), kept, answers)  # type: ignore[arg-type]


_READERS: dict[str, Callable[[Results, str, Any], Any]] = {
    "table": _table_read, "graph": _graph_read, "facts": _facts_read, "plain": _json_read,
    "pairing": _pairing_read, "compare": _comparison_read,
}  # fmt: skip


def layouts_read(given: Any) -> dict[str, Any]:
    """How results stand in a file, each of a kind that can be read. Raises `VisitError`."""
    if any(layout["kind"] not in (*_READERS, "stack") for layout in given.values()):
        raise broken_file("it holds a result of an unknown kind")
    return dict(given)
