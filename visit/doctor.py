"""Examining a model: its family, dimensions, tokenizer and memory, whether every identity holds, and if not, why."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from visit.forecast import TOKENS, Dimensions, Forecast, forecast
from visit.forward import Activations, capture
from visit.graph import build_flow_graph, sums_gap, versions
from visit.identities import SAMPLE, ledger, summary, tolerance
from visit.machine import memory_at_hand, size_text
from visit.model import Model
from visit.tokens import start_tokens

_LONG = 1024  # tokens of the long prompt whose memory is forecast too
_CHUNK = 1 << 22  # numbers looked at together when a weight is searched for NaN


def examine(model: Model) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """(meta, tables) of one model: the tables `model`, `memory` (property, value) and `ledger` (a row per identity).

    Runs two forward passes of a short prompt. `meta["ledger"]["holds"]` is the verdict and `meta["verdict"]` the same
    in a sentence, which names, where an identity fails, the first layer and the weight that is to blame.
    """
    acts = capture(model, SAMPLE)
    table = pd.concat([ledger(model, acts), _pruned(model, acts)], ignore_index=True)
    per_identity = _per_identity(table)
    found = summary(per_identity)
    meta = {
        **model.provenance,
        "prompt": acts.prompt, "tokens": list(acts.tokens), "ledger": found, "verdict": verdict(model, table),
        "versions": versions(),
    }  # fmt: skip
    return meta, {"model": _properties(model), "memory": _memory(model), "ledger": per_identity}


def verdict(model: Model, table: pd.DataFrame) -> str:
    """A ledger in a sentence: that all holds, or what fails first, where, and which weights are not numbers."""
    failed = table[~table["holds"].astype(bool)]
    if failed.empty:
        return "All identities hold."
    numbers = ", ".join(str(i) for i in sorted(failed["identity"].unique()))
    where = failed.sort_values(["layer", "identity"], kind="stable").iloc[0]
    at = "" if pd.isna(where["layer"]) else f", first in layer {where['layer']}"
    cause = "".join(
        f" {name} is NaN or infinite in {count:,} place{'s' if count > 1 else ''}."
        for name, count in _not_numbers(model)
    )
    return (
        f"Identities that fail: {numbers}{at} (identity {where['identity']}: {where['name']}; error "
        f"{where['max_rel_error']:.0e}, allowed {where['tolerance']:.0e}). Do not trust its numbers.{cause}"
    )


def _not_numbers(model: Model, most: int = 3) -> list[tuple[str, int]]:
    """The first parameters that hold NaN or infinity, and how many of them; searched a piece at a time."""
    found = []
    for name, weight in model.hf.named_parameters():
        parts = weight.detach().flatten().split(_CHUNK)
        count = sum(int((~torch.isfinite(part)).sum()) for part in parts)
        if count:
            found.append((name, count))
    return found[:most]


def _pruned(model: Model, acts: Activations) -> pd.DataFrame:
    """Identity 8 on a graph with the default pruning: at every node, shown + rest = total."""
    graph = build_flow_graph(model, acts)
    error, allowed = sums_gap(graph), tolerance(model, 8)
    row = {
        "identity": 8, "name": "in a pruned graph shown + rest = total", "layer": None,
        "max_abs_error": error * float(graph.nodes["contribution"].abs().max()), "max_rel_error": error,
        "tolerance": allowed, "holds": error <= allowed,
    }  # fmt: skip
    return pd.DataFrame([row]).astype({"layer": "Int64"})


def _per_identity(table: pd.DataFrame) -> pd.DataFrame:
    """One row an identity: its worst layer."""
    worst = table.sort_values("max_rel_error", ascending=False, na_position="first", kind="stable")
    worst = worst.drop_duplicates("identity").sort_values("identity", ignore_index=True)
    holds = table.groupby("identity")["holds"].all()
    return worst.assign(holds=[bool(holds[i]) for i in worst["identity"]])


def _properties(model: Model) -> pd.DataFrame:
    count = sum(p.numel() for p in model.hf.parameters())
    return _table({
        "family": f"{model.family.name} ({model.hf.config.model_type})",
        "special": model.family.special,
        "layers": model.n_layers,
        "heads": f"{model.n_heads} of width {model.d_head}"
        + (f", {model.n_kv_heads} key/value heads" if model.n_kv_heads != model.n_heads else ""),
        "d_model": model.d_model,
        "d_mlp": model.d_mlp,
        "d_vocab": model.d_vocab,
        "window": f"{model.max_tokens} tokens",
        "parameters": f"{count / 1e6:,.1f} million",
        "weights": model.provenance["quantization"] or "the model's own numbers",
        "tokenizer": _tokenizer(model),
        "start token": _start(model),
        "device": ", ".join(sorted({str(p.device) for p in model.hf.parameters()})),
    })  # fmt: skip


def _table(rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"property": list(rows), "value": [str(v) for v in rows.values()]})


def _tokenizer(model: Model) -> str:
    known = len(model.tokenizer)
    rows = f", {model.d_vocab - known} embedding rows without a token" if model.d_vocab > known else ""
    return f"{type(model.tokenizer).__name__}, {known:,} tokens{rows}"


def _start(model: Model) -> str:
    added = start_tokens(model.tokenizer)
    if not added:
        return "adds none; the first word stands at position 0, the usual attention sink"
    words = ", ".join(model.vocabulary[i] for i in added)
    return f"adds {words} in front, kept and shown; position 0 is the attention sink"


def sizes_of(model: Model) -> Dimensions:
    """The dimensions that the size of a record follows from."""
    return Dimensions(
        model.n_layers, model.n_heads, model.n_kv_heads, model.d_model, model.d_head, model.d_mlp, model.d_vocab
    )


def expected(model: Model, tokens: int = TOKENS) -> Forecast:
    """The forecast of a model that is loaded, from its own dimensions."""
    parameters = sum(p.numel() for p in model.hf.parameters())
    return forecast(parameters, sizes_of(model), str(model.dtype).removeprefix("torch."), tokens)


def _memory(model: Model) -> pd.DataFrame:
    """What the model takes and what there is: the smaller of free memory and what the container's limit leaves."""
    short, long = expected(model), expected(model, min(_LONG, model.max_tokens))
    free = memory_at_hand(str(model.device))
    more = short.capture + short.projection
    return _table({
        f"weights in {short.dtype} (loaded)": size_text(short.weights),
        f"one capture at {short.tokens} tokens": size_text(short.capture),
        f"one capture at {long.tokens} tokens": size_text(long.capture),
        "a projection to the vocabulary": size_text(short.projection),
        "forecast before loading": f"{size_text(short.total)} with {short.tokens} tokens",
        "memory at hand now": size_text(free),
        "verdict": "fits" if more <= free else f"short of {size_text(more - free)} for {short.tokens} tokens",
    })  # fmt: skip
