"""The logit lens: which words is a vector about? One batched product over the vocabulary, in chunks.

The lens (paper eq. 2) is `softmax(ln_final(x) @ W_U)` with the norm's statistics computed fresh for x. It discards the
vector's length. What a vector does to the answer is another question, answered by `visit.exact.decompose`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.errors import VisitError, check_kind, check_positive
from visit.models.attention import soft_cap
from visit.models.model import Model
from visit.models.product import SIZES, product

if TYPE_CHECKING:
    from visit.lenses.linear import Lens

CHUNK_BYTES = 64 << 20  # of logits held at once: a block fits into one product, and more gains nothing
_STRETCH = 64  # words looked at together when the largest are searched
TILE_BYTES = 4 << 20  # of logits per reading step: what stays in the processor's cache is read only once


@dataclass(frozen=True, eq=False)
class Readings:
    """What n vectors read, as tensors. `prob` and `rank` are of the target (`[n, word]` of several), None without."""

    top_ids: Int[Tensor, "n k"]
    top_probs: Float[Tensor, "n k"]
    bottom_ids: Int[Tensor, "n k"]
    bottom_probs: Float[Tensor, "n k"]
    entropy: Float[Tensor, " n"]  # bits
    norm: Float[Tensor, " n"]
    prob: Float[Tensor, "n ..."] | None
    rank: Int[Tensor, "n ..."] | None


def final_norm(model: Model, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    """The final norm of x, its statistics fresh. Runs the module's own forward, past any hook of another thread."""
    module: Any = model.ln_final
    if module is None:
        return x
    weight = getattr(module, "weight", None)
    if weight is None or weight.dtype == x.dtype:
        return module.forward(x).to(x.device)  # of a model spread over cards it may lie on another
    x = x - x.mean(-1, keepdim=True) if model.family.norm == "layer" else x
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + model.final_eps) * model.final_gain
    return x if model.final_bias is None else x + model.final_bias


def unembed(model: Model, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_vocab"]:
    """Logits of normed vectors, `x @ W_U + b`, in float32 at least, never holding a second copy of W_U.

    Before the soft-cap where the family has one: it changes no rank, and contributions add up to these.
    """
    x = x if model.project_out is None else x @ model.project_out
    weight = model.unembedding.weight.detach()
    if weight.dtype == x.dtype:
        return product(x, weight, model.b_U)
    out = x.new_empty(len(x), len(weight))
    for start in range(0, len(weight), 8192):  # half-precision weights are widened a slice of words at a time
        out[:, start : start + 8192] = x @ weight[start : start + 8192].to(x.dtype).T
    return out if model.b_U is None else out.add_(model.b_U)


def logits_of(model: Model, x: Float[Tensor, "n d_model"], words: Int[Tensor, "n word"]) -> Float[Tensor, "n word"]:
    """The same of a few words of each row's own, without the product over the vocabulary."""
    x = x if model.project_out is None else x @ model.project_out
    rows = model.unembedding.weight.detach()[words].to(x.dtype)
    out = torch.einsum("nwd,nd->nw", rows, x)
    return out if model.b_U is None else out + model.b_U[words]


def lens_logits(model: Model, x: Float[Tensor, "n d_model"]) -> Iterator[tuple[slice, Float[Tensor, "chunk d_vocab"]]]:
    """Logits of the lens before any soft-cap, rows in chunks: (which rows, their logits)."""
    x = x.to(model.wide)
    fit = CHUNK_BYTES // (model.d_vocab * x.element_size())
    rows = max((size for size in SIZES if size <= fit), default=max(1, fit))  # a block is handed on without a copy
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        yield slice(start, start + len(part)), unembed(model, final_norm(model, part))


def read(
    model: Model, x: Float[Tensor, "n d_model"], target: int | Int[Tensor, "n word"] | None = None, k: int = 10
) -> Readings:
    """Everything the lens says about each row of x: top and bottom words, entropy in bits, rank of the target.

    `target` may also be words of each row's own `[n, word]`: a memory value is asked for its source token.
    """
    check_kind("k", k, int, "a whole number from 1")
    check_positive("k", k)
    with torch.no_grad():
        k = min(k, model.d_vocab)
        found: tuple[Tensor, ...] = ()
        for rows, logits in lens_logits(model, x):
            tile = max(1, TILE_BYTES // (model.d_vocab * logits.element_size()))
            for i in range(0, len(logits), tile):
                words = target[rows][i : i + tile] if isinstance(target, Tensor) else target
                part = _read_tile(logits[i : i + tile], words, k, model.logit_cap)
                # one place for all rows: small results that stay between large temporaries pin the heap (500 MB seen)
                found = found or tuple(column.new_empty(len(x), *column.shape[1:]) for column in part)
                for column, now in zip(found, part, strict=True):
                    column[rows][i : i + tile] = now
            del logits  # before the next chunk is made: one at a time is held
        found = found or _read_tile(x.new_empty(0, model.d_vocab, dtype=model.wide), target, k)
        top, top_p, bottom, bottom_p, entropy, prob, rank = found
        known = target is not None
        length = x.to(model.wide).norm(dim=-1)
        return Readings(top, top_p, bottom, bottom_p, entropy, length, prob if known else None, rank if known else None)


def read_again(model: Model, x: Float[Tensor, "n d_model"], known: Readings, target: int) -> Readings:
    """The readings `known` of the rows of x, asked for another target: a vector read once tells of any word.

    The target's probability stands to the top word's as their logits say. `rank` is known where it is among the top
    words, and 0 beyond them.
    """
    with torch.no_grad():
        top = known.top_ids[:, :1]
        pair = torch.cat([top, torch.full_like(top, target)], dim=1)
        logits = soft_cap(logits_of(model, final_norm(model, x.to(model.wide)), pair), model.logit_cap)
        prob = known.top_probs[:, 0] * (logits[:, 1] - logits[:, 0]).exp()
        here = known.top_ids == target
        read_there = torch.where(here, known.top_probs, 0).sum(-1)
        rank = 1 + (known.top_probs > read_there[:, None]).sum(-1)
        found = here.any(-1)
        return replace(known, prob=torch.where(found, read_there, prob), rank=torch.where(found, rank, 0))


def read_logits(
    model: Model, logits: Float[Tensor, "n d_vocab"], target: int | None = None, k: int = 10, cap: float | None = None
) -> Readings:
    """The same readings from the model's own logits: where its prediction is shown, nothing is computed again.

    `cap`: a soft-cap that they have not passed yet.
    """
    logits = logits.to(model.wide).clone()
    top, top_p, bottom, bottom_p, entropy, prob, rank = _read_tile(logits, target, min(k, model.d_vocab), cap)
    known = target is not None
    norm = torch.full_like(entropy, math.nan)
    return Readings(top, top_p, bottom, bottom_p, entropy, norm, prob if known else None, rank if known else None)


def _read_tile(logits: Tensor, target: int | Tensor | None, k: int, cap: float | None = None) -> tuple[Tensor, ...]:
    """Places by the logits as they come, probabilities after the soft-cap `cap`. Works in place: the chunk is ours."""
    high, top = top_of(logits, k)
    low, bottom = top_of(logits, k, largest=False)
    own = logits.gather(1, target) if isinstance(target, Tensor) else logits[:, [target or 0]]  # a copy
    spare = torch.empty_like(logits)  # one for all passes
    # counted as numbers: three times faster than as truth values, and whole numbers are exact below 2 ** 24
    above = [torch.gt(logits, word[:, None], out=spare).sum(-1) for word in own.unbind(1)]
    rank = 1 + torch.stack(above, dim=1).long()
    rank = rank.masked_fill(own.isnan(), logits.shape[-1])  # no number is no first place
    if cap is not None:
        logits, high, low, own = (soft_cap(x, cap) for x in (logits, high, low, own))
    logits = logits.sub_(high[:, :1])  # in place: the chunk is ours, and a pass over it costs as much as its product
    weights = torch.exp(logits, out=spare)
    total = weights.sum(-1, keepdim=True)
    mean = torch.linalg.vecdot(weights, logits)[:, None] / total
    entropy = ((total.log() - mean) / math.log(2)).clamp_(min=0)
    scale = high[:, :1] + total.log()
    prob = (own - scale).exp()
    if not isinstance(target, Tensor):
        prob, rank = prob[:, 0], rank[:, 0]
    return top, (high - scale).exp(), bottom, (low - scale).exp(), entropy[:, 0], prob, rank


def top_of(logits: Tensor, k: int, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) of every row, in order: values and places, as `torch.topk`, three times faster.

    They lie in the k stretches of the row whose own largest is largest, so that only these are searched.
    """
    rows, width = logits.shape
    count = width // _STRETCH
    if count < 4 * k:
        found = logits.topk(k, dim=-1, largest=largest)
        return found.values, found.indices
    body = logits[:, : count * _STRETCH].unflatten(1, (count, _STRETCH))
    best = (body.amax(-1) if largest else body.amin(-1)).topk(k, dim=-1, largest=largest).indices[:, :, None]
    tail = torch.arange(count * _STRETCH, width, device=logits.device).expand(rows, -1)
    places = torch.cat([(best * _STRETCH + torch.arange(_STRETCH, device=logits.device)).flatten(1), tail], dim=1)
    values = torch.cat([body.gather(1, best.expand(-1, -1, _STRETCH)).flatten(1), logits.gather(1, tail)], dim=1)
    found = values.topk(k, dim=-1, largest=largest)
    return found.values, places.gather(1, found.indices)


def read_vectors(
    model: Model,
    x: Any,
    target: int | str | None = None,
    distractor: int | str | None = None,
    k: int = 10,
    lens: Lens | None = None,
    layer: int | None = None,
) -> pd.DataFrame:
    """Read vectors with the logit lens: a row per vector.

    `x`: `[n, d_model]` or one vector `[d_model]`. Columns: `tokens`, `probs`, `bottom_tokens`, `bottom_probs` (lists
    of k; bottom = least probable first), `entropy` (bits, between 0 and log2 d_vocab), `norm`; with a target also
    `prob` and `rank` (1 = most probable), with a distractor `distractor_prob` and `distractor_rank`.
    `lens`: a fitted lens to read through, `layer` then says behind which block the vectors lie (−1: the embedding);
    None reads plainly. A vector used with a negative coefficient is read as `-x`. Raises `VisitError` for a wrong
    width, a target that is not one token, or a lens of another model. Source: paper eq. 2.
    """
    rows = _checked_vectors(model, x)
    if k < 1:
        raise VisitError(f"k must be at least 1; got {k}.")
    if lens is not None:
        rows = _through_lens(model, rows, lens, layer)
    wanted = None if target is None else model.token_id(target)
    found = read(model, rows, wanted, k)
    table = pd.DataFrame(columns_of(model, found))
    if distractor is not None:
        other = read(model, rows, model.token_id(distractor, "distractor"), k=1)
        assert other.prob is not None and other.rank is not None
        table["distractor_prob"], table["distractor_rank"] = other.prob.tolist(), other.rank.tolist()
    return table


def _through_lens(model: Model, rows: Tensor, lens: Lens, layer: int | None) -> Tensor:
    from visit.lenses.linear import checked, through

    if layer is None or not -1 <= layer < model.n_layers:
        raise VisitError(
            f"A fitted lens has a map for every block: say behind which one the vectors lie (layer = 0 to "
            f"{model.n_layers - 1}, -1 for the embedding); got {layer}."
        )
    return through(checked(model, lens), rows, "resid_post" if layer >= 0 else "resid_pre", max(layer, 0))


def columns_of(model: Model, found: Readings) -> dict[str, list[Any]]:
    """Readings as plain lists, ids turned into words."""
    words = model.vocabulary
    columns: dict[str, list[Any]] = {
        "tokens": [[words[i] for i in row] for row in found.top_ids.tolist()],
        "probs": found.top_probs.tolist(),
        "bottom_tokens": [[words[i] for i in row] for row in found.bottom_ids.tolist()],
        "bottom_probs": found.bottom_probs.tolist(),
        "entropy": found.entropy.tolist(),
        "norm": found.norm.tolist(),
    }
    if found.prob is not None and found.rank is not None:
        columns |= {"prob": found.prob.tolist(), "rank": found.rank.tolist()}
    return columns


def intersection(model: Model, a: Any, b: Any, k: int = 50) -> Any:
    """Intersection score `I_k(a, b) = |top_k(LL(a)) ∩ top_k(LL(b))| / k`, between 0 and 1 (paper eq. 3).

    `a`, `b`: two vectors `[d_model]` (returns a float) or two sets of as many, `[n, d_model]`, compared row by row
    (returns a tensor `[n]`). Two random vectors give k / d_vocab on average.
    """
    left, right = _checked_vectors(model, a), _checked_vectors(model, b)
    if left.shape != right.shape:
        raise VisitError(f"Both sides must have as many vectors; got {len(left)} and {len(right)}.")
    if not 1 <= k <= model.d_vocab:
        raise VisitError(f"k must be from 1 to {model.d_vocab}; got {k}.")
    tops = [torch.cat([top_of(logits, k)[1] for _, logits in lens_logits(model, x)]) for x in (left, right)]
    shared = (tops[0][:, :, None] == tops[1][:, None, :]).any(-1).sum(-1) / k
    return float(shared[0]) if torch.as_tensor(a).dim() == 1 else shared


def _checked_vectors(model: Model, x: Any) -> Tensor:
    x = torch.as_tensor(x, device=model.device)
    x = x[None] if x.dim() == 1 else x
    if x.dim() != 2 or x.shape[-1] != model.d_model:
        raise VisitError(f"Vectors must be [n, {model.d_model}] (d_model of {model.name}); got {list(x.shape)}.")
    return x.to(model.wide)
