"""The flow graph of one position: hidden states and neurons as nodes, their interactions as edges.

The one rule: at every node the vectors on its incoming `add` and `residual` edges sum to the node's vector;
`multiply` and `norm` edges never take part in a sum. What pruning leaves out stands in `rest` nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from visit.activations.forward import Activations
from visit.errors import VisitError
from visit.exact.decompose import needed
from visit.exact.ledger import tolerance
from visit.exact.question import Question, ask
from visit.graph.blocks import add_block, add_folded, add_gap, add_predictions
from visit.graph.draft import MAX_NODES, Draft, is_pin
from visit.graph.prune import Keep, at_most
from visit.lenses.logit import columns_of, read, read_logits
from visit.models.attention import window
from visit.models.model import Model

_INTEGERS = ("layer", "head", "source_pos", "neuron", "rank")
_COLUMNS = [
    "id", "kind", "layer", "head", "source_pos", "source_token", "neuron", "label", "tokens", "probs",
    "bottom_tokens", "bottom_probs", "prob", "rank", "entropy", "norm", "coefficient", "contribution",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class FlowGraph:
    """Two tables and what they are of. Columns: `build_flow_graph`."""

    nodes: pd.DataFrame
    edges: pd.DataFrame
    meta: dict[str, Any]
    source: tuple[Model, Activations] | None = field(default=None, repr=False)  # what `extend` reads more nodes from


def build_flow_graph(
    model: Model,
    acts: Activations,
    pos: int = -1,
    layers: Iterable[int] | int | str | None = None,
    target: int | str | None = None,
    distractor: int | str | None = None,
    keep: Keep = Keep(),  # noqa: B008 - frozen
) -> FlowGraph:
    """Build the flow graph of one position over the chosen layers (None = all); target None = the prediction there.

    `nodes`, a row a node: `id`, `kind`, `layer`, `head`, `source_pos`, `source_token`, `neuron`, `label`, `tokens`,
    `probs`, `bottom_tokens`, `bottom_probs`, `prob` and `rank` of the target, `entropy` (bits), `norm` (of the vector
    read, unit coefficient), `coefficient`, `contribution` (logits; missing where a node adds nothing to the stream).
    `edges`: `source`, `target`, `kind`, `weight` (pattern or |pre-activation| on the edges that carry one, else norm),
    `norm`, `coefficient`, `contribution`. `meta`: what the graph is of, shares kept, constant, ledger, versions.
    Raises `VisitError` for a wrong layer, position or target, or for more than 20,000 nodes.
    Source: paper section 4; `rest` nodes and contributions ours.
    """
    return _build(*_asked(model, acts, pos, layers, target, distractor, keep, None), keep)


def build_folded_graph(
    model: Model,
    acts: Activations,
    pos: int = -1,
    layers: Iterable[int] | int | str | None = None,
    target: int | str | None = None,
    distractor: int | str | None = None,
    keep: Keep = Keep(),  # noqa: B008 - frozen
    opened: Iterable[int] = (),
    known: pd.DataFrame | None = None,
) -> FlowGraph:
    """The same graph as far as it is looked at: only the blocks `opened` are taken apart and read whole.

    Of every other block stands what its folded drawing shows: its states, what attention and the MLP add, its two
    largest heads (and pinned ones) and, so that attention still adds up, the rest of its heads; `meta["opened"]` says
    which blocks are whole, and `meta["shares"]` and the ledger cover what is there. The rows of an open block are those
    of `build_flow_graph`. `known`: nodes of the same pass, position and target, which are not read again.
    Raises `VisitError` as `build_flow_graph` does. Source: ours.
    """
    opened = sorted({int(layer) for layer in opened})
    asked = _asked(model, acts, pos, layers, target, distractor, keep, opened)
    return _build(*asked, keep, known, [layer for layer in opened if layer in asked[3]])


def _asked(
    model: Model, acts: Activations, pos: int, layers: Any, target: Any, distractor: Any, keep: Keep,
    opened: list[int] | None,
) -> tuple[Model, Activations, int, list[int], int, int | None]:  # fmt: skip
    """What a graph is asked for, in numbers, checked: model, pass, position, layers, target, distractor."""
    t = acts.index(pos)
    shown = shown_layers(model, layers)
    _check_pins(model, keep, shown, t)
    _check_size(model, keep, shown if opened is None else opened, t + 1)
    question = ask(model, acts, t, target, distractor)
    return model, acts, t, shown, question.target, question.distractor


def extend(graph: FlowGraph, pins: Iterable[str]) -> FlowGraph:
    """The same graph with more nodes shown in any case (`Keep.pin`); what was read already is not read again.

    Raises `VisitError` for a graph that no longer knows the pass it was made from, and for a pin that is no node.
    """
    if graph.source is None:
        raise VisitError("This graph has been separated from its pass; build it again to show more nodes.")
    model, acts = graph.source
    meta = graph.meta
    keep = Keep(**meta["keep"])
    keep = replace(keep, pin=tuple(dict.fromkeys([*keep.pin, *pins])))
    _check_pins(model, keep, meta["layers"], meta["position"])
    other = meta["distractor"] and meta["distractor"]["id"]
    about = meta["position"], meta["layers"], meta["target"]["id"], other
    return _build(model, acts, *about, keep, graph.nodes, meta.get("opened"))


def _build(
    model: Model, acts: Activations, t: int, shown: list[int], wanted: int, other: int | None, keep: Keep,
    known: pd.DataFrame | None = None, opened: list[int] | None = None,
) -> FlowGraph:  # fmt: skip
    """`opened`: the blocks that are taken apart, the others being folded; None: all."""
    with torch.no_grad():
        question = Question(model, acts, t, wanted, other)
        frozen = question.attribution
        draft = Draft(model, acts, t, frozen, keep)
        for layer in shown:
            before = draft.last_layer
            if before is None or layer > before + 1:
                add_gap(draft, before, layer)
            (add_block if opened is None or layer in opened else add_folded)(draft, layer)
        if shown[-1] == model.n_layers - 1:
            add_predictions(draft)
        nodes, edges = _tables(draft, wanted, known)
    meta = {
        **question.meta,
        "n_layers": model.n_layers, "n_heads": model.n_heads, "d_head": model.d_head, "d_mlp": model.d_mlp,
        "gated": model.family.w_gate is not None,
        "layers": shown, "windows": {n: size for n in shown if (size := window(model, n)) is not None},
        "keep": asdict(keep), "shares": draft.shares, "constant": frozen.constant,
        **({} if opened is None else {"opened": opened}),
    }  # fmt: skip
    graph = FlowGraph(nodes, edges, meta, (model, acts))
    meta["ledger"] = _ledger(model, draft, sums_gap(graph))
    return graph


def sums_gap(graph: FlowGraph) -> float:
    """Identity 8: the largest |node − Σ of its incoming add and residual edges| over the largest node, in logits."""
    edges = graph.edges[graph.edges["kind"].isin(["add", "residual"])]
    sums = edges.groupby("target")["contribution"].sum(min_count=1)
    true = graph.nodes.set_index("id")["contribution"]
    gap = (sums - true.loc[sums.index]).abs()
    return float("nan") if gap.isna().any() else float(gap.max() / true.abs().max())


def parse_layers(text: str) -> list[int]:
    """`"3"`, `"3-5"` or `"0,3,7-9"` as a sorted list of layers; a `VisitError` says what is not readable."""
    found: set[int] = set()
    for part in text.split(","):
        ends = part.strip().split("-")
        if not 1 <= len(ends) <= 2 or not all(e.strip().isdecimal() for e in ends) or len(part) > 20:
            raise VisitError(f"Layers are written 3, 3-5 or 0,3,7-9 (from 0); {text[:60]!r} came.")
        first, last = int(ends[0]), int(ends[-1])
        if last < first or last > 100_000:
            raise VisitError(f"A range of layers runs upwards, as 3-5; {part.strip()!r} came.")
        found |= set(range(first, last + 1))
    return sorted(found)


def shown_layers(model: Model, layers: Iterable[int] | int | str | None) -> list[int]:
    """The chosen layers of a model in order (None: all), each once; a `VisitError` for one that it does not have."""
    if isinstance(layers, str):
        layers = parse_layers(layers)
    layers = [layers] if isinstance(layers, int) else layers
    shown = sorted({int(layer) for layer in layers}) if layers is not None else list(range(model.n_layers))
    wrong = [layer for layer in shown if not 0 <= layer < model.n_layers]
    if wrong or not shown:
        came = f"{wrong[0]} came" if wrong else "none came"
        raise VisitError(f"Layers of {model.name} run from 0 to {model.n_layers - 1}; {came}.")
    return shown


def _words(layers: list[int]) -> str:
    return ", ".join(map(str, layers))


def _check_pins(model: Model, keep: Keep, shown: list[int], t: int) -> None:
    unknown = [pin for pin in keep.pin if not is_pin(model, pin, shown, t)]
    if unknown:
        raise VisitError(
            f"Keep.pin names {unknown[0]!r}, which is no head, memory value or neuron of the shown layers "
            f"{_words(shown)} at position {t}. Ids look like L9.head6, L9.head6.value4, L9.mlp_value2071."
        )


def _check_size(model: Model, keep: Keep, shown: list[int], visible: int) -> None:
    heads = at_most(keep.heads, model.n_heads)
    parts = {
        "values": heads * 2 * at_most(keep.values, visible),
        "heads": heads * 3,
        "attn_neurons": at_most(keep.attn_neurons, model.n_heads * model.d_head),
        "mlp_neurons": (3 if model.family.w_gate else 2) * at_most(keep.mlp_neurons, model.d_mlp),
    }
    total = len(shown) * sum(parts.values())
    shares = any(isinstance(c, float) for c in (keep.heads, keep.values, keep.attn_neurons, keep.mlp_neurons))
    if total > MAX_NODES and not shares:
        most = max(parts, key=lambda name: parts[name])
        raise VisitError(
            f"This graph would have about {total:,} nodes; {MAX_NODES:,} can be drawn. "
            f"Lower Keep.{most} ({parts[most] * len(shown):,} of them) or show fewer layers."
        )


def _tables(draft: Draft, target: int, known: pd.DataFrame | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    vectors = torch.cat(draft.vectors)
    columns = _readings(draft, vectors, target, known)
    nodes = pd.DataFrame(draft.rows).assign(**columns)
    amount = torch.tensor([row["amount"] for row in draft.rows], dtype=vectors.dtype, device=vectors.device)
    nodes["contribution"] = (draft.frozen.of(vectors) * amount).tolist()
    nodes["label"] = [row["label"] or words[0] for row, words in zip(draft.rows, columns["tokens"], strict=True)]
    sources = [row["source_pos"] for row in draft.rows]
    nodes["source_token"] = [None if i is None else draft.acts.tokens[i] for i in sources]
    return nodes.astype(dict.fromkeys(_INTEGERS, "Int64"))[_COLUMNS], _edges(draft, nodes)


def _readings(draft: Draft, vectors: Tensor, target: int, known: pd.DataFrame | None) -> dict[str, list[Any]]:
    """What every node reads. `known`: nodes read before, of the same pass and target; they are not read again."""
    model = draft.model
    after = sum(row["kind"] in ("ln_final", "logits") for row in draft.rows)
    last = len(vectors) - after
    if known is None:
        found = columns_of(model, read(model, vectors[:last], target))
    else:
        found = _with_known(draft, vectors[:last], target, known)
    if after:  # both read as the model's own prediction: its logits, not our product
        logits = needed(draft.acts, "logits")[[draft.pos] * after]
        end = replace(read_logits(model, logits, target), norm=vectors[last:].norm(dim=-1))
        for name, values in columns_of(model, end).items():
            found[name] += values
    return found


def _with_known(draft: Draft, vectors: Tensor, target: int, known: pd.DataFrame) -> dict[str, list[Any]]:
    """Readings with those of `known` taken over: by id, but for rests, which change, and turned queries."""
    same = known[known["kind"] != "rest"]
    rows = {
        (i, None if pd.isna(p) else int(p)): n
        for n, (i, p) in enumerate(zip(same["id"], same["source_pos"], strict=True))
    }
    old = [rows.get((row["id"], row["source_pos"])) for row in draft.rows[: len(vectors)]]
    fresh = [n for n, place in enumerate(old) if place is None]
    read_now = columns_of(draft.model, read(draft.model, vectors[fresh], target))
    place_now = {n: place for place, n in enumerate(fresh)}
    taken = {name: same[name].tolist() for name in read_now}
    return {
        name: [new[place_now[n]] if place is None else taken[name][place] for n, place in enumerate(old)]
        for name, new in read_now.items()
    }


def _edges(draft: Draft, nodes: pd.DataFrame) -> pd.DataFrame:
    """Edges with the numbers of what they carry: an `add` edge the node's vector times its coefficient."""
    norm = dict(zip(nodes["id"], (nodes["norm"] * nodes["coefficient"].abs().fillna(1.0)).tolist(), strict=True))
    moved = dict(zip(nodes["id"], nodes["contribution"].tolist(), strict=True))
    rows = []
    for source, target, kind, carrier, coefficient, weight in draft.edges:
        length = norm[carrier] if carrier else None
        contribution = moved[carrier] if carrier and kind != "norm" else None
        rows.append((source, target, kind, length if weight is None else weight, length, coefficient, contribution))
    names = ["source", "target", "kind", "weight", "norm", "coefficient", "contribution"]
    table = pd.DataFrame(rows, columns=names)
    return table.astype(dict.fromkeys(names[3:], float))


def _ledger(model: Model, draft: Draft, gap: float) -> dict[str, Any]:
    """How exactly this very graph adds up at its position, as the largest relative error.

    Identities 2 to 4 with all terms of every shown sum, and identity 8, `sums_gap`. Of a folded block: its states, and
    its heads.
    """
    worst = max(float(torch.stack(draft.errors).max()), gap)
    allowed = tolerance(model, 2)
    return {"max_rel_error": worst, "tolerance": allowed, "holds": worst <= allowed}
