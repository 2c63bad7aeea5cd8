"""One neuron's card, and what the neurons of a layer look like together: the paper's Figures 8 and 9 as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from visit.activations.record import Activations
from visit.analyses.neuron_sets import NeuronSums, outlier_dims, rogue_dims
from visit.errors import check_choice, check_positive
from visit.exact.decompose import Attribution, needed, rows_and_bias
from visit.exact.gradients import gradients_of
from visit.exact.question import ask, check_layer, check_neuron, counted
from visit.lenses.logit import columns_of, read
from visit.lenses.weights import StaticIndex, matrices, read_rows, row_words, weight_rows
from visit.models.model import Model, tokenize
from visit.text.numbers import percent
from visit.text.visible import visible

# ---- neurons in one prompt -------------------------------------------------------------------------------------------
NeuronKind = Literal["mlp", "attention"]
Order = Literal["norm", "contribution", "influence", "coefficient"]


def active_neurons(
    model: Model, acts: Activations, layer: int, pos: int = -1, kind: NeuronKind = "mlp", top: int | None = 20,
    by: Order = "norm", target: int | str | None = None, distractor: int | str | None = None, k: int = 5,
) -> pd.DataFrame:  # fmt: skip
    """The most active neurons of a layer at one position: a row each, then what they leave out, then the bias.

    `kind`: "mlp" (rows of W_out) or "attention" (rows of W_O, which have no preferred basis inside a head); `top`: how
    many, None = all; `by`: |coefficient| · ‖row‖, |contribution|, |influence| or |coefficient|. Columns: `node` (id in
    the flow graph; missing ids end in `.rest` and `_bias`), `kind`, `layer`, `neuron`, `head` (of W_O), `coefficient`,
    `row_norm`, `norm` (|coefficient| · row_norm), `share` (of Σ norm of the layer's neurons), `contribution` (logits),
    `tokens`, `probs`, `bottom_tokens`, `entropy` (bits), `prob`, `rank` (of the target; None: the prediction) of the
    row with its coefficient's sign; of MLP neurons what they read: `key_tokens`, `key_bottom_tokens`,
    `key_coefficient` (before the non-linearity), gated also `gate_tokens`, `gate_bottom_tokens`, `gate_coefficient`.
    Contributions of all rows add up to that of `mlp_out` (`attn_out`). By influence there is a last column of it, with
    the same sums (logits to first order; one more run). Raises `VisitError` for a wrong layer,
    position, word, kind or order. Source: paper 5.3 and App. A; contribution ours.
    """
    question = ask(model, acts, pos, target, distractor)
    t, frozen = question.pos, question.attribution
    check_layer(model, layer)
    check_choice("kind", kind, get_args(NeuronKind))
    check_choice("by", by, get_args(Order))
    check_positive("top", top)
    with torch.no_grad():
        a, rows, bias, total = _sum(model, acts, layer, t, kind)
        moved, size = a * frozen.of(rows), a.abs() * rows.norm(dim=1)
        along = (
            gradients_of(question).into("mlp_out" if kind == "mlp" else "attn_out", layer)
            if by == "influence"
            else None
        )
        weighed = moved if along is None else a * (rows @ along)
        measure = {"norm": size, "coefficient": a.abs()}.get(by, weighed.abs())
        shown = measure.argsort(descending=True, stable=True)[:top]
        found = read(model, rows[shown] * a[shown].sign()[:, None], question.target, counted(model, k))
        columns = columns_of(model, found)
        reads = _keys(model, acts, layer, t, shown, counted(model, k)) if kind == "mlp" else {}
        rest = total - a[shown] @ rows[shown] - (0 if bias is None else bias)
    at = f"L{layer}.{'mlp_value' if kind == 'mlp' else 'attn_neuron'}"
    numbers = shown.tolist()
    table = pd.DataFrame({
        "node": [f"{at}{n}" for n in numbers], "kind": "mlp_value" if kind == "mlp" else "attn_neuron",
        "layer": layer, "neuron": numbers, "head": [None if kind == "mlp" else n // model.d_head for n in numbers],
        "coefficient": a[shown].tolist(), "row_norm": rows[shown].norm(dim=1).tolist(), "norm": size[shown].tolist(),
        "share": (size[shown] / size.sum().clamp_min(1e-30)).tolist(), "contribution": moved[shown].tolist(),
        **{name: columns[name] for name in ("tokens", "probs", "bottom_tokens", "entropy", "prob", "rank")}, **reads,
    })  # fmt: skip
    table = table.astype({"neuron": "Int64", "head": "Int64", "rank": "Int64"})
    left = 1 - float(size[shown].sum() / size.sum().clamp_min(1e-30))
    table = _with_rest(table, layer, kind, rest, bias, frozen, max(0.0, left), len(a) > len(shown))
    if along is not None:
        others = ([rest] if len(a) > len(shown) else []) + ([] if bias is None else [bias])
        table["influence"] = [*weighed[shown].tolist(), *(float(vector @ along) for vector in others)]
    return table


def _sum(model: Model, acts: Activations, layer: int, t: int, kind: NeuronKind) -> tuple[Tensor, Tensor, Any, Tensor]:
    """The terms of one sum at `t`: coefficients, rows, bias, and what the model itself made of them."""
    if kind == "mlp":
        rows, bias = rows_and_bias(model, acts, layer, "mlp", t)
        a, total = needed(acts, "neurons")[layer, t], needed(acts, "mlp_out")[layer, t]
        return a.to(model.wide), rows, bias, total.to(model.wide)
    z, (rows, bias) = needed(acts, "z"), rows_and_bias(model, acts, layer, "attn", t)
    return z[layer, t].flatten().to(model.wide), rows, bias, needed(acts, "attn_out")[layer, t].to(model.wide)


def _keys(model: Model, acts: Activations, layer: int, t: int, shown: Tensor, k: int) -> dict[str, list[Any]]:
    """What the shown MLP neurons read: the columns of W_in (and of W_gate), plain, with their pre-activations."""
    state = needed(acts, "ln2_out")[layer, t].to(model.wide)
    family = model.family
    found: dict[str, list[Any]] = {}
    paths = {"key": family.w_in} if family.w_gate is None else {"key": family.w_in, "gate": family.w_gate}
    for name, path in paths.items():
        vectors, bias = model.weight(path, layer)[:, shown].T, model.bias(path, layer)
        words = columns_of(model, read(model, vectors, k=k))
        before = vectors @ state if bias is None else vectors @ state + bias[shown]
        found |= {
            f"{name}_tokens": words["tokens"], f"{name}_bottom_tokens": words["bottom_tokens"],
            f"{name}_coefficient": before.tolist(),
        }  # fmt: skip
    return found


def _with_rest(
    table: pd.DataFrame, layer: int, kind: NeuronKind, rest: Tensor, bias: Tensor | None, frozen: Attribution,
    left: float, pruned: bool,
) -> pd.DataFrame:  # fmt: skip
    """The table with the rows that complete its sum: what was left out, and the bias where the family has one."""
    part = "mlp" if kind == "mlp" else "attn"
    extra = [(f"L{layer}.{part}.rest", "rest", rest, left)] if pruned else []
    if bias is not None:
        extra.append((f"L{layer}.{part}_bias", f"{part}_bias", bias, math.nan))
    if not extra:
        return table
    more = pd.DataFrame([
        {"node": node, "kind": what, "layer": layer, "norm": float(vector.norm()), "share": share,
         "contribution": float(frozen.of(vector))}
        for node, what, vector, share in extra
    ])  # fmt: skip
    more = more.reindex(columns=table.columns)
    for name in table.columns:
        more[name] = more[name].astype(table[name].dtype)
    return pd.concat([table, more], ignore_index=True)


SIMILAR = 10
ROLES = {"W_in": "key", "W_gate": "gate", "W_out": "value"}


def neuron_words(model: Model, index: StaticIndex | None, layer: int, neuron: int, words: int = 10) -> pd.DataFrame:
    """A neuron's weights as words: a row each for `role` key (what it detects), gate, value (what it writes).

    Columns: `role`, `matrix`, `tokens`, `negated_tokens`, `entropy` (bits), `norm`, and among its layer's rows of
    that matrix `norm_percentile`, `entropy_percentile` (0 to 100). `index`: None reads these rows alone, which takes
    no time; the place of its entropy among the others' is then missing.
    """
    check_neuron(model, layer, neuron)
    rows = []
    for matrix in [name for name in ("W_in", "W_gate", "W_out") if name in matrices(model)]:
        row = _read(model, index, matrix, layer, neuron, words).to_dict()
        if index is None:
            norms = weight_rows(model, matrix, layer).norm(dim=-1).float().cpu().numpy()
            row["norm"], entropies = float(norms[neuron]), None
        else:
            span = index.span(matrix, layer)
            norms, entropies = index.norm[span], index.entropy[span]
        row["norm_percentile"] = _percentile(row["norm"], norms)
        row["entropy_percentile"] = math.nan if entropies is None else _percentile(row["entropy"], entropies)
        rows.append({"role": ROLES[matrix], **row})
    return pd.DataFrame(rows).drop(columns=["layer", "neuron"])


def _read(model: Model, index: StaticIndex | None, matrix: str, layer: int, neuron: int, words: int) -> pd.Series:
    if index is None:
        return read_rows(model, matrix, layer, [neuron], words).iloc[0]
    return row_words(index, matrix, layer, [neuron], words).iloc[0]


def _percentile(own: float, all_of: np.ndarray) -> float:
    """The share of the others that are smaller, equal ones counted half, in percent."""
    below = (all_of < own).sum() + 0.5 * ((all_of == own).sum() - 1)
    return 100 * float(below) / max(1, len(all_of) - 1)


def similar_neurons(
    model: Model, index: StaticIndex | None, layer: int, neuron: int, top: int = SIMILAR
) -> pd.DataFrame:
    """The neurons of all layers that write most nearly the same: `layer`, `neuron`, `cosine`, `tokens`, `norm`.

    Cosine of the rows of W_out; the neuron itself is left out. `index`: None reads the few rows now. Source: ours.
    """
    check_neuron(model, layer, neuron)
    own = model.W_out(layer)[neuron]
    cosines = torch.stack([
        model.W_out(other) @ own / (norms * own.norm()).clamp_min(1e-30)
        for other, norms in enumerate(model.out_row_norms)
    ])  # fmt: skip
    cosines[layer, neuron] = -torch.inf
    best = cosines.flatten().topk(min(top, cosines.numel() - 1))
    rows = []
    for cosine, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        row = _read(model, index, "W_out", place // model.d_mlp, place % model.d_mlp, 5)
        rows.append({"cosine": cosine, **row[["layer", "neuron", "tokens", "norm"]].to_dict()})
    return pd.DataFrame(rows, columns=["layer", "neuron", "cosine", "tokens", "norm"])


def histogram(sums: NeuronSums, layer: int, neuron: int) -> pd.DataFrame:
    """How a neuron's activations spread over the set: `low`, `high`, `prompts`, empty ends cut off."""
    edges, counts = sums.edges(layer, neuron), sums.bins[layer, neuron].tolist()
    held = [i for i, n in enumerate(counts) if n]
    first, last = (held[0], held[-1] + 1) if held else (0, 0)
    return pd.DataFrame({"low": edges[first:last], "high": edges[first + 1 : last + 1], "prompts": counts[first:last]})


def examples(model: Model, row: pd.Series, prompts: Sequence[str | Sequence[int]], pos: int = -1) -> pd.DataFrame:
    """The prompts that activate a neuron most: `number`, `activation`, `token` (at `pos`), `prompt`.

    `row`: of `visit.analyses.neuron_sets.statistics_table`; `prompts`: the set that it was made from.
    """
    found = []
    for number, value in zip(row["example_prompts"], row["example_values"], strict=True):
        ids = tokenize(model, prompts[number])
        text = prompts[number] if isinstance(prompts[number], str) else "".join(model.vocabulary[i] for i in ids)
        found.append({"number": number, "activation": value, "token": model.vocabulary[ids[pos]], "prompt": text})
    return pd.DataFrame(found, columns=["number", "activation", "token", "prompt"])


def neuron_card(
    model: Model, index: StaticIndex | None, layer: int, neuron: int, stats: pd.DataFrame | None = None,
    sums: NeuronSums | None = None, prompts: Sequence[str | Sequence[int]] = (), pos: int = -1,
) -> dict[str, Any]:  # fmt: skip
    """Everything about one MLP neuron: numbers under their names, tables under `tables`.

    Always: `node`, `layer`, `neuron`, `outlier_dims` of its W_out row (|w| > 3 of its own standard deviations), tables
    `words` (`neuron_words`; with no index without the place of its entropy) and `similar`. With a prompt set (`stats`
    and `sums` of it): `prompts` (how many), `freq`, `mean`, `std`, `max`, `min`, `is_regularization`, `function_share`,
    `rogue_dims`, tables `histogram` and `examples`.
    Raises `VisitError` for a neuron that does not exist. Source: paper 5.3; the card ours.
    """
    tables = {
        "words": neuron_words(model, index, layer, neuron), "similar": similar_neurons(model, index, layer, neuron),
    }  # fmt: skip
    card: dict[str, Any] = {
        "node": f"L{layer}.mlp_value{neuron}", "layer": layer, "neuron": neuron,
        "outlier_dims": outlier_dims(model.W_out(layer)[neuron][None])[0],
    }  # fmt: skip
    if stats is not None and sums is not None:
        row = stats[(stats["layer"] == layer) & (stats["neuron"] == neuron)].iloc[0]
        kept = ("freq", "is_regularization", "mean", "std", "max", "min", "function_share", "rogue_dims")
        card |= {"prompts": sums.prompts, **{name: row[name] for name in kept}}
        tables |= {"histogram": histogram(sums, layer, neuron), "examples": examples(model, row, prompts, pos)}
    return {**card, "tables": tables}


def weight_profile(
    model: Model, stats: pd.DataFrame, sums: NeuronSums, layer: int, most: int = 3, random: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Weights per dimension, as the paper's Figure 9: a row per vector and dimension.

    The `most` regularization neurons of the largest frequency (none above the threshold: the most frequent neuron,
    kind "most frequent"), the mean of all W_out rows, and `random` other neurons. Columns: `series`, `kind`, `neuron`,
    `dim`, `weight`, `outlier` (over 3 standard deviations of its own vector), `rogue` (of the stream after the layer).
    """
    check_neuron(model, layer, 0)
    own = stats[stats["layer"] == layer].sort_values("freq", ascending=False, kind="stable")
    always = own[own["is_regularization"]]["neuron"].head(most).tolist()
    kind = "regularization" if always else "most frequent"
    chosen = always or own["neuron"].head(1).tolist()
    others = own[~own["is_regularization"] & ~own["neuron"].isin(chosen)]["neuron"]
    picked = others.sample(min(random, len(others)), random_state=seed).tolist()
    weights, rogue = model.W_out(layer), set(rogue_dims(sums, layer))
    series = [(f"N{n}", kind, n, weights[n]) for n in chosen]
    series += [("mean of all", "mean", None, weights.mean(0))]
    series += [(f"N{n}", "random", n, weights[n]) for n in picked]
    rows = []
    for name, what, neuron, vector in series:
        far = set(outlier_dims(vector[None])[0])
        for dim, weight in enumerate(vector.tolist()):
            rows.append((name, what, neuron, dim, weight, dim in far, dim in rogue))
    table = pd.DataFrame(rows, columns=["series", "kind", "neuron", "dim", "weight", "outlier", "rogue"])
    return table.astype({"neuron": "Int64"})


_HALF = 0.5  # of a neuron's top words: from here on it reads as function words
_EXCEPTIONAL = 90  # percentile of its layer: "exceptionally high" norms, in numbers of ours


def regularization_table(stats: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims layer by layer: a row per layer of `visit.analyses.neuron_sets.statistics_table`.

    Columns: `layer`, `regularization` (how many), `neurons` (which, most frequent first), `max_freq` (of any neuron),
    `most_frequent` (that neuron), of the regularization neurons the medians `norm_percentile`, `entropy_percentile`
    and the largest `function_share`, against `layer_function_share` (mean of all its neurons), `function_neurons`
    (those whose top words are function words by half or more), `rogue` (how many of them have an outlier weight in a
    rogue dimension). Missing where a layer has none.
    """
    rows = []
    for layer, own in stats.groupby("layer"):
        ordered = own.sort_values("freq", ascending=False, kind="stable")
        always = ordered[ordered["is_regularization"]]
        rows.append({
            "layer": layer, "regularization": len(always), "neurons": always["neuron"].tolist(),
            "max_freq": float(ordered["freq"].iloc[0]), "most_frequent": int(ordered["neuron"].iloc[0]),
            "norm_percentile": always["norm_percentile"].median(),
            "entropy_percentile": always["entropy_percentile"].median(),
            "function_share": always["function_share"].max(), "layer_function_share": own["function_share"].mean(),
            "function_neurons": always[always["function_share"] >= _HALF]["neuron"].tolist(),
            "rogue": int((always["rogue_dims"].map(len) > 0).sum()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def meets_paper(stats: pd.DataFrame) -> pd.Series:
    """Which neurons are regularization neurons as the paper describes them: more than always active.

    They stand in the last quarter of the layers, read as function words by half or more, are longer than nine in ten
    of their layer, have an entropy above its median, and an outlier weight in a rogue dimension of the stream. `stats`:
    `visit.analyses.neuron_sets.statistics_table`. Source: paper section 5.3; the bounds are ours.
    """
    layers = sorted(stats["layer"].unique())
    late = layers[-max(1, len(layers) // 4)]
    return (
        stats["is_regularization"] & (stats["layer"] >= late) & (stats["function_share"] >= _HALF)
        & (stats["norm_percentile"] >= _EXCEPTIONAL) & (stats["entropy_percentile"] >= 50)
        & (stats["rogue_dims"].map(len) > 0)
    )  # fmt: skip


def regularization_verdict(stats: pd.DataFrame) -> tuple[bool, str]:
    """Whether any neuron that is always active is one of the paper's regularization neurons, and a sentence on it."""
    always, meets = int(stats["is_regularization"].sum()), stats[meets_paper(stats)]
    if not always:
        return False, "No neuron is always active here; the paper finds such neurons in its late layers."
    many = f"{always} neuron{'s are' if always > 1 else ' is'} always active"
    if meets.empty:
        return False, (f"{many}, but none meets the paper's other criteria for a regularization neuron (late, long, of "
                       "high entropy, writing function words, with outlier weights in rogue dimensions).")  # fmt: skip
    names = ", ".join(f"L{row.layer} N{row.neuron}" for row in meets.head(6).itertuples())
    more = f" and {len(meets) - 6} more" if len(meets) > 6 else ""
    return (
        True,
        f"{many}, of which {len(meets)} meet all criteria of the paper's regularization neurons: {names}{more}.",
    )


def regularization_findings(summary: pd.DataFrame, stats: pd.DataFrame, prompts: int) -> list[str]:
    """What the table says about the paper's claims for this model, in sentences computed from the numbers."""
    late = summary.tail(max(1, len(summary) // 4))  # the paper: layers 18 to 23 of 24
    have, reads = late["regularization"] > 0, late["function_neurons"].map(len) > 0
    always = stats[stats["is_regularization"]]
    first, last = late["layer"].iloc[0], late["layer"].iloc[-1]
    found = [
        f"{len(always)} neurons are always active in {prompts:,} prompts. The paper finds at least one in each layer "
        f"of the last quarter; here {int(have.sum())} of {len(late)} have one (from layer {first} to {last})."
    ]
    if always.empty:
        return found
    found.append(
        "The paper: at least one of them per late layer reads as function words. Here this holds in "
        f"{int(reads.sum())} of {int(have.sum())} such layers; over all of them {_mean(always, 'function_share')} of "
        f"their top words are function words or punctuation ({_mean(always, 'negated_function_share')} of the words "
        f"that they push away), {_mean(stats, 'function_share')} over all neurons. {_most_so(always)}"
    )
    found.append(
        f"The paper: their norms are exceptionally high and their entropy is higher. Here the median neuron of them "
        f"stands at percentile {always['norm_percentile'].median():.0f} of its layer by norm, "
        f"{always['entropy_percentile'].median():.0f} by entropy."
    )
    hit = int((always["rogue_dims"].map(len) > 0).sum())
    found.append(
        f"The paper: a few outlier weights in the stream's rogue dimensions. Here {hit} of {len(always)} have one."
    )
    return found


def _most_so(always: pd.DataFrame) -> str:
    """The neuron that reads most as function words, with the sign that it is used with."""
    row = always.loc[always["function_share"].idxmax()]
    turned = ", used with a negative sign," if row["mean"] < 0 else ""
    words = " ".join(visible(token.strip() or token) for token in row["used_tokens"])
    return f"Most so does L{row['layer']} N{row['neuron']}{turned} which writes {words}"


def _mean(table: pd.DataFrame, name: str) -> str:
    return f"{percent(table[name].mean())}"
