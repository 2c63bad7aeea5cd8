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

from visit.activations.edits import cut_by
from visit.activations.forward import capture, plain_logits
from visit.activations.record import Activations, check_pass
from visit.exact.circuits import as_seen, key_readings, query_readings, rotated
from visit.exact.decompose import attribution, needed, post_scale, raw_output, rows_and_bias, value_parts
from visit.lenses.logit import final_norm, unembed
from visit.models.attention import kv_heads, pattern_of, soft_cap, vector_norm
from visit.models.model import Model

NAMES = {
    1: "captured logits = plain forward pass",
    2: "heads are sums of memory values, attn_out is the sum of heads",
    3: "mlp_out is the sum of neurons",
    4: "the stream is the sum of what is added",
    5: "the lens of the last state = the model's prediction",
    6: "queries and keys as read reproduce the score q·k",
    7: "contributions add up to the logit",
    9: "the pattern follows from q and k",
    10: "the neurons follow from what the MLP reads",
}
SAMPLE = "The capital of Japan is the city of"
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
_POSITIONS = 32  # identity 6 compares this many last positions pair by pair


def tolerance(model: Model, identity: int) -> float:
    """The largest relative error allowed: by the model's precision, and by what Hugging Face computes in float32."""
    family = model.family
    inside = {6, 7, 9} if family.float32_inside else set()
    if family.post_attn:  # the sums are compared past that norm, which Hugging Face computes in float32
        inside |= {2, 3, 8}
    if model.dtype == torch.float64 and identity in inside:
        return 1e-6
    return 0.0 if identity == 1 else _TOLERANCE[model.dtype]


def ledger(model: Model, acts: Activations) -> pd.DataFrame:
    """Check every identity on one record of a whole prompt.

    Columns: `identity` (number), `name`, `layer` (missing where the identity has none), `max_abs_error`,
    `max_rel_error` = max |a − b| / max |b|, `tolerance`, `holds`. A NaN is a failure. Runs one plain forward pass.
    The record of an edited run is compared with that run; a sum that an edit replaces is no sum any more: it is left
    out, and stands in `.attrs["left_out"]` as "part of L9", a list.
    """
    check_pass(model, acts)
    acts.index(0, whole=True)
    rows, cut = [], cut_by(acts.edits)
    with torch.no_grad():
        for identity, layer, found, true in _comparisons(model, acts):
            error, largest = distance(model, found, true)
            relative = error / (largest or 1.0)
            remade = identity == 2 and ("pattern", layer) in cut  # z by the pattern that an edit made: as exact as that
            allowed = tolerance(model, 9 if remade else identity)
            rows.append((identity, NAMES[identity], layer, error, relative, allowed, relative <= allowed))
    columns = ["identity", "name", "layer", "max_abs_error", "max_rel_error", "tolerance", "holds"]
    table = pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})
    table.attrs["left_out"] = [f"{part} of L{layer}" for part, layer in sorted(cut)]
    return table


def distance(model: Model, found: Tensor, true: Tensor) -> tuple[float, float]:
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
    cut = cut_by(acts.edits)
    checks: dict[str, Callable[[Model, Activations, int], Iterator[_Comparison]]] = {
        "scores": _readings, "pattern": _pattern, "neurons": _neurons,
    }  # fmt: skip
    for layer in range(model.n_layers):
        yield from _sums(model, acts, layer, {part for part, at in cut if at == layer})
        for part, check in checks.items():
            if (part, layer) not in cut:
                yield from check(model, acts, layer)
    for rows in torch.arange(len(acts.token_ids), device=model.device).split(64):
        last = needed(acts, "resid_post")[-1, rows].to(model.wide)
        read = soft_cap(unembed(model, final_norm(model, last)), model.logit_cap).softmax(-1)
        yield 5, None, read, needed(acts, "logits")[rows].to(model.wide).softmax(-1)
    parts = {part for part, _ in cut}
    if not parts & {"attn_out", "mlp_out", "stream"}:
        yield from _attributions(model, acts, by_value="z" not in parts)


def _plain(model: Model, acts: Activations) -> tuple[Tensor, Tensor]:
    """The captured and the plain logits, which must agree bit for bit.

    A matrix product may differ in its last bit from run to run (seen once: a library that splits its work by the load
    of the machine), hooks or no hooks. So the plain pass is run again, a few times at most: a steady one cannot come to
    a record that differs, and an unsteady one does.
    """
    captured = needed(acts, "logits")
    for _ in range(4):
        plain = plain_logits(model, acts.token_ids, acts.edits)
        if torch.equal(captured, plain):
            break
    return captured, plain


def _sums(model: Model, acts: Activations, layer: int, cut: set[str]) -> Iterator[_Comparison]:
    def part(name: str) -> Tensor:
        return needed(acts, name)[layer].to(model.wide)

    z = part("z").flatten(-2)
    v = part("v").repeat_interleave(model.n_heads // model.n_kv_heads, dim=1)
    if "z" not in cut:
        yield 2, layer, torch.einsum("hqk,khe->qhe", part("pattern"), v).flatten(-2), z
    for number, name, terms in ((2, "attn", z), (3, "mlp", part("neurons"))):
        scale = post_scale(model, acts, layer, name, slice(None))
        rows, bias = (
            (model.W_O(layer).flatten(0, 1), model.b_O(layer)) if name == "attn"
            else (model.W_out(layer), model.b_out(layer))
        )  # fmt: skip
        if f"{name}_out" not in cut:
            yield number, layer, _plus(terms @ rows, bias) * scale, part(f"{name}_out")
        if not isinstance(scale, float):  # r_t comes from these very terms: they are checked before the norm, too
            yield number, layer, raw_output(model, acts, layer, name, slice(None)), part(f"{name}_raw")
    if not model.family.parallel:
        yield 4, layer, part("resid_pre") + part("attn_out"), part("resid_mid")
    if "stream" not in cut:
        before = part("resid_pre") + part("attn_out") if model.family.parallel else part("resid_mid")
        yield 4, layer, before + part("mlp_out"), part("resid_post")


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


def _scores(model: Model, acts: Activations, layer: int) -> Tensor:
    """q·k of every pair of positions, rotated and not yet scaled: `[head, query, key]`."""
    q, k = (rotated(model, acts, layer, needed(acts, name)[layer].to(model.wide)) for name in "qk")
    return torch.einsum("qhe,khe->hqk", q, k[:, kv_heads(model)])


def _readings(model: Model, acts: Activations, layer: int) -> Iterator[_Comparison]:
    """The last query against the last keys: from the query's side, then from the key's."""
    t = len(acts.token_ids) - 1
    first = max(0, t + 1 - _POSITIONS)
    near = torch.arange(first, t + 1, device=model.device)
    true = _scores(model, acts, layer)[:, t, first:]
    yield 6, layer, torch.stack([_from_query(model, acts, layer, t, int(i)) for i in near], dim=1), true
    yield 6, layer, _from_keys(model, acts, layer, t, near.expand(model.n_heads, -1)), true


def _from_query(model: Model, acts: Activations, layer: int, t: int, i: int) -> Tensor:
    """`s_i (⟨ln1_out[i], C(γ_K ⊙ q) W_Kᵀ⟩ + C(γ_K ⊙ q)·b_K) + q·β_K`, the score of one source, every head."""
    groups, norm = kv_heads(model), vector_norm(model, "k", layer)
    q = as_seen(model, acts, layer, needed(acts, "q")[layer, t].to(model.wide), t, i)
    ln1 = needed(acts, "ln1_out")[layer, i].to(model.wide)
    read = query_readings(model, acts, layer, t, torch.full((model.n_heads,), i, device=model.device)) @ ln1
    bias = model.b_K(layer)[groups]
    if norm is None:
        return read + (q * bias).sum(-1)
    raw = torch.einsum("d,hde->he", ln1, model.W_K(layer)) + model.b_K(layer)
    scale = norm.scale(raw).expand(model.n_kv_heads, 1)[groups, 0]
    found = scale * (read + (norm.centre(norm.gain[groups] * q) * bias).sum(-1))
    return found if norm.bias is None else found + (q * norm.bias[groups]).sum(-1)


def _from_keys(model: Model, acts: Activations, layer: int, t: int, sources: Tensor) -> Tensor:
    """The same from the side of the keys `[head, source]`."""
    norm, ln1 = vector_norm(model, "q", layer), needed(acts, "ln1_out")[layer, t].to(model.wide)
    k = needed(acts, "k")[layer, sources, kv_heads(model)[:, None]].to(model.wide)
    k = as_seen(model, acts, layer, k, sources, t)
    read = key_readings(model, acts, layer, t, sources) @ ln1
    bias = model.b_Q(layer)[:, None]
    if norm is None:
        return read + (k * bias).sum(-1)
    raw = torch.einsum("d,hde->he", ln1, model.W_Q(layer)) + model.b_Q(layer)
    scale = norm.scale(raw).expand(model.n_heads, 1)
    found = scale * (read + (norm.centre(norm.gain[:, None] * k) * bias).sum(-1))
    return found if norm.bias is None else found + (k * norm.bias[:, None]).sum(-1)


def _pattern(model: Model, acts: Activations, layer: int) -> Iterator[_Comparison]:
    yield 9, layer, pattern_of(model, layer, _scores(model, acts, layer)), needed(acts, "pattern")[layer]


def _neurons(model: Model, acts: Activations, layer: int) -> Iterator[_Comparison]:
    """`act(ln2_out W_in + b)`, in a gated MLP `act(ln2_out W_gate + b) ⊙ (ln2_out W_in + b)`: not in the method's list,
    but what the drawn pre-activations rest on."""
    family, x = model.family, needed(acts, "ln2_out")[layer].to(model.wide)

    def before(path: str) -> Tensor:
        return _plus(x @ model.weight(path, layer), model.bias(path, layer))

    act = model.module(family.act, layer)
    up = before(family.w_in)
    found = act(up) if family.w_gate is None else act(before(family.w_gate)) * up
    yield 10, layer, found, needed(acts, "neurons")[layer]


def _attributions(model: Model, acts: Activations, by_value: bool) -> Iterator[_Comparison]:
    """Identity 7 at the last position, for the prediction and words spread over the vocabulary.

    `by_value`: also with every head as the sum of its memory values.
    """
    t = len(acts.token_ids) - 1
    logits = needed(acts, "logits")[t].to(model.wide)
    if model.logit_cap is not None:  # the sum is that of the logits before the cap; identity 5 checks the cap
        logits = unembed(model, final_norm(model, needed(acts, "resid_post")[-1, t : t + 1].to(model.wide)))[0]
    words = [int(logits.argmax()), *range(0, model.d_vocab, max(1, model.d_vocab // 7))]
    frozen = [attribution(model, acts, t, w, raw=True) for w in words]
    directions = torch.stack([f.direction for f in frozen], dim=1)
    total = torch.tensor([f.constant for f in frozen], dtype=model.wide, device=model.device)
    total = total + _embedding_parts(model, acts, t).sum(0) @ directions
    values_total, heads_total = total.clone(), total
    for layer in range(model.n_layers):
        neurons = needed(acts, "neurons")[layer, t].to(model.wide)
        z = needed(acts, "z")[layer, t].to(model.wide)
        pattern = needed(acts, "pattern")[layer, :, t, : t + 1].to(model.wide)
        values = pattern[..., None] * value_parts(model, acts, layer, t, directions)
        rows, bias = rows_and_bias(model, acts, layer, "attn", t)
        heads = z.flatten() @ (rows @ directions)
        rest = torch.zeros_like(total) if bias is None else bias @ directions
        rows, bias = rows_and_bias(model, acts, layer, "mlp", t)
        rest = rest + neurons @ (rows @ directions)
        rest = rest if bias is None else rest + bias @ directions
        heads_total = heads_total + heads + rest
        values_total = values_total + values.sum((0, 1)) + rest
    yield 7, None, heads_total, logits[words]
    if by_value:
        yield 7, None, values_total, logits[words]


def _embedding_parts(model: Model, acts: Activations, t: int) -> Tensor:
    """What enters the first block: the token's part and, where positions are learned, the position's."""
    entering = needed(acts, "resid_pre")[0, t].to(model.wide)
    if model.family.pos_embed is None:
        return entering[None]
    positions: Tensor = model.module(model.family.pos_embed).weight
    position = positions[t + model.family.pos_offset].detach().to(entering)
    return torch.stack([entering - position, position])
