"""The ledger: the identities that every number on screen rests on, checked on a record of the model at hand.

The numbers of the identities are those of the method's section 2. Float64 decides what is noise: an error that does
not vanish there is a bug, in the model's paths or in our reading of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pandas as pd
import torch
from torch import Tensor

from visit.decompose import attribution, key_readings, needed, query_readings, rotate, value_parts
from visit.forward import Activations, capture, plain_logits
from visit.lens import final_norm, unembed
from visit.model import Model

NAMES = {
    1: "captured logits = plain forward pass",
    2: "heads are sums of memory values, attn_out is the sum of heads",
    3: "mlp_out is the sum of neurons",
    4: "the stream is the sum of what is added",
    5: "the lens of the last state = the model's prediction",
    6: "queries and keys as read reproduce the score q·k",
    7: "contributions add up to the logit",
    9: "the pattern follows from q and k",
}
SAMPLE = "The capital of Japan is the city of"
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
_POSITIONS = 32  # identity 6 compares this many last positions pair by pair


def tolerance(model: Model, identity: int) -> float:
    """The largest relative error allowed: by the model's precision, and by what Hugging Face computes in float32."""
    if model.dtype == torch.float64 and model.family.float32_inside and identity in (6, 7, 9):
        return 1e-6
    return 0.0 if identity == 1 else _TOLERANCE[model.dtype]


def ledger(model: Model, acts: Activations) -> pd.DataFrame:
    """Check every identity on one record of a whole prompt.

    Columns: `identity` (number), `name`, `layer` (missing where the identity has none), `max_abs_error`,
    `max_rel_error` = max |a − b| / max |b|, `tolerance`, `holds`. A NaN is a failure. Runs one plain forward pass.
    """
    acts.index(0, whole=True)
    rows = []
    with torch.no_grad():
        for identity, layer, found, true in _comparisons(model, acts):
            error, largest = _distance(model, found, true)
            relative = error / (largest or 1.0)
            allowed = tolerance(model, identity)
            rows.append((identity, NAMES[identity], layer, error, relative, allowed, relative <= allowed))
    columns = ["identity", "name", "layer", "max_abs_error", "max_rel_error", "tolerance", "holds"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


def _distance(model: Model, found: Tensor, true: Tensor) -> tuple[float, float]:
    """(max |found − true|, max |true|), a slice at a time: logits of a long prompt are large. NaN if any is."""
    pairs = zip(found.split(64), true.split(64), strict=True) if found.dim() else [(found, true)]
    parts = [((a.to(model.wide) - b.to(model.wide)).abs().max(), b.abs().max().to(model.wide)) for a, b in pairs]
    errors, sizes = (torch.stack(column) for column in zip(*parts, strict=True))
    return float(errors.max()), float(sizes.max())


def model_ledger(model: Model) -> pd.DataFrame:
    """The ledger of a model on a short prompt: what is checked each time a model is loaded."""
    return ledger(model, capture(model, SAMPLE))


def summary(table: pd.DataFrame) -> dict[str, object]:
    """A ledger in one line: the largest relative error (NaN counts as largest) and whether every identity holds."""
    errors = table["max_rel_error"]
    worst = math.nan if errors.isna().any() else float(errors.max())
    return {"max_rel_error": worst, "holds": bool(table["holds"].all())}


_Comparison = tuple[int, int | None, Tensor, Tensor]


def _comparisons(model: Model, acts: Activations) -> Iterator[_Comparison]:
    yield 1, None, *_plain(model, acts)
    per_layer: list[Callable[[Model, Activations, int], Iterator[_Comparison]]] = [_sums, _readings, _pattern]
    for layer in range(model.n_layers):
        for check in per_layer:
            yield from check(model, acts, layer)
    for rows in torch.arange(len(acts.token_ids), device=model.device).split(64):
        last = needed(acts, "resid_post")[-1, rows].to(model.wide)
        read = unembed(model, final_norm(model, last)).softmax(-1)
        yield 5, None, read, needed(acts, "logits")[rows].to(model.wide).softmax(-1)
    yield from _attributions(model, acts)


def _plain(model: Model, acts: Activations) -> tuple[Tensor, Tensor]:
    """The captured and the plain logits, which must agree bit for bit.

    A matrix product may differ in its last bit from run to run (seen once: a library that splits its work by the load
    of the machine), hooks or no hooks. So a record that differs only within the model's precision is captured again:
    hooks that change nothing give the plain pass exactly; hooks that change something never do.
    """
    captured = needed(acts, "logits")
    plain = plain_logits(model, acts.token_ids)
    for _ in range(3):
        if torch.equal(captured, plain) or not _is_close(model, needed(acts, "logits"), plain):
            break
        captured = needed(capture(model, acts.token_ids), "logits")
        plain = plain_logits(model, acts.token_ids)
    return captured, plain


def _is_close(model: Model, found: Tensor, true: Tensor) -> bool:
    error, largest = _distance(model, found, true)
    return error <= _TOLERANCE[model.dtype] * largest


def _sums(model: Model, acts: Activations, layer: int) -> Iterator[_Comparison]:
    def part(name: str) -> Tensor:
        return needed(acts, name)[layer].to(model.wide)

    z, weights = part("z"), model.W_O(layer)
    v = part("v").repeat_interleave(model.n_heads // model.n_kv_heads, dim=1)
    yield 2, layer, torch.einsum("hqk,khe->qhe", part("pattern"), v), z
    yield 2, layer, _plus(torch.einsum("phe,hed->pd", z, weights), model.b_O(layer)), part("attn_out")
    yield 3, layer, _plus(part("neurons") @ model.W_out(layer), model.b_out(layer)), part("mlp_out")
    yield 4, layer, part("resid_pre") + part("attn_out"), part("resid_mid")
    yield 4, layer, part("resid_mid") + part("mlp_out"), part("resid_post")


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


def _rotated(model: Model, acts: Activations, name: str, layer: int) -> Tensor:
    x = needed(acts, name)[layer].to(model.wide)
    if not model.family.rotary:
        return x
    cos, sin = needed(acts, "rotary").to(model.wide)
    return rotate(x, cos[:, None], sin[:, None])


def _scores(model: Model, acts: Activations, layer: int) -> Tensor:
    """q·k of every pair of positions, rotated and not yet scaled: `[head, query, key]`."""
    q, k = (_rotated(model, acts, name, layer) for name in "qk")
    k = k.repeat_interleave(model.n_heads // model.n_kv_heads, dim=1)
    return torch.einsum("qhe,khe->hqk", q, k)


def _readings(model: Model, acts: Activations, layer: int) -> Iterator[_Comparison]:
    t = len(acts.token_ids) - 1
    first = max(0, t + 1 - _POSITIONS)
    group = model.n_heads // model.n_kv_heads
    ln1 = needed(acts, "ln1_out")[layer].to(model.wide)
    true = _scores(model, acts, layer)[:, t, first:]
    from_query = []
    for i in range(first, t + 1):
        q = _seen_from(model, acts, "q", layer, t, i)
        read = query_readings(model, acts, layer, t, torch.full((model.n_heads,), i))
        bias = (q * model.b_K(layer).repeat_interleave(group, dim=0)).sum(-1)
        from_query.append(read @ ln1[i] + bias)
    yield 6, layer, torch.stack(from_query, dim=1), true
    sources = torch.arange(first, t + 1, device=model.device).expand(model.n_heads, -1)
    keys = key_readings(model, acts, layer, t, sources) @ ln1[t]
    biases = [
        (_seen_from(model, acts, "k", layer, i, t).repeat_interleave(group, dim=0) * model.b_Q(layer)).sum(-1)
        for i in range(first, t + 1)
    ]
    yield 6, layer, keys + torch.stack(biases, dim=1), true


def _seen_from(model: Model, acts: Activations, name: str, layer: int, at: int, seen: int) -> Tensor:
    """`R_seen^T R_at x`: the query or key of position `at` as position `seen` meets it."""
    x = needed(acts, name)[layer, at].to(model.wide)
    if not model.family.rotary:
        return x
    cos, sin = needed(acts, "rotary").to(model.wide)
    return rotate(rotate(x, cos[at], sin[at]), cos[seen], sin[seen], back=True)


def _pattern(model: Model, acts: Activations, layer: int) -> Iterator[_Comparison]:
    scaling: float = model.module(model.family.attention, layer).scaling
    scores = _scores(model, acts, layer) * scaling
    future = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
    yield 9, layer, scores.masked_fill(future, -math.inf).softmax(-1), needed(acts, "pattern")[layer]


def _attributions(model: Model, acts: Activations) -> Iterator[_Comparison]:
    """Identity 7 at the last position, for the prediction and words spread over the vocabulary."""
    t = len(acts.token_ids) - 1
    logits = needed(acts, "logits")[t].to(model.wide)
    words = [int(logits.argmax()), *range(0, model.d_vocab, max(1, model.d_vocab // 7))]
    frozen = [attribution(model, acts, t, w, raw=True) for w in words]
    directions = torch.stack([f.direction for f in frozen], dim=1)
    total = torch.tensor([f.constant for f in frozen], dtype=model.wide, device=model.device)
    total = total + _embedding_parts(model, acts, t).sum(0) @ directions
    by_value, by_head = total.clone(), total
    for layer in range(model.n_layers):
        neurons = needed(acts, "neurons")[layer, t].to(model.wide)
        z = needed(acts, "z")[layer, t].to(model.wide)
        pattern = needed(acts, "pattern")[layer, :, t, : t + 1].to(model.wide)
        heads = torch.einsum("he,hed->hd", z, model.W_O(layer)) @ directions
        values = pattern[..., None] * value_parts(model, acts, layer, t, directions)
        rest = neurons @ (model.W_out(layer) @ directions)
        for bias in (model.b_O(layer), model.b_out(layer)):
            rest = rest if bias is None else rest + bias @ directions
        by_head = by_head + heads.sum(0) + rest
        by_value = by_value + values.sum((0, 1)) + rest
    yield 7, None, by_head, logits[words]
    yield 7, None, by_value, logits[words]


def _embedding_parts(model: Model, acts: Activations, t: int) -> Tensor:
    """What enters the first block: the token's part and, where positions are learned, the position's."""
    entering = needed(acts, "resid_pre")[0, t].to(model.wide)
    if model.family.pos_embed is None:
        return entering[None]
    positions: Tensor = model.module(model.family.pos_embed).weight
    position = positions[t].detach().to(model.wide)
    return torch.stack([entering - position, position])
