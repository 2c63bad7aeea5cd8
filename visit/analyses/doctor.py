"""Examining a model: its family, dimensions, tokenizer and memory, whether every identity holds, and if not, why."""

from __future__ import annotations

import copy
from typing import Any

import pandas as pd
import torch

from visit.activations.forward import capture, plain_logits
from visit.activations.record import Activations
from visit.exact.ledger import SAMPLE, ledger, summary, tolerance
from visit.graph.build import build_flow_graph, sums_gap
from visit.models.catalog import FORECAST_TOKENS, Dimensions, Forecast, forecast, memory_at_hand
from visit.models.model import Model, tokenize
from visit.models.provenance import provenance, quantization_note
from visit.models.tokens import start_tokens
from visit.text.numbers import size_text

_LONG_PROMPT = 1024  # tokens of the long prompt whose memory is forecast too
_MOST_NAMED = 3  # weights with numbers that are none
_CHUNK = 1 << 22  # numbers looked at together when a weight is searched for NaN


def examine(model: Model) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """(meta, tables) of one model: the tables `model`, `memory` (property, value) and `ledger` (a row per identity).

    Runs two forward passes of a short prompt, and on a GPU one more on the CPU. `meta["ledger"]["holds"]` says whether
    the identities hold, `meta["device"]["holds"]` whether the device computes what the CPU computes, and
    `meta["verdict"]` both in a sentence, which names, where an identity fails, the first layer and the weight to blame.
    """
    acts = capture(model, SAMPLE)
    table = pd.concat([ledger(model, acts), _pruned(model, acts)], ignore_index=True)
    per_identity = _per_identity(table)
    found, device = summary(per_identity), against_cpu(model)
    meta = {
        **provenance(model),
        "prompt": acts.prompt, "tokens": list(acts.tokens), "ledger": found,
        "device": device, "verdict": " ".join([verdict(model, table), *wrong_device(device)]),
    }  # fmt: skip
    return meta, {"model": _properties(model, device), "memory": _memory(model), "ledger": per_identity}


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


# how far a device's logits may lie from the CPU's, relative to the largest: rounding differs, above all in half
# precision, and TF32 rounds float32; a wrong kernel is off by the size of the logits themselves
_ALLOWED = {torch.float64: 1e-9, torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def against_cpu(model: Model, twin: Any = None) -> dict[str, Any]:
    """Whether the model's device computes what the CPU computes, on a short prompt: an Apple GPU once did not.

    `twin`: the Hugging Face model to compare with (None: a copy on the CPU in float32 at least, of a model that lies
    elsewhere). Keys: `device`, `holds`, `max_rel_error` = max |Δlogit| / max |logit|, `allowed`, `same_word` and
    `words` (positions whose most probable word agrees, of how many), `sentence`. Source: ours.
    """
    where = model.device.type
    if twin is None and where == "cpu":
        return {"device": "cpu", "holds": True, "max_rel_error": None, "sentence": "CPU: nothing to compare"}
    size = sum(p.numel() for p in model.hf.parameters()) * model.wide.itemsize
    if twin is None and size > memory_at_hand():
        short = f"not compared: a copy on the CPU takes {size_text(size)}, {size_text(memory_at_hand())} are free"
        return {"device": where, "holds": True, "max_rel_error": None, "sentence": short}
    ids = torch.tensor([tokenize(model, SAMPLE)])
    there = plain_logits(model, ids[0].tolist()).cpu().to(torch.float64)
    with torch.no_grad():
        here = (_on_cpu(model) if twin is None else twin)(ids, use_cache=False).logits[0].to(torch.float64)
    error = float((there - here).abs().max() / here.abs().max())
    same, words, allowed = int((there.argmax(-1) == here.argmax(-1)).sum()), len(here), _ALLOWED[model.dtype]
    holds = error <= allowed  # NaN does not
    sentence = (
        f"{where} and CPU differ by {error:.0e} of the largest logit (allowed {allowed:.0e}); the most probable word "
        f"is the same at {same} of {words} positions"
    )
    found = {"device": where, "holds": holds, "max_rel_error": error, "allowed": allowed}
    return found | {"same_word": same, "words": words, "sentence": sentence}


def wrong_device(device: dict[str, Any]) -> list[str]:
    """The sentence that a device which computes something else deserves; none for a good one."""
    if device["holds"]:
        return []
    return [f"This device computes wrongly: {device['sentence']}. Load the model with device='cpu'."]


def _on_cpu(model: Model) -> Any:
    """A copy of the Hugging Face model on the CPU, float32 at least; nothing is copied on the device itself."""
    memo: dict[int, Any] = {}
    for tensor in [*model.hf.parameters(), *model.hf.buffers()]:
        kind = model.wide if tensor.is_floating_point() else tensor.dtype
        moved = tensor.detach().to("cpu", kind, copy=True)
        if isinstance(tensor, torch.nn.Parameter):
            moved = torch.nn.Parameter(moved, requires_grad=False)
        memo[id(tensor)] = moved
    twin = copy.deepcopy(model.hf, memo)
    if hasattr(model.hf, "hf_device_map"):  # spread over cards: accelerate's hooks would carry the states back to them
        from accelerate.hooks import remove_hook_from_module

        twin = remove_hook_from_module(twin, recurse=True)
    return twin.eval()


def _not_numbers(model: Model) -> list[tuple[str, int]]:
    """The first parameters that hold NaN or infinity, and how many of them; searched a piece at a time."""
    found = []
    for name, weight in model.hf.named_parameters():
        parts = weight.detach().flatten().split(_CHUNK)
        count = sum(int((~torch.isfinite(part)).sum()) for part in parts)
        if count:
            found.append((name, count))
    return found[:_MOST_NAMED]


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


def _properties(model: Model, device: dict[str, Any]) -> pd.DataFrame:
    count = sum(p.numel() for p in model.hf.parameters())
    return _property_table({
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
        "weights": quantization_note(model) or "the model's own numbers",
        "tokenizer": _tokenizer(model),
        "start token": _start(model),
        "device": ", ".join(sorted({str(p.device) for p in model.hf.parameters()})),
        "device and CPU": device["sentence"],
    })  # fmt: skip


def _property_table(rows: dict[str, Any]) -> pd.DataFrame:
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


def expected(model: Model, tokens: int = FORECAST_TOKENS) -> Forecast:
    """The forecast of a model that is loaded, from its own dimensions."""
    parameters = sum(p.numel() for p in model.hf.parameters())
    return forecast(parameters, sizes_of(model), str(model.dtype).removeprefix("torch."), tokens)


def _memory(model: Model) -> pd.DataFrame:
    """What the model takes and what there is: the smaller of free memory and what the container's limit leaves."""
    short, long = expected(model), expected(model, min(_LONG_PROMPT, model.max_tokens))
    free = memory_at_hand(str(model.device))
    more = short.capture + short.projection
    return _property_table({
        f"weights in {short.dtype} (loaded)": size_text(short.weights),
        f"one capture at {short.tokens} tokens": size_text(short.capture),
        f"one capture at {long.tokens} tokens": size_text(long.capture),
        "a projection to the vocabulary": size_text(short.projection),
        "forecast before loading": f"{size_text(short.total)} with {short.tokens} tokens",
        "memory at hand now": size_text(free),
        "verdict": "fits" if more <= free else f"short of {size_text(more - free)} for {short.tokens} tokens",
    })  # fmt: skip
