"""The most probable words of many vectors, and how much two lists of words agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from visit.lenses.logit import TILE_BYTES, lens_logits, top_of
from visit.models.attention import soft_cap
from visit.models.model import Model

CELLS = 5 << 20  # pairs of places looked at together: some 2,000 pairs of lists of 50 words


@dataclass(frozen=True, eq=False)
class Tops:
    """What was read: words in order, the probability of the words asked for (of the first rows), `fine`: no NaN."""

    ids: Int[Tensor, "n k"]
    prob: Float[Tensor, " asked"]
    fine: Bool[Tensor, " n"]


def read_tops(model: Model, x: Float[Tensor, "n d_model"], k: int, asked: Int[Tensor, " asked"] | None = None) -> Tops:
    """The k most probable words of every row, and of the first rows the probability of one word each.

    `logit.read` says more of every vector (entropy, ranks, the other end); here every pass over the logits of
    some thousand vectors a prompt counts.
    """
    asked = torch.empty(0, dtype=torch.long, device=x.device) if asked is None else asked
    ids = torch.empty(len(x), k, dtype=torch.int32, device=x.device)
    prob = torch.empty(len(asked), dtype=model.wide, device=x.device)
    fine = torch.empty(len(x), dtype=torch.bool, device=x.device)
    for rows, logits in lens_logits(model, x):
        tile = max(1, TILE_BYTES // (model.d_vocab * logits.element_size()))
        for first in range(rows.start, rows.stop, tile):
            last = min(first + tile, rows.stop)
            part = logits[first - rows.start : last - rows.start]
            high, top = top_of(part, k)
            ids[first:last], fine[first:last] = top, high[:, 0].isfinite()  # NaN counts as largest
            words = asked[first:last]
            if len(words):
                part = soft_cap(part[: len(words)], model.logit_cap)
                own = part.gather(1, words[:, None])[:, 0]
                prob[first : first + len(words)] = (own - part.logsumexp(-1)).exp()
    return Tops(ids, prob, fine)


def patience(k: int) -> float:
    """The p of `rank_weights`: 1 − 5/k (0.9 for k = 50), so that nearly all of its weight lies within the words."""
    return 1 - 5 / max(k, 10)


def rank_weights(k: int) -> Float[Tensor, " k"]:
    """The weight of each depth in rank-biased overlap, `(1 − p) p^(d−1) / (1 − p^k)`: they add up to 1."""
    weights = patience(k) ** torch.arange(k, dtype=torch.float64)
    return weights / weights.sum()


def agreement(
    a: Int[Tensor, "... k"], b: Int[Tensor, "... k"], measures: tuple[str, ...]
) -> Float[Tensor, "measure ..."]:
    """How much ordered lists of k words agree, pair by pair; other axes are broadcast. In float64.

    "intersection": I_k, the share of words in common, whatever their order (paper eq. 3).
    "rbo": rank-biased overlap (Webber et al. 2010), cut off at k: `Σ_d w_d · |a[:d] ∩ b[:d]| / d` with the weights
    w_d of `rank_weights`. 1 for equal lists, 0 for lists without a common word; agreement at the top counts most.
    Both come from which pairs of places hold the same word: a word at places i of a and j of b is common from depth
    max(i, j) on, and so adds `Σ_{d ≥ max(i, j)} w_d / d`.
    """
    k = a.shape[-1]
    shape = torch.broadcast_shapes(a.shape, b.shape)
    left, right = a.expand(shape).reshape(-1, k), b.expand(shape).reshape(-1, k)
    table = torch.stack([_PAIRS[name](k) for name in measures], dim=1).to(a.device)
    out = torch.empty(len(left), len(measures), dtype=torch.float64, device=a.device)
    step = max(1, CELLS // (k * k))
    for start in range(0, len(left), step):
        rows = slice(start, start + step)
        row, i, j = (left[rows, :, None] == right[rows, None, :]).nonzero(as_tuple=True)
        out[rows] = 0.0
        out[rows].index_add_(0, row, table[i * k + j])
    counted = [place for place, name in enumerate(measures) if name == "intersection"]
    out[:, counted] = out[:, counted] / k  # after the sum, which so far is a whole number
    return out.T.unflatten(1, shape[:-1])


def _of_places(k: int) -> Float[Tensor, " pairs"]:
    depth = torch.arange(1, k + 1, dtype=torch.float64)
    later = (rank_weights(k) / depth).flip(0).cumsum(0).flip(0)  # Σ of all depths from this one on
    place = torch.arange(k)
    return later[torch.maximum(place[:, None], place[None, :])].flatten()


_PAIRS = {"intersection": lambda k: torch.ones(k * k, dtype=torch.float64), "rbo": _of_places}


def ranks(norms: Float[Tensor, "layer head"]) -> Int[Tensor, "layer head"]:
    """The place of each head in its layer, 1 = longest; equal ones keep their order."""
    return norms.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1) + 1


def shared(a: Int[Tensor, "... k"], b: Int[Tensor, "... k"]) -> Float[Tensor, "..."]:
    """I_k from the ids of the k top words: how many of them two readings have in common, of k (paper eq. 3)."""
    common = (a[..., :, None] == b[..., None, :]).any(-1).sum(-1)
    return common / a.shape[-1]
