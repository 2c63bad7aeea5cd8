"""Examining a model: what family it is, its dimensions, its tokenizer, its memory, and whether every identity holds."""

from __future__ import annotations

from typing import Any

import pandas as pd
import psutil

from visit.forward import capture
from visit.graph import build_flow_graph, sums_gap, versions
from visit.identities import SAMPLE, ledger, summary, tolerance
from visit.model import Model


def examine(model: Model) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """(meta, tables) of one model: the tables `model` (property, value) and `ledger` (a row per identity).

    Runs two forward passes of a short prompt. `meta["ledger"]["holds"]` is the verdict.
    """
    acts = capture(model, SAMPLE)
    table = ledger(model, acts)
    per_identity = _per_identity(pd.concat([table, _pruned(model, acts)], ignore_index=True))
    meta = {
        "model": model.name, "revision": model.revision, "dtype": str(model.dtype).removeprefix("torch."),
        "prompt": acts.prompt, "tokens": list(acts.tokens), "ledger": summary(per_identity), "versions": versions(),
    }  # fmt: skip
    return meta, {"model": _properties(model), "ledger": per_identity}


def _pruned(model: Model, acts: Any) -> pd.DataFrame:
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
    weights = sum(p.numel() * p.element_size() for p in model.hf.parameters())
    count = sum(p.numel() for p in model.hf.parameters())
    tokenizer = model.tokenizer
    known = len(tokenizer)
    adds = tokenizer("a")["input_ids"] != tokenizer("a", add_special_tokens=False)["input_ids"]
    record = _record_bytes(model, 64)
    rows = {
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
        "tokenizer": f"{type(tokenizer).__name__}, {known:,} tokens"
        + (f", {model.d_vocab - known} embedding rows without a token" if model.d_vocab > known else "")
        + (", adds a start token" if adds else ", adds no start token"),
        "device": str(model.device),
        "memory of the weights": _mb(weights),
        "memory of one capture": f"{_mb(record)} at 64 tokens",
        "memory available": _mb(psutil.virtual_memory().available),
    }
    return pd.DataFrame({"property": list(rows), "value": [str(v) for v in rows.values()]})


def _record_bytes(model: Model, tokens: int) -> int:
    """Bytes of a whole record: seven streams, q, k, v, z, neurons and patterns per layer, and the logits."""
    width = 7 * model.d_model + (2 * model.n_heads + 2 * model.n_kv_heads) * model.d_head + model.d_mlp
    per_layer = tokens * width + model.n_heads * tokens * tokens
    return (model.n_layers * per_layer + tokens * model.d_vocab) * model.dtype.itemsize


def _mb(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
