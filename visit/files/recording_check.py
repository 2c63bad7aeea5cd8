"""Whether a recording is what its model computes: some of its nodes, chosen at random, are computed once more.

How a recording is checked, in three steps:
1. Its tokens are run through the model at hand, with the edits that need nothing but the run itself.
2. The blocks in which the chosen nodes stand are built again, with the recorded pruning and lens.
3. Every number of a node that both sides have is compared, by what this model and the recorded one round.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from visit.errors import VisitError, check_kind, check_positive
from visit.files.recording import RecordedRun, Recording
from visit.graph.flowgraph import FlowGraph, Node
from visit.graph.prune import Keep, is_pin
from visit.text.node_id import TERMS

if TYPE_CHECKING:
    from visit.lenses.linear import Lens
    from visit.models.model import Model

_REPLAYED = ("prob", "norm", "contribution", "entropy", "coefficient")
_TIED = 0.01  # of a probability, or ten tolerances: two words that are nearer than this may change places
_SAME = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_mlp", "d_vocab")


def check_recording(
    recording: Recording, model: Model, k: int = 20, seed: int = 0, lens: Lens | None = None
) -> pd.DataFrame:  # fmt: skip
    """Compute k random nodes of a recording's graphs once more with the model at hand, and compare.

    A row a node: `run` (0 or 1), `node`, `number` (the one that differs most: prob, norm, contribution, entropy,
    coefficient, or "word"), `recorded`, `replayed`, `difference` (over the largest of that number in the graph),
    `tolerance` (the ledger's, the larger of the two machines'), `holds`. A node that the model does not have here, or
    whose top word is another one by more than a rounding, does not hold. `.attrs`: `model`, `same_model` (name,
    revision and type are those of the recording), `largest` (difference), `holds` (all). Which `seed` is taken nobody
    can know who edits a file. `lens`: the one that it was read through, if any (None: the one fitted here).
    Raises `VisitError` for a model of another shape, and for a run that was edited from another pass. Source: ours.
    """
    check_positive("k", k)
    check_kind("The recording", recording, Recording, "what visit.load_recording returns")
    _check_same_shape(recording, model)
    lens = _same_lens(recording, model, lens)
    rows = []
    for n, run in enumerate(recording.runs):
        nodes = [node for node in run.graph.by_id.values() if node.kind != "rest" and node.layer is not None]
        chosen = random.Random(seed + n).sample(nodes, min(len(nodes), -(-k // len(recording.runs))))
        again = _built_again(recording, run, model, lens, chosen)
        allowed = max(run.graph.meta["ledger"]["tolerance"], again.meta["ledger"]["tolerance"])
        rows += [{"run": n, **_node_compared(node, again.by_id.get(node.id), run.graph, allowed)} for node in chosen]
    table = pd.DataFrame(rows)
    from visit.models.catalog import display_name

    now = display_name(model.name), model.revision, str(model.dtype).removeprefix("torch.")
    table.attrs = {
        "model": model.name, "same_model": now == tuple(recording.meta[n] for n in ("model", "revision", "dtype")),
        "largest": float(table["difference"].max()), "holds": bool(table["holds"].all()),
    }  # fmt: skip
    return table


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
    recording: Recording, run: RecordedRun, model: Model, lens: Lens | None, chosen: list[Node]
) -> FlowGraph:  # fmt: skip
    """The graph of the same question, with the blocks of the chosen nodes taken apart.

    They are shown in any case: where two parts are nearly alike, another machine's rounding would keep the other.
    """
    from visit.activations.forward import capture
    from visit.graph.build import build_folded_graph

    meta = run.graph.meta
    keep, shown = Keep(**meta["keep"]), {node.layer for node in chosen if node.layer is not None}
    pins = [node.id for node in chosen if node.kind in TERMS and is_pin(model, node.id, shown, run.pos)]
    return build_folded_graph(
        model, capture(model, run.token_ids), run.pos, meta["layers"], run.target, run.distractor,
        replace(keep, pin=tuple(dict.fromkeys([*keep.pin, *pins]))), sorted(shown), lens=lens,
        carry_parts=bool(recording.meta.get("carry_parts")),
    )  # fmt: skip


def _node_compared(node: Node, again: Node | None, graph: FlowGraph, allowed: float) -> dict[str, Any]:
    """The number of a node that differs most, and whether it is within what both machines round."""
    if again is None:
        missing = {"number": "word", "recorded": node.word, "replayed": None, "difference": float("inf")}
        return {"node": node.id, **missing, "tolerance": allowed, "holds": False}
    worst: dict[str, Any] = {"number": "word", "recorded": node.word, "replayed": again.word, "difference": 0.0}
    for name in _REPLAYED:
        one, two = getattr(node, name), getattr(again, name)
        if one is None and two is None:
            continue
        largest = max((abs(getattr(n, name) or 0.0) for n in graph.by_id.values()), default=0.0) or 1.0
        apart = float("inf") if one is None or two is None else abs(one - two) / largest
        if apart > worst["difference"]:
            worst = {"number": name, "recorded": one, "replayed": two, "difference": apart}
    likely = dict(zip(again.tokens, again.probs, strict=True))
    near = likely.get(node.word, 0.0) >= (1 - max(_TIED, 10 * allowed)) * max(likely.values(), default=1.0)
    if node.word != again.word and not near:
        worst = {"number": "word", "recorded": node.word, "replayed": again.word, "difference": float("inf")}
    return {"node": node.id, **worst, "tolerance": allowed, "holds": worst["difference"] <= allowed}
