"""Whether a recording is what its model computes: parts of it, chosen at random, are computed once more.

How a recording is checked, in five steps:
1. Its tokens are run through the model at hand, with the recorded edits.
2. The blocks in which the chosen nodes stand are built again, with the recorded pruning and lens.
3. Every number of a chosen node, and of as many edges of these blocks, is compared, by what this model and the recorded
   one round.
4. The whole attention pattern, the probabilities of the next token, some of the tables and the sentences are made again
   (`recording_tables`).
5. Of two prompts, their alignment, nodes of both graphs that Compare lays beside each other, all tables and sentences.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from visit.errors import VisitError, check_kind, check_positive
from visit.files.recorded_edits import edits_again
from visit.files.recording import Recording
from visit.graph.flowgraph import FlowGraph, Node
from visit.graph.prune import Keep, is_pin
from visit.text.node_id import TERMS

if TYPE_CHECKING:
    from visit.exact.question import Question
    from visit.lenses.linear import Lens
    from visit.models.model import Model

_REPLAYED = ("prob", "norm", "contribution", "entropy", "coefficient")
_OF_EDGES = ("weight", "norm", "coefficient", "contribution")
_TIED = 0.01  # of a probability, or ten tolerances: two words that are nearer than this may change places
_SAME = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_mlp", "d_vocab")


def check_recording(
    recording: Recording, model: Model, k: int = 20, seed: int = 0, lens: Lens | None = None
) -> pd.DataFrame:  # fmt: skip
    """Compute k random nodes and edges of a recording's graphs, and what else it holds, once more, and compare.

    Of two prompts half as many nodes and edges are added, of the graphs that Compare lays beside each other.

    A row a node, an edge, a table, an attention pattern, an alignment, and what is told in sentences: `run` (0 or 1;
    missing: of what compares the two), `kind` ("node", "edge", "table", "pattern", "alignment", "reading"), `node` (its
    id, in Compare after its side; the two ends of an edge, the head and query of a pattern, the key of a table),
    `number` (the one that differs most: prob, norm, contribution, pattern, a column, "word", "rows"), `recorded`,
    `replayed`, `difference` (over the largest of that number in the graph that is built again; in a table over 1 at
    least), `tolerance` (the ledger's, the larger of the two machines'; of
    a table three times that), `holds`. A node
    that the model does not have here, or whose top word is another one by more than a rounding, does not hold.
    An edited run is made again with its edits; what they took from another run, or a set, is taken from the file.
    `.attrs`: `model`,
    `same_model` (name, revision and type are those of the recording), `largest` (difference), `holds` (all), `checked`
    (what, in words). Which `seed` is taken nobody can know who edits a file. `lens`: the one that it was read through,
    if any (None: the one fitted here).
    Raises `VisitError` for a model of another shape, and for an edit that cannot be made again. Source: ours.
    """
    check_positive("k", k)
    check_kind("The recording", recording, Recording, "what visit.load_recording returns")
    _check_same_shape(recording, model)
    from visit.activations.forward import capture
    from visit.exact.question import ask
    from visit.files.recording_tables import tables_compared
    from visit.models.catalog import display_name

    lens = _same_lens(recording, model, lens)
    now = display_name(model.name), model.revision, str(model.dtype).removeprefix("torch.")
    then = tuple(recording.meta[name] for name in ("model", "revision", "dtype"))
    rows: list[dict[str, Any]] = []
    questions, count = [], -(-k // len(recording.runs))
    for n, run in enumerate(recording.runs):
        of, said = run.results, run.graph.meta.get("edits", ())
        edits = edits_again(said, of.stored, of.owner, run.token_ids, model)
        acts = capture(model, run.token_ids, edits=edits)
        question = ask(model, acts, run.pos, run.target, run.distractor)
        found, allowed = _graph_compared(recording, run.graph, question, lens, count, seed + n)
        found += tables_compared(run, question, lens, allowed, seed + n, now == then)
        rows += [{"run": n, **row} for row in found]
        questions.append(question)
    if len(questions) == 2:
        found = _pair_compared(recording, (questions[0], questions[1]), lens, -(-count // 2), seed, now == then)
        rows += [{"run": None, **row} for row in found]
    table = pd.DataFrame(rows).astype({"run": "Int64"})
    table.attrs = {
        "model": model.name, "same_model": now == then,
        "largest": float(table["difference"].max()), "holds": bool(table["holds"].all()),
        "checked": _parts_checked(table),
    }  # fmt: skip
    return table


def _parts_checked(table: pd.DataFrame) -> str:
    """What was computed again, in words: "20 nodes, 20 edges, 7 tables, 1 pattern and 1 reading"."""
    counts = table["kind"].value_counts()
    kinds = [kind for kind in ("node", "edge", "table", "pattern", "alignment", "reading") if kind in counts]
    parts = [f"{counts[kind]} {kind}{'s' if counts[kind] > 1 else ''}" for kind in kinds]
    return ", ".join(parts[:-1]) + f" and {parts[-1]}"


def _check_same_shape(recording: Recording, model: Model) -> None:
    for name in _SAME:
        if getattr(model, name) != getattr(recording.model, name):
            raise VisitError(
                f"This recording is of {recording.model.name}, with {name} {getattr(recording.model, name)}; "
                f"{model.name} has {getattr(model, name)}. Load the model that it is of to check it."
            )


def _same_lens(recording: Recording, model: Model, lens: Lens | None) -> Lens | None:
    """The lens that a recording was read through: as given, or as fitted to the model here; None for the plain one."""
    from visit.lenses.linear import fitted_lens

    if recording.meta.get("lens") is None:
        return None
    lens = lens or fitted_lens(model)
    if lens is None or lens.about != recording.meta["lens"]:
        raise VisitError(
            "This recording was read through a fitted lens that is not on this machine, so its words cannot be "
            "checked. Give the lens (lens=), or record with the plain one to have it checked everywhere."
        )
    return lens


def _graph_compared(
    recording: Recording, graph: FlowGraph, question: Question, lens: Lens | None, count: int, seed: int
) -> tuple[list[dict[str, Any]], float]:  # fmt: skip
    """Some nodes and edges of a recorded graph, and how much both machines may round."""
    nodes = [node for node in graph.by_id.values() if node.kind != "rest" and node.layer is not None]
    chosen = random.Random(seed).sample(nodes, min(len(nodes), count))
    again = _built_again(recording, graph, question, lens, chosen)
    allowed = max(one.meta["ledger"]["tolerance"] for one in (graph, again))
    largest = {name: _largest_again(again.by_id.values(), name) for name in _REPLAYED}
    rows = [_node_compared(node, again.by_id.get(node.id), largest, allowed) for node in chosen]
    return [*rows, *_edges_compared(graph, again, len(chosen), seed, allowed)], allowed


def _built_again(
    recording: Recording, graph: FlowGraph, question: Question, lens: Lens | None, chosen: list[Node]
) -> FlowGraph:  # fmt: skip
    """The graph of the same question, with the blocks of the chosen nodes taken apart.

    They are shown in any case: where two parts are nearly alike, another machine's rounding would keep the other.
    """
    from visit.graph.build import build_folded_graph

    model, pos, meta = question.model, question.pos, graph.meta
    keep, shown = Keep(**meta["keep"]), {node.layer for node in chosen if node.layer is not None}
    pins = [node.id for node in chosen if node.kind in TERMS and is_pin(model, node.id, shown, pos)]
    return build_folded_graph(
        model, question.acts, pos, meta["layers"], question.target, question.distractor,
        replace(keep, pin=tuple(dict.fromkeys([*keep.pin, *pins]))), sorted(shown), lens=lens,
        carry_parts=bool(recording.meta.get("carry_parts")),
    )  # fmt: skip


def _pair_compared(
    recording: Recording, questions: tuple[Question, Question], lens: Lens | None, count: int, seed: int, alike: bool
) -> list[dict[str, Any]]:  # fmt: skip
    """What Compare shows of two prompts: both graphs with each other's nodes, who has which, the tables, the words."""
    from visit.analyses.graph_difference import comparison_of
    from visit.files.recording_tables import pair_compared

    assert recording.pair is not None
    told = recording.pair.result("compare")
    rows, most = [], 0.0
    for n, (name, graph) in enumerate((("A", told.a), ("B", told.b))):
        found, allowed = _graph_compared(recording, graph, questions[n], lens, count, seed + n)
        rows += [{**row, "node": f"{name}: {row['node']}"} for row in found]
        most = max(most, allowed)
    kept = {side: set(run.graph.by_id) for side, run in zip("ab", recording.runs, strict=True)}
    again = comparison_of(told.a, told.b, told.pairing, kept, None)  # type: ignore[arg-type]
    apart = [(one, other) for one, other in zip(told.pairs.values(), again.pairs.values(), strict=True)
             if one.status != other.status]  # fmt: skip
    one, other = apart[0] if apart else (None, None)
    rows.append({
        "kind": "table", "node": "compare" if one is None else one.id, "number": "status",
        "recorded": one and one.status, "replayed": other and other.status,
        "difference": float("inf") if apart else 0.0, "tolerance": 0.0, "holds": not apart,
    })  # fmt: skip
    return [*rows, *pair_compared(recording.pair, questions, lens, most, alike)]


def _largest_again(parts: Iterable[Any], name: str) -> float:
    """Of the graph that was built again: whoever edits a file could make one number huge, and hide the others by it."""
    return max((abs(getattr(one, name) or 0.0) for one in parts), default=0.0) or 1.0


def _edges_compared(graph: FlowGraph, again: FlowGraph, count: int, seed: int, allowed: float) -> list[dict[str, Any]]:
    """As many edges of the blocks that were built again."""
    known = {(edge.source, edge.target): edge for edge in again.links}
    ends = {node.id for node in again.by_id.values() if node.kind != "rest"}
    edges = [edge for edge in graph.links if edge.source in ends and edge.target in ends]
    largest = {name: _largest_again(again.links, name) for name in _OF_EDGES}
    rows = []
    for edge in random.Random(seed).sample(edges, min(count, len(edges))):
        twin = known.get((edge.source, edge.target))
        worst: dict[str, Any] = {
            "number": "edge",
            "recorded": None,
            "replayed": None,
            "difference": 0.0 if twin else float("inf"),
        }
        for name in _OF_EDGES if twin else ():
            worst = _worse(worst, name, getattr(edge, name), getattr(twin, name), largest[name])
        rows.append({"kind": "edge", "node": f"{edge.source} → {edge.target}", **worst, "tolerance": allowed,
                     "holds": worst["difference"] <= allowed})  # fmt: skip
    return rows


def _worse(worst: dict[str, Any], name: str, one: float | None, two: float | None, largest: float) -> dict[str, Any]:
    """A number of both, where it differs by more than the one before."""
    if one is None and two is None:
        return worst
    apart = float("inf") if one is None or two is None else abs(one - two) / largest
    if not apart > worst["difference"]:
        return worst
    return {"number": name, "recorded": one, "replayed": two, "difference": apart}


def nodes_compared(graph: FlowGraph, again: FlowGraph) -> pd.DataFrame:
    """Every node of a recorded graph that the same graph has read that was built here, as `check_recording` compares.

    `again`: it may be folded: what it did not read is left out, and what stands for the rest, which holds other parts
    where rounding kept another one. Source: ours.
    """
    allowed = max(one.meta["ledger"]["tolerance"] for one in (graph, again))
    largest = {name: _largest_again(again.by_id.values(), name) for name in _REPLAYED}
    both = [(node, there) for node in graph.by_id.values() if (there := again.by_id.get(node.id)) is not None]
    read = [(node, there) for node, there in both if node.kind != "rest" and there.tokens]
    return pd.DataFrame([_node_compared(node, there, largest, allowed) for node, there in read])


def _node_compared(node: Node, again: Node | None, largest: dict[str, float], allowed: float) -> dict[str, Any]:
    """The number of a node that differs most, and whether it is within what both machines round."""
    if again is None:
        missing = {"number": "word", "recorded": node.word, "replayed": None, "difference": float("inf")}
        return {"kind": "node", "node": node.id, **missing, "tolerance": allowed, "holds": False}
    worst: dict[str, Any] = {"number": "word", "recorded": node.word, "replayed": again.word, "difference": 0.0}
    for name in _REPLAYED:
        worst = _worse(worst, name, getattr(node, name), getattr(again, name), largest[name])
    likely = dict(zip(again.tokens, again.probs, strict=True))
    near = likely.get(node.word, 0.0) >= (1 - max(_TIED, 10 * allowed)) * max(likely.values(), default=1.0)
    if node.word != again.word and not near:
        worst = {"number": "word", "recorded": node.word, "replayed": again.word, "difference": float("inf")}
    return {"kind": "node", "node": node.id, **worst, "tolerance": allowed, "holds": worst["difference"] <= allowed}
