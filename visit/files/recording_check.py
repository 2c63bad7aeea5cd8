"""Whether a recording is what its model computes: parts of it, chosen at random, are computed once more.

How a recording is checked, in four steps:
1. Its tokens are run through the model at hand.
2. The blocks in which the chosen nodes stand are built again, with the recorded pruning and lens.
3. Every number of a chosen node, and of as many edges of these blocks, is compared, by what this model and the recorded
   one round.
4. The probabilities of the next token, some of the tables and the reading are made again (`recording_tables`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from visit.errors import VisitError, check_kind, check_positive
from visit.files.recording import RecordedRun, Recording
from visit.graph.flowgraph import FlowGraph, Node
from visit.graph.prune import Keep, is_pin
from visit.text.node_id import TERMS

if TYPE_CHECKING:
    from visit.activations.record import Activations
    from visit.lenses.linear import Lens
    from visit.models.model import Model

_REPLAYED = ("prob", "norm", "contribution", "entropy", "coefficient")
_OF_EDGES = ("weight", "norm", "coefficient", "contribution")
_TIED = 0.01  # of a probability, or ten tolerances: two words that are nearer than this may change places
_SAME = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_mlp", "d_vocab")


def check_recording(
    recording: Recording, model: Model, k: int = 20, seed: int = 0, lens: Lens | None = None
) -> pd.DataFrame:  # fmt: skip
    """Compute k random nodes and edges of a recording's graphs, and some tables, once more, and compare.

    A row a node, an edge, a table of a prompt, and its reading: `run` (0 or 1), `kind` ("node", "edge", "table",
    "reading"), `node` (its id, the two ends of an edge, the key of a table), `number` (the one that differs most: prob,
    norm, contribution, a column, "word", "rows"), `recorded`, `replayed`, `difference` (over the largest of that number
    in the graph that is built again; in a table over 1 at least), `tolerance` (the ledger's, the larger of the two
    machines'), `holds`. A node that the model does not have here, or whose top word is another one by more than a
    rounding, does not hold. Of tables those of one prompt are computed again, not what compares two.
    `.attrs`: `model`,
    `same_model` (name, revision and type are those of the recording), `largest` (difference), `holds` (all), `checked`
    (what, in words). Which `seed` is taken nobody can know who edits a file. `lens`: the one that it was read through,
    if any (None: the one fitted here).
    Raises `VisitError` for a model of another shape, and for a run that was edited from another pass. Source: ours.
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
    rows = []
    for n, run in enumerate(recording.runs):
        nodes = [node for node in run.graph.by_id.values() if node.kind != "rest" and node.layer is not None]
        chosen = random.Random(seed + n).sample(nodes, min(len(nodes), -(-k // len(recording.runs))))
        acts = capture(model, run.token_ids)
        again = _built_again(recording, run, model, lens, chosen, acts)
        allowed = max(run.graph.meta["ledger"]["tolerance"], again.meta["ledger"]["tolerance"])
        largest = {name: _largest_again(again.by_id.values(), name) for name in _REPLAYED}
        found = [_node_compared(node, again.by_id.get(node.id), largest, allowed) for node in chosen]
        found += _edges_compared(run.graph, again, len(chosen), seed + n, allowed)
        question = ask(model, acts, run.pos, run.target, run.distractor)
        found += tables_compared(run, question, lens, allowed, seed + n, now == then)
        rows += [{"run": n, **row} for row in found]
    table = pd.DataFrame(rows)
    table.attrs = {
        "model": model.name, "same_model": now == then,
        "largest": float(table["difference"].max()), "holds": bool(table["holds"].all()),
        "checked": _parts_checked(table),
    }  # fmt: skip
    return table


def _parts_checked(table: pd.DataFrame) -> str:
    """What was computed again, in words: "20 nodes, 20 edges, 7 tables and the reading"."""
    counts = table["kind"].value_counts()
    parts = [f"{counts[kind]} {kind}s" for kind in ("node", "edge", "table") if kind in counts]
    parts += ["the reading"] if "reading" in counts else []
    return ", ".join(parts[:-1]) + f" and {parts[-1]}"


def _check_same_shape(recording: Recording, model: Model) -> None:
    for name in _SAME:
        if getattr(model, name) != getattr(recording.model, name):
            raise VisitError(
                f"This recording is of {recording.model.name}, with {name} {getattr(recording.model, name)}; "
                f"{model.name} has {getattr(model, name)}. Load the model that it is of to check it."
            )
    if recording.meta.get("edits"):
        raise VisitError("This recording is of an edited run; only runs without edits are checked. Record it anew.")


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


def _built_again(
    recording: Recording, run: RecordedRun, model: Model, lens: Lens | None, chosen: list[Node], acts: Activations
) -> FlowGraph:  # fmt: skip
    """The graph of the same question, with the blocks of the chosen nodes taken apart.

    They are shown in any case: where two parts are nearly alike, another machine's rounding would keep the other.
    """
    from visit.graph.build import build_folded_graph

    meta = run.graph.meta
    keep, shown = Keep(**meta["keep"]), {node.layer for node in chosen if node.layer is not None}
    pins = [node.id for node in chosen if node.kind in TERMS and is_pin(model, node.id, shown, run.pos)]
    return build_folded_graph(
        model, acts, run.pos, meta["layers"], run.target, run.distractor,
        replace(keep, pin=tuple(dict.fromkeys([*keep.pin, *pins]))), sorted(shown), lens=lens,
        carry_parts=bool(recording.meta.get("carry_parts")),
    )  # fmt: skip


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
