"""A recorded run, read: all numbers of one or two passes that pages show, without the model, torch or transformers.

`visit.files.record_run` writes recordings, `recording_file` says what the file is and judges it as a whole, and
`recorded_values` how a table stands in it. Here its parts become what the library's functions returned: a result is
decoded when it is first asked for, checked, and kept. What was not recorded is a `NotRecorded`, never a blank.

Keys of `RecordedRun.result`, and the functions whose results they are (at the recorded position, for its target and
distractor): "predictions" (`overview.predictions` of every position, with `pos`, and the target's and distractor's
probability there), "lens_map", "lens_map fitted", "facts" and "story" (`narrate.flow`), "graph", "moves"
(`overview.block_moves`), "heads" (`head_map` with words and influence), "memory L3.head4" ((`head_summary`,
`head_memory`), five words a vector), "life 3" (`value_life` of source 3), "alignment", "head graph L3.head4",
"norm ln1 5" and "norm final" (`token_shift`), "norm layers" (`target_shifts`), "neurons 5" (`active_neurons`, 30 of
the MLP by norm), and where they were measured "effects", "causes". Of `RecordedPair.result`: "pairing", "compare",
"parting", "single parts", "contrast" (`narrate.comparison.contrast_parts`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from visit.analyses.graph_difference import Comparison, comparison_of
from visit.analyses.token_alignment import Pair, Pairing
from visit.errors import NotRecorded, VisitError, check_kind
from visit.files.recorded_values import (
    StoredValues,
    check_numbers,
    check_text,
    check_whole,
    from_plain,
    is_like,
    read_table,
    told_as_broken,
)
from visit.files.recording_file import LARGEST_FILE, broken_file, unpacked_recording, unpacked_size
from visit.graph.flowgraph import FlowGraph
from visit.models.families import FAMILIES, Family
from visit.models.tokens import Message
from visit.narrate.flow import Facts
from visit.text.node_id import NodeId

SHIPPED = Path(__file__).parent.parent / "data" / "recordings"
INDEX, WEIGHT_SUMS = "index.json", "weights.json"  # which question each shipped one answers; sums of the models' files
PATTERN_STEP = 1 / 65535  # a recorded pattern is right to half of it
MOST_NODES, MOST_EDGES = 60_000, 200_000
MOST_TOKENS = 20_000
LONGEST_TEXT = 200_000  # of a prompt, or a note
LONGEST_WORD = 2_000  # of a token, a name, a cell of a table: some stand a thousand times on a page
MOST_BLOCKS = 1_000  # of a model, and heads of a block: pages list them
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


@dataclass(frozen=True)
class RecordedModel:
    """What a page needs to know of the model that made a recording; it computes nothing.

    `loads`: the name by which `visit.load_model` has it, None where it was a file of the machine that recorded.
    """

    name: str
    loads: str | None
    revision: str | None
    family: Family
    dtype: str
    quantization: str | None
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int


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
    for name, kind in _GRAPH_META.items():
        if name in meta and not is_like(meta[name], kind):
            raise broken_file(f"its graph has a {name} that is none")
    if sorted(set(layers)) != layers or not layers or len(meta["tokens"]) != len(meta["token_ids"]):
        raise broken_file("its graph is of other layers or tokens than it says")
    if target is None or not {"keep", "shares", "ledger", "windows"} <= set(meta):
        raise broken_file("its graph does not say what was kept")
    return dict(meta)


_WORD: Any = ({"id": int, "token": str}, None)
_GRAPH_META: dict[str, Any] = {
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


# ---- a recording -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class RecordedRun:
    """One recorded pass: what was run, what was asked of it, and its results.

    `message`: what was typed, where a chat template wrapped it; `named`: the tokens as a reader names them; `starts`:
    how many start tokens stand in front; `special`: positions of control tokens; `words`: what the ids that occur read.
    """

    prompt: str
    message: Message | None
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    named: tuple[str, ...]
    pos: int
    target: int
    distractor: int | None
    starts: int
    special: frozenset[int]
    words: dict[int, str]
    results: Results = field(repr=False)

    def result(self, key: str) -> Any:
        """One result by its key (the module lists them). Raises `NotRecorded`."""
        return self.results.result(key)

    def compared(self, again: FlowGraph) -> pd.DataFrame:
        """All nodes of its graph that `again` has read, the same graph as it was built here: as `check_recording`."""
        from visit.files.recording_check import nodes_compared

        return nodes_compared(self.graph, again)

    @property
    def graph(self) -> FlowGraph:
        """The flow graph of all blocks, as `visit.build_flow_graph` made it."""
        found: FlowGraph = self.result("graph")
        return found

    @cached_property
    def pattern(self) -> np.ndarray:
        """`[layer, head, query, key]`: the attention pattern, float32, right to 8e-6 (it is kept in 65,536 steps)."""
        limits, n = self.results.limits, len(self.token_ids)
        shape = limits["n_layers"], limits["n_heads"]
        flat = self.results.stored.array(f"{self.results.owner}/pattern", "u", shape[0] * shape[1] * n * (n + 1) // 2)
        if flat.dtype != np.uint16:
            raise broken_file("its pattern is not kept in steps")
        flat = flat.reshape(*shape, -1)
        pattern = np.zeros((*shape, n, n), np.float32)
        for query in range(n):  # the indices of all would take more memory than the pattern
            start = query * (query + 1) // 2
            pattern[..., query, : query + 1] = flat[..., start : start + query + 1] * np.float32(PATTERN_STEP)
        return pattern


@dataclass(frozen=True, eq=False)
class RecordedPair:
    """What was recorded of two prompts together."""

    results: Results = field(repr=False)

    def result(self, key: str) -> Any:
        """One result by its key (the module lists them). Raises `NotRecorded`."""
        return self.results.result(key)


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded run of one prompt or two, as `load_recording` reads it.

    `meta`: model, revision, dtype, versions, when (`made`), on which machine, through which lens, what was kept;
    `model`: its dimensions; `runs`: the recorded passes; `pair`: what is of both, None with one prompt; `hash`: the
    SHA-256 sum of the file; `size`: the bytes that it unpacks to.
    """

    meta: dict[str, Any]
    model: RecordedModel
    runs: tuple[RecordedRun, ...]
    pair: RecordedPair | None
    hash: str
    size: int
    machine: Results = field(repr=False)  # what is of the model, on the machine that recorded

    @property
    def largest_pattern(self) -> int:
        """Bytes of the larger of its patterns, as it is read."""
        tokens = max(len(run.token_ids) for run in self.runs)
        return 4 * self.model.n_layers * self.model.n_heads * tokens**2

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, one or two."""
        return tuple(run.prompt for run in self.runs)

    @property
    def graph(self) -> FlowGraph:
        """The flow graph of the first prompt."""
        return self.runs[0].graph

    @property
    def ledger(self) -> pd.DataFrame:
        """`visit.ledger` of the model on the machine that recorded."""
        found: pd.DataFrame = self.machine.result("ledger")
        return found

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name: of the second prompt and of both `b/…` and `pair/…`; of many heads, norms or layers one,
        whose column `of` says which."""
        sources = [("", self.runs[0].results), *(("b/", run.results) for run in self.runs[1:])]
        sources += [] if self.pair is None else [("pair/", self.pair.results)]
        found = {"ledger": self.ledger}
        for start, results in sources:
            for name, layout in results.layouts.items():
                if layout["kind"] == "table":
                    found[f"{start}{name}"] = results.result(name)
                elif layout["kind"] == "stack":
                    table = results.stack(name)
                    of = np.repeat(np.array(layout["of"], object), layout["rows"])
                    found[f"{start}{name}"] = table.assign(of=of)
                elif layout["kind"] == "graph":
                    graph = results.result(name)
                    found |= {f"{start}nodes": graph.nodes, f"{start}edges": graph.edges} if name == "graph" else {}
                elif layout["kind"] == "compare":
                    found |= {f"{start}{n}": table for n, table in results.result(name).tables.items()}
        return found

    def check(self, model: Any, k: int = 20, seed: int = 0, lens: Any = None) -> pd.DataFrame:
        """Replay k random nodes with the model, as `visit.check_recording`."""
        from visit.files.recording_check import check_recording

        return check_recording(self, model, k, seed, lens)


def load_recording(source: str | os.PathLike[str] | bytes) -> Recording:
    """Read a recording, from its path or its bytes. It needs neither the model nor torch.

    The file is judged as one from anybody: its sizes before it is unpacked, the sums of its parts, the shape of every
    table when it is first used. Raises `VisitError` where it is none, is damaged, or is of a newer version.
    """
    check_kind("A recording", source, (str, os.PathLike, bytes), "the path of a file, or its bytes")
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with open(source, "rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except (OSError, ValueError) as error:  # a path with a null character is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise VisitError(
                f"{os.fspath(source)!r} cannot be read ({reason}). Choose a file that "
                "python -m visit record, or Save this run, has written."
            ) from error
    content, arrays = unpacked_recording(data)
    with told_as_broken():
        return _whole_recording(content, arrays, hashlib.sha256(data).hexdigest(), unpacked_size(data))


def _whole_recording(content: dict[str, Any], arrays: dict[str, Any], digest: str, size: int) -> Recording:
    texts = [check_text("text", text, LONGEST_WORD) for text in content["texts"]]
    stored, model = StoredValues(texts, arrays), _model_read(content["model"])
    sizes = {"n_layers": model.n_layers, "n_heads": model.n_heads, "d_vocab": model.d_vocab}
    if len(content["runs"]) not in (1, 2) or (content["pair"] is None) != (len(content["runs"]) == 1):
        raise broken_file("it is of neither one prompt nor two")
    runs = tuple(_run_read(one, name, stored, sizes) for one, name in zip(content["runs"], "ab", strict=False))
    most = sizes | {"tokens": max(len(run.token_ids) for run in runs)}
    pair = content["pair"]
    return Recording(
        _meta_of(from_plain(content["meta"])), model, runs,
        None if pair is None else RecordedPair(Results(_layouts(pair["results"]), "pair", stored, most)), digest, size,
        Results(_layouts(content["machine"]), "machine", stored, most),
    )  # fmt: skip


def _meta_of(meta: Any) -> dict[str, Any]:
    """What was recorded, with the parts that are shown."""
    for name in ("model", "dtype", "made", "machine", "note"):
        check_text(name, meta[name], LONGEST_TEXT if name == "note" else LONGEST_WORD)
    for name in ("lens", "versions", "keep", "ledger"):
        kind = _GRAPH_META[name]
        if not is_like(meta[name], (kind, None) if name == "lens" else kind):
            raise broken_file(f"it has a {name} that is none")
    check_text("version of VISIT", meta["versions"]["visit"], LONGEST_WORD)
    return dict(meta)


def _layouts(given: Any) -> dict[str, Any]:
    if any(layout["kind"] not in (*_READERS, "stack") for layout in given.values()):
        raise broken_file("it holds a result of an unknown kind")
    return dict(given)


def _model_read(given: Any) -> RecordedModel:
    family = next((row for row in FAMILIES if row.name == given["family"]), None)
    if family is None:
        raise broken_file(f"its model is of the unknown family {str(given['family'])[:40]!r}")
    numbers = {name: check_whole(name, given[name], 1, most) for most, names in
               ((MOST_BLOCKS, ("n_layers", "n_heads", "n_kv_heads")),
                (1 << 24, ("d_model", "d_head", "d_mlp", "d_vocab"))) for name in names}  # fmt: skip
    texts = {name: None if given[name] is None else check_text(name, given[name], LONGEST_WORD)
             for name in ("name", "loads", "revision", "dtype", "quantization")}  # fmt: skip
    return RecordedModel(family=family, **texts, **numbers)  # type: ignore[arg-type]


def _run_read(given: Any, name: str, stored: StoredValues, sizes: dict[str, int]) -> RecordedRun:
    ids = [check_whole("token", i, 0, sizes["d_vocab"] - 1) for i in given["token_ids"]]
    check_whole("number of tokens", len(ids), 1, MOST_TOKENS)
    tokens, named = ([check_text("token", t, LONGEST_WORD) for t in given[part]] for part in ("tokens", "named"))
    if not len(ids) == len(tokens) == len(named):
        raise broken_file("its tokens have no ids, or its ids no tokens")
    word = {role: None if given[role] is None else check_whole(role, given[role], 0, sizes["d_vocab"] - 1)
            for role in ("target", "distractor")}  # fmt: skip
    words = {check_whole("id", i, 0, sizes["d_vocab"] - 1): check_text("word", w, LONGEST_WORD)
             for i, w in given["words"]}  # fmt: skip
    if not {*ids, *word.values()} <= {*words, None} or word["target"] is None:
        raise broken_file("a word that it is about has no text")
    message = None if given["message"] is None else Message(
        check_text("message", given["message"][0], LONGEST_TEXT),
        None if given["message"][1] is None else check_text("system message", given["message"][1], LONGEST_TEXT),
    )  # fmt: skip
    return RecordedRun(
        check_text("prompt", given["prompt"], LONGEST_TEXT), message, tuple(ids), tuple(tokens), tuple(named),
        check_whole("position", given["pos"], 0, len(ids) - 1), word["target"], word["distractor"],
        check_whole("number of start tokens", given["starts"], 0, len(ids)),
        frozenset(check_whole("position", i, 0, len(ids) - 1) for i in given["special"]), words,
        Results(_layouts(given["results"]), name, stored, sizes | {"tokens": len(ids)}),
    )  # fmt: skip


class ShippedRecording(NamedTuple):
    """The question that a shipped recording answers, at the last position, with the words as an address has them."""

    model: str
    prompt: str
    target: str = ""
    distractor: str = ""
    prompt_b: str = ""


@cache
def shipped_recordings() -> dict[ShippedRecording, Path]:
    """The recordings that come with VISIT: the opening example and the first steps of lessons."""
    index = json.loads((SHIPPED / INDEX).read_text(encoding="utf-8"))
    return {ShippedRecording(**asked): SHIPPED / f"{name}.visit" for name, asked in index.items()}
